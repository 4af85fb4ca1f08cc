"""A mixture of JSONL files: the README's manifest, and what the files' own builder says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import ROOT
from coordcore import BuildContext, kinds
from coordcore.check import check
from coordcore.manifest import load
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens import CoordJsonlConfig
from coordcore_detection.evaluate.truth_sources import truth_from_examples
from coordcore_train.run.resolved import resolved

README = ROOT / "plugins/coordcore-mixture/README.md"
RECORDS = {"coco": 3, "coco-val": 2, "refcoco": 9, "captions": 2, "own": 4}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """The README's manifest, in a folder with the files that it names."""
    Image.new("RGB", (100, 100)).save(tmp_path / "image.png")
    for name, count in RECORDS.items():
        asked = {"task": "refer", "question": "the left cup", "summary": None} if name == "refcoco" else {}
        write(tmp_path / f"{name}.jsonl", [record(**asked)] * count)
    [text] = re.findall(r"^```toml\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "m.toml").write_text(text, encoding="utf-8")
    return tmp_path / "m.toml"


def record(**keys: Any) -> dict[str, Any]:
    cup = {"desc": "cup", "bbox_2d": [10, 10, 50, 50]}
    return {"images": ["image.png"], "width": 100, "height": 100, "objects": [cup], "summary": "A cup.", **keys}


def write(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in records), encoding="utf-8")


def problems(manifest: Path) -> list[str]:
    """What is wrong with the data, as `coordcore check` tells it."""
    return [str(problem) for problem in check(load(manifest)) if problem.path.startswith("data")]


def test_the_manifest_of_the_readme_is_right(manifest: Path) -> None:
    loaded = load(manifest)
    [data] = loaded.manifest.of(kinds.DATA)
    assert problems(manifest) == []

    context = BuildContext(run_dir=manifest.parent, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    built = data.component.build(data.config, context)
    train, held_out = built.train(), built.validation()
    places = [train[index].source for index in range(len(train))]
    names = [place.partition(": ")[0] for place in places]
    assert {name: names.count(name) for name in names} == {"coco": 9, "refcoco": 3, "captions": 5000, "own": 4}
    assert re.fullmatch(r"coco: .*coco\.jsonl:[123]", places[names.index("coco")])
    question = train[names.index("refcoco")].messages[0]["content"]
    assert question.endswith("Locate what this phrase describes: the left cup")
    assert len(held_out) == RECORDS["coco-val"]


def test_the_resolved_manifest_is_the_same_mixture(manifest: Path, tmp_path: Path) -> None:
    loaded = load(manifest)
    again = tmp_path / "elsewhere/resolved.toml"
    again.parent.mkdir()
    again.write_text(resolved(loaded.manifest, loaded.plugins), encoding="utf-8")

    [[data], [read]] = (found.of(kinds.DATA) for found in (loaded.manifest, load(again).manifest))
    assert read.config == data.config
    assert read.config.sources["own"].settings == CoordJsonlConfig(train=tmp_path / "own.jsonl", max_objects=40)


def test_a_missing_file_is_told_at_its_source(manifest: Path) -> None:
    (manifest.parent / "own.jsonl").unlink()
    assert problems(manifest)[0].endswith(
        f"data.mixture.sources.own.settings.train: no such file: {manifest.parent / 'own.jsonl'}"
    )


def test_bad_records_are_found_before_the_run(manifest: Path) -> None:
    file = manifest.parent / "own.jsonl"
    write(file, [record(), record(objects=[{"desc": "cup", "bbox_2d": [10, 10, 5, 50]}])])
    [problem] = [problem for problem in check(load(manifest)) if problem.file == str(file)]
    assert (problem.line, problem.path) == (2, "objects[0].bbox_2d")


def test_what_the_builder_says_of_other_sections_is_said(manifest: Path) -> None:
    with manifest.open("a", encoding="utf-8") as file:
        file.write("[template.coord_template]\ncoord_tokens = false\n")
    found = [str(problem) for problem in check(load(manifest)) if problem.path.startswith("template")]
    assert any("false, but data.coord_jsonl writes coord tokens; set both alike" in line for line in found)


def built(folder: Path, text: str) -> Any:
    """What a run builds of this manifest's mixture."""
    (folder / "m.toml").write_text(text, encoding="utf-8")
    [data] = load(folder / "m.toml").manifest.of(kinds.DATA)
    context = BuildContext(run_dir=folder, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    return data.component.build(data.config, context)


HEAD = '[model]\nbase = "b"\n[loss.text_ce]\ncoord_positions = true\n'


def test_a_checkpoint_carries_the_prompts_of_all_sources(manifest: Path) -> None:
    folder = manifest.parent
    write(folder / "own.jsonl", [record(task="refer", question="the cup")])

    def source(name: str, file: str, keys: str) -> str:
        return f'{name} = {{ builder = "coord_jsonl", settings = {{ train = "{file}.jsonl", {keys} }} }}\n'

    head = HEAD + "[data.mixture.sources]\n"
    detect = source("coco", "coco", 'prompt = "All."')
    more = source("more", "own", 'prompts = { caption = ["Say."] }')
    refer = source("own", "own", 'prompts = { refer = ["Find {phrase}!"] }')
    assert built(folder, head + detect).prompts is None
    found = built(folder, head + detect + more + refer).prompts
    said = {"detect": "All.", "refer": "Find {phrase}!", "caption": "Say."}
    assert {task: found[task] for task in said} == said


def test_sources_answer_in_coord_tokens_or_in_numbers(manifest: Path) -> None:
    text = manifest.read_text(encoding="utf-8")
    assert 'train = "own.jsonl"' in text
    manifest.write_text(text.replace('train = "own.jsonl"', 'train = "own.jsonl", coord_tokens = false'))
    [told] = problems(manifest)
    answers = "the answers of coco (coord_jsonl), refcoco (coord_jsonl) hold coord tokens"
    assert f"{answers}, those of own (coord_jsonl) plain numbers" in told


def test_held_out_records_of_a_source_say_what_was_looked_for(manifest: Path) -> None:
    folder = manifest.parent
    write(folder / "coco-val.jsonl", [record(metadata={"absent_categories": ["dog"]})])
    settings = 'builder = "coord_jsonl", settings = { train = "coco.jsonl", validation = "coco-val.jsonl" }'
    held_out = built(folder, f"{HEAD}[data.mixture.sources]\ncoco = {{ {settings} }}\n").validation()
    [image] = truth_from_examples(held_out, DEFAULT_QUANTISATION)
    assert (image.federated, image.absent) == (True, ("dog",))
