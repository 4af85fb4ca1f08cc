"""Answers of a real vLLM are those of this process, image for image, free and kept to the format."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from conftest import COUNT, ROOT, Served, command, coordcore, page_command
from coordcore.coords import DEFAULT_COORDS
from coordcore.records.answers import COORDJSON, Format
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, QWEN_NUMBERS, TAGGED
from coordcore_detection.decode.pattern import answer_pattern, literal, quoted
from coordcore_detection.predict import prediction_files, structured
from coordcore_detection.predict.served import keep
from coordcore_detection.predict.served_checkpoint import Checkpoint
from coordcore_detection.predict.server import Server
from coordcore_detection.predict.settings import PredictSettings

LIMITS = ("--max-new-tokens", "400")
"""Those of the page."""


def rows(file: Path) -> list[Any]:
    return prediction_files.read(file)[1]


def here(work: Path, name: str, *more: object) -> list[Any]:
    """Asked in this process."""
    coordcore("predict", "runs/NAME", "val.jsonl", "--space", "pixel", "--output", name, *LIMITS, *more, cwd=work)
    return rows(work / name)


def there(work: Path, served: Served, name: str, *more: object) -> list[Any]:
    """Asked of the server."""
    url = ("--server", f"http://127.0.0.1:{served.port}/v1", "--model", "NAME")
    coordcore("predict", "runs/NAME", "val.jsonl", "--space", "pixel", "--output", name, *url, *LIMITS, *more, cwd=work)
    return rows(work / name)


def differing(first: list[Any], second: list[Any]) -> list[tuple[str, str, str]]:
    """Of two files of predictions: the images whose texts are not the same."""
    assert [row.image for row in first] == [row.image for row in second]
    assert len(first) == COUNT
    return [(a.image, a.text, b.text) for a, b in zip(first, second, strict=True) if a.text != b.text]


@pytest.fixture(scope="module")
def free_here(work: Path) -> list[Any]:
    return here(work, "here-free.jsonl", "--free")


def in_vllm(work: Path, vllm: Path, name: str, *more: object) -> list[Any]:
    """Asked of vLLM without a server, by the command of the page."""
    text = page_command("in").replace("vllm/bin/coordcore", str(vllm.with_name("coordcore")))
    command(f"{text} {' '.join(map(str, more))}".replace("predictions.jsonl", name), work)
    return rows(work / name)


@pytest.fixture(scope="module")
def with_coordcore(vllm: Path) -> Path:
    """vLLM's environment, with coordcore in it as the page says, from this checkout."""
    text = page_command("into").replace("vllm/bin/python", str(vllm))
    command(re.sub("^uv ", f"{sys.executable} -m uv ", text, flags=re.MULTILINE), ROOT)
    return vllm


@pytest.fixture(scope="module")
def kept_here(work: Path) -> list[Any]:
    return here(work, "here-kept.jsonl", "--unordered")


@pytest.fixture(scope="module")
def kept_there(work: Path, served: Served) -> list[Any]:
    command(page_command("kept").replace("8000", str(served.port)), work)
    return rows(work / "constrained.jsonl")


def test_free_answers_by_the_command_of_the_page(work: Path, served: Served, free_here: list[Any]) -> None:
    text = page_command("ask").replace("8000", str(served.port))
    command(text, work)
    asked = rows(work / "predictions.jsonl")
    assert differing(asked, free_here) == []
    for row, other in zip(asked, free_here, strict=True):
        assert [box.bins for box in row.boxes] == [box.bins for box in other.boxes]
        for box, same in zip(row.boxes, other.boxes, strict=True):
            assert box.scores == pytest.approx({name: same.scores[name] for name in box.scores}, abs=1e-3)


def test_a_limit_that_leaves_no_room_is_told_and_answers_are_given(work: Path, served: Served) -> None:
    ask = page_command("ask").replace("8000", str(served.port)).replace("predictions.jsonl", "room.jsonl")
    assert "--max-new-tokens 400" in ask
    said = command(f"{ask.replace('400', '2048')} --limit 3", work)
    assert "has room for 2048 tokens of image, question and answer together, and is asked for 2048" in said
    assert len(rows(work / "room.jsonl")) == 3


