"""`extends`, `drop` and `--set`: how the layers of a manifest are laid over each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordcore.errors import Problem
from coordcore.manifest.read import Document, key_path, read


def write(**files: str) -> None:
    for name, text in files.items():
        Path(f"{name}.toml").write_text(text)


def merged(*overrides: str, file: str = "m.toml") -> Document:
    problems: list[Problem] = []
    document = read(Path(file), overrides, problems)
    assert problems == []
    return document


def complaints(*overrides: str, file: str = "m.toml") -> list[str]:
    problems: list[Problem] = []
    read(Path(file), overrides, problems)
    return [str(problem) for problem in problems]


def place(document: Document, *path: str | int) -> str:
    origin = document.origin(path)
    return f"{origin.file}:{origin.line}"


def test_tables_merge_and_values_are_replaced() -> None:
    write(base="[a]\nx = 1\ny = [1, 2]\n[a.b]\nz = 3\n", m='extends = "base.toml"\n[a]\ny = [9]\n[a.b]\nw = 4\n')

    assert merged().data == {"a": {"x": 1, "y": [9], "b": {"z": 3, "w": 4}}}


def test_each_key_keeps_the_place_it_came_from() -> None:
    write(base="[a]\nx = 1\ny = [1,\n2]\n[a.b]\nz = 3\n", m='extends = "base.toml"\n[a]\ny = [9]\n')
    document = merged()

    assert place(document, "a", "x") == "base.toml:2"
    assert place(document, "a", "y") == "m.toml:3"
    assert place(document, "a", "y", 1) == "m.toml:3"  # the base had a second element there, this file has not
    assert place(document, "a", "b", "z") == "base.toml:6"
    assert place(document, "a", "missing") == "m.toml:2"
    assert place(document, "nowhere") == "m.toml:None"


def test_a_base_is_found_beside_the_file_that_names_it() -> None:
    Path("deep/er").mkdir(parents=True)
    write(
        **{"deep/er/base": "[a]\nx = 1\n", "deep/mid": 'extends = "er/base.toml"\n', "m": 'extends = "deep/mid.toml"\n'}
    )
    document = merged()

    assert place(document, "a", "x") == "deep/er/base.toml:2"
    assert document.origin(("a", "x")).folder == Path.cwd() / "deep/er"


def test_of_several_bases_the_later_wins() -> None:
    write(one="x = 1\ny = 1\n", two="y = 2\nz = 2\n", m='extends = ["one.toml", "two.toml"]\nz = 3\n')

    assert merged().data == {"x": 1, "y": 2, "z": 3}


def test_a_base_may_be_reached_twice() -> None:
    write(
        root="x = 1\n", one='extends = "root.toml"\n', two='extends = "root.toml"\n',
        m='extends = ["one.toml", "two.toml"]\n',
    )  # fmt: skip

    assert merged().data == {"x": 1}


def test_a_name_and_a_record_belong_to_one_file_alone() -> None:
    write(base='name = "base"\nx = 1\n[resolved]\ncoordcore = "0.1.0"\n', m='extends = "base.toml"\n')

    assert merged().data == {"x": 1}
    assert merged(file="base.toml").data["name"] == "base"


@pytest.mark.parametrize("kind", ["data", "template", "optimizer"])
def test_of_a_kind_with_one_component_the_later_choice_replaces_the_earlier(kind: str) -> None:
    write(base=f"[{kind}.old]\nx = 1\n", m=f'extends = "base.toml"\n[{kind}.new]\n')

    assert merged().data == {kind: {"new": {}}}


def test_the_same_choice_again_is_merged() -> None:
    write(base="[data.old]\nx = 1\n", m='extends = "base.toml"\n[data.old]\ny = 2\n')

    assert merged().data == {"data": {"old": {"x": 1, "y": 2}}}


def test_an_override_replaces_the_choice_of_the_file() -> None:
    write(m="[data.old]\nx = 1\n")

    assert merged("data.new.y=1", "data.new.z=2").data == {"data": {"new": {"y": 1, "z": 2}}}


@pytest.mark.parametrize("kind", ["loss", "surgery"])
def test_of_a_kind_with_many_components_all_add_up_in_order(kind: str) -> None:
    write(base=f"[{kind}.b]\n[{kind}.a]\n", m=f'extends = "base.toml"\n[{kind}.c]\n[{kind}.a]\n')

    assert list(merged().data[kind]) == ["b", "a", "c"]


def test_what_is_dropped_is_gone_from_below() -> None:
    write(
        base="[loss.a]\n[loss.b]\nx = 1\n[train]\nsteps = 5\nseed = 1\n[vocab]\n",
        m='extends = "base.toml"\ndrop = ["loss.a", "train.steps", "vocab"]\n',
    )

    assert merged().data == {"loss": {"b": {"x": 1}}, "train": {"seed": 1}}


def test_dropping_and_setting_replaces_a_whole_table() -> None:
    write(base="[loss.a]\nx = 1\ny = 2\n", m='extends = "base.toml"\ndrop = "loss.a"\n[loss.a]\nx = 3\n')

    assert merged().data == {"loss": {"a": {"x": 3}}}


def test_an_override_can_drop() -> None:
    write(m="[loss.a]\n[loss.b]\n")

    assert merged('drop=["loss.a"]').data == {"loss": {"b": {}}}
    assert merged("drop=loss.b").data == {"loss": {"a": {}}}


def test_dropping_what_is_not_there_is_a_mistake() -> None:
    write(base="[loss.text_ce]\n", m='extends = "base.toml"\ndrop = [\n  "loss.txt_ce",\n  "zzz"]\n')

    assert complaints() == [
        "m.toml:3: drop[0]: there is no 'loss.txt_ce' to drop below this manifest; did you mean 'loss.text_ce'?",
        "m.toml:4: drop[1]: there is no 'zzz' to drop below this manifest",
    ]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("x=1", 1),
        ("x=1.5", 1.5),
        ("x=true", True),
        ("x=[1, 2]", [1, 2]),
        ("x={a = 1}", {"a": 1}),
        ('x="1"', "1"),
        ("x=path/to/file.jsonl", "path/to/file.jsonl"),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ("x=1\ny = 2", "1\ny = 2"),
        ("x=[1, 2", "[1, 2"),
    ],
)
def test_an_override_is_a_toml_value_or_else_a_string(override: str, value: Any) -> None:
    write(m="")

    assert merged(override).data == {"x": value}


def test_the_last_override_wins_and_its_origin_is_shown() -> None:
    write(m="[a]\nx = 1\n")
    document = merged("a.x=2", "a.x=3")

    assert document.data == {"a": {"x": 3}}
    assert document.origin(("a", "x")).file == "--set a.x=3"
    assert document.origin(("a", "x")).folder == Path.cwd()


def test_an_override_inside_a_table_value_has_its_origin_too() -> None:
    write(m="[a.b]\nx = 1\n")

    assert place(merged("a.b={x = 2}"), "a", "b", "x") == "--set a.b={x = 2}:None"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a.b", ("a", "b")),
        ('a."b c".d', ("a", "b c", "d")),
        ("", None),
        ("a..b", None),
        ("a b", None),
        ("a = 1 #", None),
        ("[a]\nb", None),
    ],
)
def test_a_dotted_key_is_read_as_toml_reads_it(text: str, path: tuple[str, ...] | None) -> None:
    assert key_path(text) == path


def test_a_circle_is_reported_with_its_chain() -> None:
    write(m='\nextends = "b.toml"\n', b='extends = "c.toml"\n', c='extends = ["m.toml"]\n')

    assert complaints() == [
        "c.toml:1: extends[0]: the files extend each other in a circle: m.toml -> b.toml -> c.toml -> m.toml"
    ]


def test_a_file_that_extends_itself_is_a_circle() -> None:
    write(m='extends = "./m.toml"\n')

    assert complaints() == ["m.toml:1: extends: the files extend each other in a circle: m.toml -> m.toml"]


def test_a_missing_base_is_reported_where_it_is_named() -> None:
    Path("deep").mkdir()
    write(**{"m": 'extends = [\n  "deep/mid.toml",\n  "none.toml",\n]\n', "deep/mid": 'extends = "base.toml"\n'})

    assert complaints() == [
        "deep/mid.toml:1: extends: no such file: deep/base.toml",
        "m.toml:3: extends[1]: no such file: none.toml",
    ]


def test_a_mistake_in_a_base_names_the_base() -> None:
    write(m='extends = "base.toml"\n', base="x = \n")

    assert complaints() == ["base.toml:1: not valid TOML: invalid value (column 5)"]


@pytest.mark.parametrize("value", ["3", "true", "{ a = 1 }", '["m.toml", 3]', '""'])
def test_extends_holds_strings(value: str) -> None:
    write(m=f"x = 1\nextends = {value.replace('m.toml', 'base.toml')}\n", base="")
    shown = {"3": "3", "true": "true", "{ a = 1 }": "a table", '["m.toml", 3]': "3", '""': "''"}[value]
    path = "extends[1]" if value.startswith("[") else "extends"

    assert complaints() == [f"m.toml:2: {path}: must be a string or an array of strings, got {shown}"]


def test_a_byte_order_mark_is_passed_over() -> None:
    Path("m.toml").write_bytes("\ufeffx = 1\n".encode())

    assert merged().data == {"x": 1}


def test_windows_line_ends_do_not_shift_the_lines() -> None:
    Path("m.toml").write_bytes(b"x = 1\r\ny = 2\r\n")

    assert place(merged(), "y") == "m.toml:2"


def test_a_problem_of_a_plugin_is_placed_by_its_path() -> None:
    write(m="[loss.a]\nx = 1\nxy = 2\nlist = [\n1,\n2]\n")
    document = merged()
    paths = ["loss.a.x", "loss.a.xyz", "loss.a.list[1]", "loss.a.list[7]", "other", ""]

    places = [document.placed(Problem(path=path, message="wrong")) for path in paths]
    assert [(item.file, item.line) for item in places] == [
        ("m.toml", 2), ("m.toml", 1), ("m.toml", 6), ("m.toml", 4), ("m.toml", None), ("m.toml", None),
    ]  # fmt: skip


def test_a_problem_with_a_file_of_its_own_keeps_it() -> None:
    write(m="")
    problem = Problem(path="objects[0]", message="wrong", file="train.jsonl", line=17)

    assert merged().placed(problem) == problem
