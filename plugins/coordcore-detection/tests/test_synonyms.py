"""Labels that count as one: the table, what is wrong in one, and what an evaluation makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
from evaluation_support import header, row, truth
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore_detection.evaluate import results, synonyms
from coordcore_detection.evaluate.compare import compare
from coordcore_detection.evaluate.config import DetectionConfig
from coordcore_detection.evaluate.contract import differences, proposed_in, synonyms_in
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.evaluator import COMPONENT
from coordcore_detection.predict import prediction_files

BOX = (10.0, 10.0, 50.0, 50.0)
FAR = (60.0, 60.0, 90.0, 90.0)
HELMET = {"helmet": ("hard hat", "safety helmet")}


def written(folder: Path, text: str) -> Path:
    path = folder / "names.toml"
    path.write_text(text, encoding="utf-8")
    return path


# --- the table ------------------------------------------------------------------------------------------------------


def test_a_table_gives_each_name_its_alternatives(tmp_path: Path) -> None:
    path = written(tmp_path, '"traffic light" = ["Ampel"]\nhelmet = ["safety helmet", "hard hat"]\n')
    table = synonyms.read(path)
    assert table == {"helmet": ("hard hat", "safety helmet"), "traffic light": ("Ampel",)}
    assert synonyms.names(table)["hard hat"] == "helmet"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a = ["x"]\nb = ["x"]', "b: 'x' is an alternative also of 'a'; it can stand for one name only"),
        ('a = ["x", "x"]', "a: 'x' is an alternative twice"),
        (
            'a = ["b"]\nb = ["c"]',
            "a: 'b' is a name of this table itself; put all its alternatives under one of the two",
        ),
        ('a = ["a"]', "a: 'a' is a name of this table itself; leave it out"),
        ('a = "x"', "a: must be a list of labels, got 'x'; quote names that hold blanks or dots"),
        ("a = [1]", "a: must be a list of labels, got [1]; quote names that hold blanks or dots"),
        ('a = [""]', "a: must be a list of labels, got ['']; quote names that hold blanks or dots"),
        ('a.b = ["x"]', "a: must be a list of labels, got {'b': ['x']}; quote names that hold blanks or dots"),
        ("", 'holds no names; a line reads: helmet = ["hard hat", "safety helmet"]'),
    ],
)
def test_what_is_wrong_in_a_table_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as raised:
        synonyms.read(path)
    assert str(raised.value) == f"{path}: {message}"


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        synonyms.read(written(tmp_path, 'a = 1\nb = ["x"]\nc = ["x"]'))
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"hard hat = [", "is no TOML"), (b"\xff", "not UTF-8"), (None, "cannot be read: no such file")],
)
def test_a_file_that_is_no_table_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "names.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        synonyms.read(path)


def test_check_tells_what_is_wrong_before_a_run(tmp_path: Path) -> None:
    config = DetectionConfig(synonyms=written(tmp_path, 'a = ["x"]\nb = ["x"]'))
    (problem,) = COMPONENT.check(config, attrs.NOTHING)
    assert (problem.path, "'x' is an alternative also of 'a'" in problem.message) == ("eval.detection.synonyms", True)
    assert list(COMPONENT.check(DetectionConfig(), attrs.NOTHING)) == []


# --- in an evaluation -----------------------------------------------------------------------------------------------


def test_an_alternative_is_as_right_as_its_name() -> None:
    """Whether answers or the truth have the alternative; other labels stay what they are."""
    truths = [truth("a", [("helmet", BOX), ("dog", FAR)]), truth("b", [("hard hat", BOX)])]
    rows = [row("a", [("safety helmet", BOX), ("cat", FAR)]), row("b", [("helmet", BOX)])]
    by_text, by_table = (evaluate(truths, header(), rows, synonyms=item).result for item in (None, HELMET))
    assert (by_text.metrics["AP50"], by_table.metrics["AP50"]) == (0.0, 0.5)
    assert [label["label"] for label in by_table.labels] == ["helmet", "dog", "cat"]
    assert "1 labels of the ground truth ('hard hat') were taken for their synonyms" in by_table.notes


def test_lvis_lists_and_frequencies_go_by_the_names() -> None:
    image = attrs.evolve(truth("a", [("hard hat", BOX)]), absent=("pup",), frequencies={"hard hat": "c"})
    other = truth("b", [("dog", FAR)])
    rows = [row("a", [("helmet", BOX), ("dog", FAR)], [0.5, 0.9]), row("b", [("dog", FAR)], [0.4])]
    metrics = evaluate([image, other], header(), rows, synonyms={**HELMET, "dog": ("pup",)}).result.metrics
    assert (metrics["APc"], metrics["AP50"]) == (1.0, 0.75)  # dogs were looked for in a: one is wrong


def test_two_frequencies_of_one_name_are_refused() -> None:
    image = truth("a", [("helmet", BOX), ("hard hat", FAR)])
    image = attrs.evolve(image, frequencies={"helmet": "f", "hard hat": "r"})
    with pytest.raises(InputError, match="'helmet' is 'r', and 'f' in a"):
        evaluate([image], header(), [], synonyms=HELMET)


def test_results_under_other_tables_do_not_compare() -> None:
    given = [truth("a", [("helmet", BOX)])], header(), [row("a", [("helmet", BOX)])]
    plain, table, other = (evaluate(*given, synonyms=item).result for item in (None, HELMET, {"helmet": ["casco"]}))
    assert plain.contract["labels"] == "equal text"
    assert synonyms_in(table.contract) == {"helmet": ["hard hat", "safety helmet"]}
    for item in (plain, other):
        with pytest.raises(InputError, match="different contracts"):
            compare(item, table, resamples=1)
    assert (
        list(differences(table.contract, evaluate(*given, synonyms=synonyms_in(table.contract)).result.contract)) == []
    )


def test_tables_that_one_rule_proposed_compare() -> None:
    """What a model has said decides which labels a table holds; what counts is from what it follows."""
    given = [truth("a", [("helmet", BOX)])], header(), [row("a", [("helmet", BOX)])]
    rule = {"model": "m", "least": 0.8}
    a, b, other, none = (
        evaluate(*given, synonyms=table, proposed_by=by).result
        for table, by in ((HELMET, rule), ({"helmet": ["casco"]}, rule), (HELMET, {**rule, "least": 0.9}), (None, rule))
    )
    assert a.contract["labels"] == {"synonyms": {"helmet": ["hard hat", "safety helmet"]}, "proposed_by": rule}
    assert (none.contract["labels"], proposed_in(none.contract)) == ({"synonyms": {}, "proposed_by": rule}, rule)
    assert [*differences(a.contract, b.contract), *differences(a.contract, none.contract)] == []
    assert list(differences(a.contract, other.contract)) == ["labels.proposed_by.least: 0.8 against 0.9"]
    for plain in (evaluate(*given).result, evaluate(*given, synonyms=HELMET).result):
        assert proposed_in(plain.contract) is None
        with pytest.raises(InputError, match="different contracts"):
            compare(a, plain, resamples=1)


def test_the_commands_take_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = {"width": 100, "height": 100, "objects": [{"desc": "helmet", "bbox_2d": list(BOX)}]}
    names = [f"{number}.png" for number in range(30)]
    lines = [json.dumps(record | {"images": [name]}) for name in names]
    Path("val.jsonl").write_text("".join(line + "\n" for line in lines))
    boxes = [row(name, [("hard hat", BOX)], [0.5]) for name in names]
    prediction_files.write(Path("p.jsonl"), header(), boxes)
    written(tmp_path, 'helmet = ["hard hat"]\n')
    command = ["eval", "p.jsonl", "val.jsonl", "--space", "pixel", "--output", "out.json", "--overwrite"]
    values = []
    for more in ([], ["--synonyms", "names.toml"]):
        shown = CliRunner().invoke(app, [*command, *more])
        assert shown.exit_code == 0, shown.output
        values.append(results.read(Path("out.json")).metrics["AP50"])
    assert values == [0.0, 1.0]
    wrong = CliRunner().invoke(app, [*command, "--synonyms", "gone.toml"])
    assert (wrong.exit_code, "gone.toml: cannot be read: no such file or directory" in wrong.stderr) == (2, True)