def test_answers_kept_to_the_format(kept_here: list[Any], free_here: list[Any], kept_there: list[Any]) -> None:
    assert differing(kept_there, kept_here) == []
    assert len(differing(kept_there, free_here)) > COUNT // 2  # so that the format changed what is compared
    form = answer_pattern(COORDJSON, DEFAULT_COORDS)
    assert [row.text for row in kept_there if not re.fullmatch(form, row.text)] == []
    assert [row.text for row in free_here if not re.fullmatch(form, row.text)] != []


def test_answers_kept_to_another_kind(work: Path, served: Served, kept_there: list[Any]) -> None:
    points = ("--geometry", "point")
    asked = there(work, served, "there-points.jsonl", "--constrained", *points)
    assert differing(asked, here(work, "here-points.jsonl", "--unordered", *points)) == []
    assert len(differing(asked, kept_there)) == COUNT


def test_vllm_without_a_server_answers_the_same(
    work: Path, with_coordcore: Path, free_here: list[Any], kept_here: list[Any], kept_there: list[Any]
) -> None:
    free = in_vllm(work, with_coordcore, "in-free.jsonl")
    assert differing(free, free_here) == []
    kept = in_vllm(work, with_coordcore, "in-kept.jsonl", "--constrained")
    assert differing(kept, kept_here) == []
    for row, other in zip(kept, kept_there, strict=True):
        assert [box.bins for box in row.boxes] == [box.bins for box in other.boxes]
        for box, same in zip(row.boxes, other.boxes, strict=True):
            assert box.scores == pytest.approx(same.scores, abs=1e-3)
            assert box.box == pytest.approx(same.box, abs=1e-2)


def test_another_question_is_another_answer(work: Path, served: Served, free_here: list[Any]) -> None:
    asked = there(work, served, "there-other.jsonl", "--question", "<image>Find the red shapes, and no other.")
    assert len(differing(asked, free_here)) > COUNT // 2


def test_formats_written_with_special_tokens(work: Path, served: Served, tmp_path: Path) -> None:
    """Which a server leaves out of its text unless it is asked not to."""
    folder = tmp_path / "merged"
    shutil.copytree(work / "runs/NAME/merged", folder)
    info = json.loads((folder / "coordcore.json").read_text())
    (folder / "coordcore.json").write_text(json.dumps({**info, "answers": TAGGED.as_dict()}))
    read = Checkpoint.read(folder)
    server = Server(url=f"http://127.0.0.1:{served.port}/v1", model="NAME")
    text = "<|object_ref_start|>a<|object_ref_end|>"
    rule = structured.Rule(grammar=f"root ::= {quoted(text)}\n", pattern=literal(text))
    forced = structured.kept(server, rule, read.plain)
    body = {"messages": [{"role": "user", "content": "?"}], "temperature": 0.0, "max_tokens": 20, **forced.asked}
    assert server.ask({**body, **read.plain}).text == text
    assert server.ask(body).text == "a"


@pytest.mark.parametrize("form", [COORDJSON, COMPACT, GROUPED, TAGGED, QWEN, QWEN_NUMBERS], ids=lambda form: form.name)
def test_every_format_is_kept_to(work: Path, served: Served, form: Format) -> None:
    read = attrs.evolve(Checkpoint.read(work / "runs/NAME"), format=form, plain={"skip_special_tokens": False})
    server = Server(url=f"http://127.0.0.1:{served.port}/v1", model="NAME")
    kept = keep(server, read, PredictSettings(geometry=("bbox_2d", "point")))
    assert "grammar" in kept.asked["structured_outputs"]
    body = {"messages": [{"role": "user", "content": "Find the shapes."}], "temperature": 0.0, "max_tokens": 300}
    reply = server.ask({**body, **read.plain, **kept.asked, "logprobs": True})
    kept.require("a question without an image", reply, read.coords, server)
    assert reply.is_cut or re.fullmatch(kept.pattern, reply.text)
    assert form.opening in reply.text
