"""COCO's 839 boxes in every shipped answer format: written, read, allowed, measured, supervised, trained."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from coco import write_coco_records
from coordcore import BuildContext, Example
from coordcore.cli import app
from coordcore.coords import DEFAULT_COORDS, CoordVocab, ints_to_tokens, is_coord_token
from coordcore.manifest import load
from coordcore.quantisation import DEFAULT_QUANTISATION, QUANTISATIONS, Quantisation
from coordcore.records.answers import COORDJSON, Format, parse_answer
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, QWEN_NUMBERS, TAGGED
from coordcore_detection.decode.grammar import Constraint, DeviceGrammar, compile_grammar
from coordcore_detection.decode.tokens import TokenBytes
from coordcore_detection.evaluate.evaluation import evaluate
from coordcore_detection.evaluate.truth_sources import truth_from_records
from coordcore_detection.predict import answer_files, foreign

torch.set_num_threads(1)

FORMATS = {form.name: form for form in (COORDJSON, COMPACT, GROUPED, TAGGED, QWEN, QWEN_NUMBERS)}
END = 1256
SIZE = END + 1
TOKENS = TokenBytes(
    text=tuple(bytes([byte]) for byte in range(256)) + (None,) * 1001,
    added={**{256 + k: token for k, token in enumerate(ints_to_tokens(range(1000)))}, END: "<|im_end|>"},
)


def quantisation_of(form: Format) -> Quantisation:
    return QUANTISATIONS["qwen_1000"] if form.numbers else DEFAULT_QUANTISATION


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_records(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def polygons(boxes: Path) -> Path:
    """The same, every second box as its outline of eight points, corners and middles."""
    lines = []
    for line in boxes.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for item in record["objects"][1::2]:
            x1, y1, x2, y2 = item.pop("bbox_2d")
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            item["poly"] = [x1, y1, x, y1, x2, y1, x2, y, x2, y2, x, y2, x1, y2, x1, y]
        lines.append(json.dumps(record) + "\n")
    path = boxes.with_name("polygons.jsonl")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(params=["boxes", "polygons"])
def records(request: Any) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(params=FORMATS)
def form(request: Any) -> Format:
    return FORMATS[request.param]


def built(records: Path, form: Format) -> list[Example]:
    config = CoordJsonlConfig(train=records, space="pixel", coord_tokens=not form.numbers)
    context = BuildContext(run_dir=records.parent, seed=0, quantisation=quantisation_of(form), vocab=None, format=form)
    return list(CoordJsonl.open(config, context).train())


def said(record: dict[str, Any], form: Format) -> list[tuple[str, str, list[float]]]:
    """Label, kind and pixels of the objects of a record, in the order in which an answer says them."""
    objects = [(kind, item) for item in record["objects"] for kind in ("bbox_2d", "poly") if kind in item]
    named = [(item["desc"], kind, item[kind]) for kind, item in objects]
    if form.again is None:
        return named
    first = {key: place for place, key in reversed([*enumerate(item[:2] for item in named)])}
    return sorted(named, key=lambda item: first[item[:2]])


def test_what_is_written_is_read_to_half_a_bin(records: Path, form: Format) -> None:
    scale, count = quantisation_of(form).encode_scale, 0
    lines = records.read_text(encoding="utf-8").splitlines()
    for example, line in zip(built(records, form), lines, strict=True):
        answer = parse_answer(example.messages[-1]["content"], form)
        record = json.loads(line)
        wanted = said(record, form)
        size = (record["width"], record["height"])
        exact = [[pixel / size[k % 2] * scale for k, pixel in enumerate(pixels)] for _, _, pixels in wanted]
        assert answer.unread == ()
        assert [(item.desc, item.kind) for item in answer.objects] == [item[:2] for item in wanted]
        for item, true in zip(answer.objects, exact, strict=True):
            # qwen_1000 has no bin at the image's last edge: its last one is 999.
            np.testing.assert_allclose(item.numbers or item.bins, np.clip(true, 0, 999), rtol=0, atol=0.5 + 1e-9)
        # The loss is given the places unrounded, in the order of the answer; plain numbers have no such loss.
        values = [list(geometry.values) for geometry in example.geometries]
        assert values == ([] if form.numbers else [pytest.approx(true, rel=0, abs=1e-9) for true in exact])
        count += len(wanted)
    assert count == 839


def tokens_of(text: str) -> list[int]:
    """Byte by byte, but for coord tokens."""
    ids = {token: index for index, token in TOKENS.added.items()}
    parts = re.split(r"(<\|coord_\d+\|>)", text)
    return [*chain.from_iterable([ids[part]] if is_coord_token(part) else part.encode() for part in parts)]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.numbers])
def test_every_answer_is_allowed(polygons: Path, name: str) -> None:
    form = FORMATS[name]
    answers = sorted((tokens_of(example.messages[-1]["content"]) for example in built(polygons, form)), key=len)
    vocab = CoordVocab(ids=range(256, END), format=DEFAULT_COORDS)
    grammar = compile_grammar(TOKENS, vocab, size=SIZE, end_tokens=[END], geometry=("bbox_2d", "poly"), form=form)
    tables = DeviceGrammar(grammar, "cpu")
    for begin in range(0, len(answers), 20):  # of about one length
        batch = answers[begin : begin + 20]
        budget = 1 + max(map(len, batch))
        constraint = Constraint(tables, len(batch), budget=budget, max_objects=99, ordered=True)
        for step in range(budget):
            tokens = np.array([answer[step] if step < len(answer) else END for answer in batch])
            allowed = constraint.allow(torch.zeros(len(batch), SIZE))[range(len(batch)), tokens].tolist()
            refused = [row for row, score in enumerate(allowed) if score and step <= len(batch[row])]
            assert refused == []
            constraint.advance(tokens)


def test_perfect_answers_find_everything(boxes: Path, form: Format) -> None:
    quantisation = quantisation_of(form)
    truth = truth_from_records(boxes, space="pixel", quantisation=quantisation, question="")
    answers = "".join(
        json.dumps({"image": image.key, "response": example.messages[-1]["content"]}) + "\n"
        for image, example in zip(truth, built(boxes, form), strict=True)
    )
    written = foreign.Written(convention=quantisation, coords=DEFAULT_COORDS, form=form)
    given = answer_files.read(answer_files.items(Path("answers.jsonl"), answers.encode()))
    rows = foreign.rows(given, truth, written)
    metrics = evaluate(truth, foreign.header(Path("answers.jsonl"), written), rows).result.metrics
    full = ("AP50", "AP75", "agnostic_AP50", "agnostic_AP75", "precision_50", "recall_50")
    assert {name: metrics[name] for name in full} == dict.fromkeys(full, 1.0)
    # What bins leave of the rest. Boxes without scores rank as an answer says them, which a group changes a little.
    ceiling = {name: value for name, value in metrics.items() if name.startswith("oracle_")}
    assert {name: metrics[name.removeprefix("oracle_")] for name in ceiling} == pytest.approx(ceiling, abs=2e-3)


MANIFEST = """
name = "coco"

