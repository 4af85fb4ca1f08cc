"""`coordcore predict --server --constrained`: how a server is asked, and what is told when it does not keep to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_server import Answer, Error, completion, serving, token
from PIL import Image
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore.coords import CoordVocab, ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format
from coordcore.records.answers.format import Coords, Label
from coordcore_detection.predict import prediction_files, structured
from coordcore_detection.predict import server as servers
from coordcore_train.chat import Question
from coordcore_train.checkpoint.folder import write_checkpoint_info

TRIED = (structured.TRIED, f'root ::= "{structured.TRIED}"\n')
BOX = f'{{"objects": [{{"desc": "a", "bbox_2d": [{", ".join(ints_to_tokens((1, 2, 3, 4)))}]}}]}}'
TAGS = Format(
    name="tags",
    label=("<|box_start|>", Label(without="<")),
    places={"bbox_2d": (Coords("bbox_2d", between=""),)},
    between="\n",
    nothing="none",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merged checkpoint, as far as its files are read here, and three pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(servers, "pause", lambda _: None)
    merged = Path("merged")
    merged.mkdir()
    written(merged)
    (merged / "config.json").write_text("{}")
    lines = []
    for k in range(3):
        Image.new("RGB", (40, 32)).save(f"{k}.png")
        lines.append(json.dumps({"images": [f"{k}.png"], "width": 40, "height": 32, "objects": []}))
    Path("val.jsonl").write_text("\n".join(lines) + "\n")
    return merged


def written(merged: Path, form: Format = COORDJSON) -> None:
    vocab = CoordVocab(ids=tuple(range(10, 1010)))
    write_checkpoint_info(merged, quantisation=DEFAULT_QUANTISATION, vocab=vocab, question=Question("Find."), form=form)


def predict(url: str, *more: object) -> Any:
    asked = ("predict", "merged", "val.jsonl", "--space", "pixel", "--server", url, "--output", "out.jsonl", *more)
    return CliRunner().invoke(app, [str(item) for item in asked])


def pattern_in(body: Mapping[str, Any], way: str) -> str | None:
    """What a server that knows one way reads of a request."""
    ((name, asked),) = structured.WAYS[way](structured.Rule(grammar="grammar", pattern="pattern")).items()
    found = body.get(name)
    if found is not None and isinstance(asked, dict):
        (key,) = [key for key, value in asked.items() if value in ("grammar", "pattern")]
        found = found.get(key)
    return found


def obeys(way: str, answer: Any = BOX) -> Answer:
    """A server that keeps to what it is asked in one way, as far as these tests ask."""

    def reply(body: Mapping[str, Any]) -> Any:
        pattern = pattern_in(body, way)
        if pattern in TRIED:
            return completion(structured.TRIED)
        if body["max_tokens"] == 1:
            return completion("{", reason="length")
        if any(isinstance(message["content"], str) for message in body["messages"]) or pattern is None:
            return completion("What do you mean?")
        return answer if isinstance(answer, dict | Error) else completion(answer)

    return reply


@pytest.mark.parametrize("way", structured.WAYS)
def test_a_server_is_asked_in_the_way_that_it_knows(way: str) -> None:
    with serving(obeys(way)) as fake:
        result = predict(fake.url, "--constrained")
        shown = [body for body in fake.asked if not isinstance(body["messages"][0]["content"], str)]
    assert result.exit_code == 0, result.output
    assert len(shown) == 3
    for body in shown:
        pattern = pattern_in(body, way)
        assert pattern is not None
        if way in ("vLLM", "SGLang"):
            assert pattern.startswith('root ::= "{\\"objects\\": ["')
            assert f"\ncoord ::= Token({', '.join(map(str, range(10, 1010)))})\n" in pattern
        else:
            assert re.fullmatch(pattern, BOX)
            assert not re.fullmatch(pattern, BOX[:-1])
    header, rows = prediction_files.read(Path("out.jsonl"))
    assert [row.text for row in rows] == [BOX] * 3
    assert {name: header.decoding[name] for name in ("constrained", "ordered", "geometry", "fields")} == {
        "constrained": True, "ordered": False, "geometry": ["bbox_2d", "poly"], "fields": "any",
    }  # fmt: skip


def test_a_server_that_passes_over_all_of_it_is_told_before_an_image_is_asked() -> None:
    with serving(lambda _: completion("A cat.")) as fake:
        result = predict(fake.url, "--constrained")
        assert len(fake.asked) == len(structured.WAYS)
    assert result.exit_code == 2
    assert "keeps its answers to no format" in result.stderr
    assert f"({' / '.join(structured.WAYS)}: passed over, it answers 'A cat.')" in result.stderr
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize("code", [400, 500])
def test_ways_that_are_refused_are_told_with_the_reason(code: int) -> None:
    with serving(lambda _: Error(code=code, said={"error": "no such field"})) as fake:
        result = predict(fake.url, "--constrained")
    assert result.exit_code == 2
    assert f"{code} no such field" in result.stderr


def test_a_pattern_that_a_server_does_not_take_is_told() -> None:
    def reply(body: Mapping[str, Any]) -> Any:
        if pattern_in(body, "vLLM") in TRIED:
            return completion(structured.TRIED)
        return Error(code=400, said={"error": "too long"})

    with serving(reply) as fake:
        result = predict(fake.url, "--constrained")
    assert result.exit_code == 2
    assert f"asked as one asks ({' / '.join(structured.WAYS)}: 400 too long); leave" in result.stderr


@pytest.mark.parametrize("text", [BOX[:-1], BOX + "x", '{"objects":[]}', "", "A cat.", BOX.replace("<|coord_4|>", "4")])
def test_an_answer_that_is_not_of_the_format_ends_it(text: str) -> None:
    with serving(obeys("vLLM", text)) as fake:
        result = predict(fake.url, "--constrained", "--concurrency", 1)
    assert result.exit_code == 1
    assert f"0.png: is answered {text!r}"[:40] in result.stderr
    assert "though the server was asked to allow nothing else" in result.stderr


def test_what_was_answered_before_it_is_kept_and_continued() -> None:
    answers: Iterator[str] = iter([BOX, "A cat."])

    def reply(body: Mapping[str, Any]) -> Any:
        said = obeys("vLLM")(body)
        is_box = said["choices"][0]["message"]["content"] == BOX
        return completion(next(answers, BOX)) if is_box else said

    with serving(reply) as fake:
        assert predict(fake.url, "--constrained", "--concurrency", 1).exit_code == 1
        kept = [row.image for row in prediction_files.read(Path("out.jsonl"))[1]]
        assert "0.png" in kept
        assert "1.png" not in kept
        assert predict(fake.url, "--constrained").exit_code == 0
    assert [row.image for row in prediction_files.read(Path("out.jsonl"))[1]] == ["0.png", "1.png", "2.png"]


def test_an_answer_that_was_cut_is_none_that_broke_the_format() -> None:
    with serving(obeys("vLLM", completion(BOX[:-2], reason="length"))) as fake:
        result = predict(fake.url, "--constrained")
    assert result.exit_code == 0
    assert "3 answers cut for length" in result.stdout


@pytest.mark.parametrize("spelled", [(), (2,), (1, 2, 3, 4)])
def test_coordinates_letter_by_letter_are_told(spelled: tuple[int, ...]) -> None:
    pieces = []
    for piece in re.split(r"(<\|coord_\d+\|>)", BOX):
        pieces += list(piece) if piece in [f"<|coord_{k}|>" for k in spelled] else [piece]
    answer = completion(BOX, tokens=[token(piece, -0.1) for piece in pieces])
    with serving(obeys("LMDeploy", answer)) as fake:
        result = predict(fake.url, "--constrained")
    assert result.exit_code == (1 if spelled else 0)
    assert ("0.png: coordinates are written letter by letter, as <|coord_1|>" in result.stderr) is bool(spelled)


def test_a_server_that_cannot_name_tokens_is_asked_for_letters() -> None:
    def reply(body: Mapping[str, Any]) -> Any:
        if "Token(" in str(body):
            return Error(code=400, said={"error": "no rule Token"})
        for way in ("vLLM", "vLLM, by letters"):
            if pattern_in(body, way) is not None:
                return obeys(way)(body)
        return completion("?")

    with serving(reply) as fake:
        assert predict(fake.url, "--constrained").exit_code == 0
        assert pattern_in(fake.asked[-1], "vLLM, by letters") is not None


def test_the_kinds_asked_for_are_those_of_the_pattern() -> None:
    with serving(obeys("vLLM", '{"objects": []}')) as fake:
        assert predict(fake.url, "--constrained", "--geometry", "point").exit_code == 0
        pattern = pattern_in(fake.asked[-1], "vLLM")
    assert pattern is not None
    assert ("point" in pattern, "bbox_2d" in pattern) == (True, False)


def test_kinds_that_the_format_does_not_have() -> None:
    written(Path("merged"), TAGS)
    with serving(obeys("vLLM")) as fake:
        result = predict(fake.url, "--constrained", "--geometry", "point")
    assert result.exit_code == 2
    assert "answers in the format tags, which says bbox_2d; point is asked for" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--geometry", "point"), "--geometry: is given to a server with --constrained"),
        (("--constrained", "--thinking", "9"), "--constrained: a server would keep the thought to the format too"),
        (("--constrained", "--unordered"), "--ordered: means nothing with --server"),
        (("--constrained", "--max-objects", "3"), "--max-objects: means nothing with --server"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], message: str) -> None:
    with serving(obeys("vLLM")) as fake:
        result = predict(fake.url, *options)
        assert fake.asked == []
    assert result.exit_code == 2
    assert message in result.stderr


def test_nothing_is_asked_when_all_is_answered() -> None:
    with serving(obeys("vLLM")) as fake:
        predict(fake.url, "--constrained")
        fake.asked.clear()
        assert predict(fake.url, "--constrained").exit_code == 0
        assert fake.asked == []


def test_free_is_what_a_server_does_anyway() -> None:
    with serving(lambda _: completion(BOX)) as fake:
        predict(fake.url, "--free")
        fake.asked.clear()
        assert predict(fake.url).exit_code == 0  # the same contract: nothing is left to ask
        assert fake.asked == []


# --- what servers do of themselves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0.7, "top_p": 0.8}, {}),
        ({"repetition_penalty": 1.0}, {}),
        ({"repetition_penalty": 1.05}, {"repetition_penalty": 1.0}),
        ({"presence_penalty": 1.5, "repetition_penalty": 1.0}, {"presence_penalty": 0.0}),
    ],
)
def test_penalties_of_the_checkpoint_are_switched_off(
    folder: Path, given: dict[str, float], expected: dict[str, float]
) -> None:
    (folder / "generation_config.json").write_text(json.dumps(given))
    with serving(lambda _: completion(BOX)) as fake:
        predict(fake.url)
        (body, *_) = fake.asked
    assert {name: value for name, value in body.items() if "penalty" in name} == expected


@pytest.mark.parametrize(
    ("form", "is_special", "expected"), [(COORDJSON, True, None), (TAGS, True, False), (TAGS, False, None)]
)
def test_special_tokens_that_the_format_writes_are_shown(
    folder: Path, form: Format, is_special: bool, expected: bool | None
) -> None:
    written(folder, form)
    tokens = [{"id": 1, "content": "<|box_start|>", "special": is_special}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    with serving(lambda _: completion("none")) as fake:
        predict(fake.url)
        (body, *_) = fake.asked
    assert body.get("skip_special_tokens") is expected
