"""What the plugin offers to the core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import attrs
import pytest

from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext, Component, Selected, kinds
from coordcore.components import LENGTHS, PLAIN_NUMBERS
from coordcore.hookspecs import GROUP
from coordcore.manifest.sections import Coords, Manifest, Model
from coordcore_coord_tokens import (
    ChatJsonl,
    ChatJsonlConfig,
    CoordJsonl,
    CoordJsonlConfig,
    CoordTemplate,
    CoordTemplateConfig,
    formats,
    plugin,
)

Write = Callable[..., Path]


CHAT_ROW = {
    "messages": [{"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": "<bbox>"}],
    "images": ["photo.png"],
    "objects": {"bbox": [[64, 48, 320, 240]]},
}


def test_the_entry_point_names_the_plugin_module() -> None:
    (entry,) = (item for item in entry_points(group=GROUP) if item.dist and item.dist.name == "coordcore-coord-tokens")
    assert entry.load() is plugin


DATA, CHAT = plugin.coordcore_data_builders()
(TEMPLATE,) = plugin.coordcore_template_adapters()


@pytest.mark.parametrize(
    ("settings", "capabilities"),
    [
        ({}, ([LENGTHS, COORD_TOKENS], [COORD_SUPERVISION])),
        ({"coord_tokens": False}, ([LENGTHS, PLAIN_NUMBERS], [])),
        ({"mode": "summary"}, ([LENGTHS], [])),
    ],
)
def test_coord_tokens_require_their_supervision(settings: dict[str, Any], capabilities: Any) -> None:
    config = CoordJsonlConfig(train=Path("train.jsonl"), **settings)
    assert (DATA.provides(config), DATA.requires(config)) == capabilities


def test_the_data_component_builds(write: Write, context: BuildContext, record: dict[str, Any]) -> None:
    assert isinstance(DATA.build(CoordJsonlConfig(train=write(record)), context), CoordJsonl)


def test_the_chat_component_builds(write: Write, context: BuildContext) -> None:
    config = ChatJsonlConfig(train=write(CHAT_ROW))
    assert isinstance(CHAT.build(config, context), ChatJsonl)
    assert (CHAT.provides(config), CHAT.requires(config)) == ([LENGTHS, COORD_TOKENS], [COORD_SUPERVISION])


def test_the_template_component_builds(context: BuildContext) -> None:
    built = TEMPLATE.build(CoordTemplateConfig(skip_bbox_norm=False), context)
    assert built == CoordTemplate(coord_tokens=True, skip_bbox_norm=False)


@pytest.mark.parametrize("key", ["prompt", "system"])
def test_a_prompt_is_plain_text(key: str) -> None:
    with pytest.raises(ValueError, match=r"^contains '<image>', which the model's template reads as a control token"):
        CoordJsonlConfig(train=Path("train.jsonl"), **{key: "<image> Find all."})


def check(*configs: Any) -> list[str]:
    offered = {
        CoordJsonlConfig: (kinds.DATA, DATA),
        ChatJsonlConfig: (kinds.DATA, CHAT),
        CoordTemplateConfig: (kinds.TEMPLATE, TEMPLATE),
    }
    selected = []
    for config in configs:
        kind, component = offered[type(config)]
        selected.append(Selected(kind=kind, component=component, config=config, distribution="coordcore-coord-tokens"))
    run = Manifest(name="test", model=Model(base="base"), selected=tuple(selected))
    return [str(problem) for problem in plugin.coordcore_check(run)]


def test_a_right_run_has_no_problems(write: Write, record: dict[str, Any]) -> None:
    assert check(CoordJsonlConfig(train=write(record)), CoordTemplateConfig()) == []


def test_check_reads_the_records(write: Write, record: dict[str, Any]) -> None:
    wrong = {**record, "width": 0}
    config = CoordJsonlConfig(train=write(record, wrong), validation=write(wrong, name="validation.jsonl"))
    assert check(config) == [
        "train.jsonl:2: width: expected int >= 1",
        "validation.jsonl:1: width: expected int >= 1",
    ]


def test_check_reads_chat_rows(write: Write) -> None:
    wrong = {**CHAT_ROW, "objects": None}
    assert check(ChatJsonlConfig(train=write(CHAT_ROW, wrong)), CoordTemplateConfig(coord_tokens=False)) == [
        "template.coord_template.coord_tokens: false, but data.chat_jsonl writes coord tokens; set both alike",
        "train.jsonl:2: messages[1].content: a further <bbox>, but objects.bbox holds 0",
    ]


def test_check_leaves_a_missing_file_to_the_core(folder: Path) -> None:
    assert check(CoordJsonlConfig(train=Path("absent.jsonl"))) == []


def test_check_leaves_the_records_alone_when_asked(write: Write, record: dict[str, Any]) -> None:
    assert check(CoordJsonlConfig(train=write({**record, "width": 0}), validate=False)) == []


NEEDY = Component(
    name="needy", config=CoordTemplateConfig, build=lambda *_: None, summary="x", requires=lambda _: [COORD_TOKENS]
)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"coord_tokens": False}, "coord_tokens: false, but loss.needy needs coord tokens; set it to true, or leave "),
        ({"mode": "summary"}, "mode: summary, but loss.needy needs coord tokens; set it to dense, or leave "),
        ({}, None),
    ],
)
def test_what_needs_coord_tokens_is_told_why_there_are_none(
    write: Write, record: dict[str, Any], settings: dict[str, Any], told: str | None
) -> None:
    config = CoordJsonlConfig(train=write(record), validate=False, **settings)
    chosen = [Selected.asked(kinds.DATA, DATA, config, "x"), Selected.asked(kinds.LOSS, NEEDY, NEEDY.config(), "x")]
    run = Manifest(name="test", model=Model(base="base"), selected=tuple(chosen))
    expected = [] if told is None else [f"data.coord_jsonl.{told}loss.needy out"]
    assert [str(problem) for problem in plugin.coordcore_check(run)] == expected


def test_a_format_of_plain_numbers_is_not_told_to_write_coord_tokens(write: Write, record: dict[str, Any]) -> None:
    config = CoordJsonlConfig(train=write(record), validate=False, coord_tokens=False)
    (numbers,) = (item for item in formats.components() if item.name == "qwen_numbers")
    chosen = [
        Selected.asked(kinds.DATA, DATA, config, "x"),
        Selected.asked(kinds.LOSS, NEEDY, NEEDY.config(), "x"),
        Selected.asked(kinds.FORMAT, numbers, numbers.config(), "x"),
    ]
    run = Manifest(name="test", model=Model(base="base"), selected=tuple(chosen))
    told = "loss.needy needs coord tokens, and answers in the chosen format hold none; leave it out"
    assert [str(problem) for problem in plugin.coordcore_check(run)] == [f"data.coord_jsonl.coord_tokens: {told}"]


@pytest.mark.parametrize(("name", "told"), [("nearest_999", True), ("qwen_1000", False)])
def test_numbers_on_another_scale_than_qwens_are_told(name: str, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    (numbers,) = (item for item in formats.components() if item.name == "qwen_numbers")
    run = Manifest(name="test", model=Model(base="base"), coords=Coords(quantisation=name))
    assert list(numbers.check(numbers.config(), run)) == []
    assert ("coords.quantisation = 'nearest_999'" in caplog.text) is told


def test_data_and_template_must_agree(write: Write, record: dict[str, Any]) -> None:
    assert check(CoordJsonlConfig(train=write(record)), CoordTemplateConfig(coord_tokens=False)) == [
        "template.coord_template.coord_tokens: false, but data.coord_jsonl writes coord tokens; set both alike"
    ]


def test_every_option_has_help() -> None:
    options = [*attrs.fields(CoordJsonlConfig), *attrs.fields(ChatJsonlConfig), *attrs.fields(CoordTemplateConfig)]
    assert [option.name for option in options if not option.metadata.get("help")] == []


@pytest.mark.parametrize("space", ["bin", "pixel"])
def test_checking_imports_nothing_heavy(write: Write, record: dict[str, Any], space: str) -> None:
    path = write(record)
    code = (
        "import sys; from pathlib import Path; from coordcore_coord_tokens import CoordJsonlConfig, jsonl, template; "
        "from coordcore.quantisation import DEFAULT_QUANTISATION; "
        f"config = CoordJsonlConfig(train=Path({str(path)!r}), space={space!r}); "
        "found = list(jsonl.record_problems(config, DEFAULT_QUANTISATION)); "
        "print(found, sorted({'torch', 'numpy', 'PIL', 'rich', 'swift', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"