[model]
base = "{base}"
dtype = "float32"

[vocab]

[coords]
quantisation = "{quantisation}"

[data.coord_jsonl]
train = "{records}"
validation = "{records}"
space = "pixel"
coord_tokens = {tokens}

[format.{form}]
{keys}

[template.coord_template]
coord_tokens = {tokens}

{losses}

[eval.detection]
images = 4
max_objects = 5
max_new_tokens = 200

[train]
steps = 2
batch_size = 2
max_pixels = 4096
max_length = 8192
device = "cpu"
threads = 1
"""
COORD_LOSSES = "[surgery.coord_offset]\n[loss.text_ce]\n[loss.coord_soft_ce_w1]\n"


def manifest(folder: Path, base: Path, records: Path, form: Format) -> Path:
    text = MANIFEST.format(
        base=base,
        records=records,
        quantisation=quantisation_of(form).name,
        tokens="false" if form.numbers else "true",
        form="grouped" if form is TAGGED else form.name,
        keys="tags = true" if form is TAGGED else "",
        losses="[loss.text_ce]\n" if form.numbers else COORD_LOSSES,
    )
    (folder / "coco.toml").write_text(text.replace("[vocab]\n", "") if form.numbers else text, encoding="utf-8")
    return folder / "coco.toml"


def test_the_loss_supervises_the_answer_and_the_coordinates_of_places_alone(
    tmp_path: Path, tiny_base: Path, polygons: Path, form: Format
) -> None:
    """As the trainer's own template and collator encode them; images are small, answers whole."""
    from swift.arguments import SftArguments  # noqa: F401 - registers ms-swift before our classes join it

    from coordcore_train.checkpoint.base import base_checkpoint
    from coordcore_train.objective import make_targets
    from coordcore_train.swift.rehearse import rehearse
    from coordcore_train.swift.template import to_row

    loaded = load(manifest(tmp_path, tiny_base, polygons, form))
    rehearsal = rehearse(loaded, base_checkpoint(loaded.manifest), tmp_path)
    template, plan = rehearsal.pipeline.template, rehearsal.plan
    places = 0
    for example in plan.data.train():
        batch = template.data_collator([template.encode(to_row(example), return_length=True)])
        labels, ids = batch["labels"], batch["input_ids"]
        answer = example.messages[-1]["content"]
        assert template.tokenizer.decode(labels[labels != -100]) == f"{answer}<|im_end|>\n"
        if form.numbers:
            assert (plan.vocab, len(batch["targets"]["coord_index"])) == (None, 0)
            continue
        assert plan.vocab is not None
        is_coord = torch.isin(ids, torch.tensor(plan.vocab.ids))
        bins = make_targets(labels, plan.vocab)["bins"].tolist()
        # Every coord token of the input is a place of the answer, each is supervised, and nothing else is.
        assert ids[is_coord].tolist() == labels[torch.isin(labels, torch.tensor(plan.vocab.ids))].tolist()
        assert bins == [int(number) for number in re.findall(r"<\|coord_(\d+)\|>", answer)]
        values = [value for geometry in example.geometries for value in geometry.values]
        assert batch["targets"]["values"].tolist() == pytest.approx(values, rel=1e-6)
        np.testing.assert_allclose(bins, values, rtol=0, atol=0.5 + 1e-3)
        places += len(example.geometries)
    assert places == (0 if form.numbers else 839)


@pytest.mark.parametrize("name", ["compact", "grouped_tags", "qwen", "qwen_numbers"])
def test_a_format_goes_from_records_to_a_report(
    tmp_path: Path, tiny_base: Path, boxes: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Beside `grouped`, which shapes-grouped.toml trains."""
    form = FORMATS[name]
    few = boxes.with_name("few.jsonl")
    few.write_text("".join(boxes.read_text(encoding="utf-8").splitlines(keepends=True)[:8]), encoding="utf-8")
    path = manifest(tmp_path, tiny_base, few, form)
    monkeypatch.chdir(tmp_path)
    call("run", path)
    run = tmp_path / "runs/coco"
    info = json.loads((run / "merged/coordcore.json").read_text(encoding="utf-8"))
    assert info["answers"] == form.as_dict()
    report = run / "eval/detection/report.html"
    text = report.read_text(encoding="utf-8")
    report.unlink()
    call("report", run)
    assert report.read_text(encoding="utf-8") == text
    if form.json:
        return
    findings = json.loads(call("doctor", path, "--json"))["findings"]
    assert [finding["name"] for finding in findings if finding["state"] != "ok"] == ["image sizes"]  # 64 x 64 at most


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout
