"""Every key of a TOML document is found on its line, whatever the notation."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from coordcore.manifest.lines import KeyPath, dotted, locate

DECOYS = ("[k0]", "k1 = 1", "# k2", '\\"', "'", "]]", "{ t0 = 3 }", ", k3 =", "ü", "a = [")


def paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    """Every path in a parsed document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ([path] if path else []) + [inner for key, item in items for inner in paths(item, (*path, key))]


class Writer:
    """Writes a TOML document and notes down on which line each path went."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.expected: dict[KeyPath, int] = {}
        self.names = 0

    def choose(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def note(self, path: KeyPath) -> None:
        self.expected.setdefault(path, self.text.count("\n") + 1)

    def new_name(self) -> str:
        self.names += 1
        return self.choose("k{}", "t-{}", "{}", "a.b{}", "# [{}]", "ü = {}", "it's {}").format(self.names)

    def key(self, name: str) -> str:
        forms = []
        if name.replace("-", "").replace("_", "").isascii() and name.replace("-", "").replace("_", "a").isalnum():
            forms.append(name)
        if "'" not in name:
            forms.append(f"'{name}'")
        forms += [f'"{name}"', '"' + "".join(f"\\u{ord(item):04x}" for item in name) + '"']
        return self.choose("", " ") + self.choose(*forms) + self.choose("", "\t")

    def gap(self, *, newline: bool) -> None:
        self.text += self.choose("", " ", *(["\n", "  # ] } \" ''' k1 = 2\n", "\n\n\t"] if newline else []))

    def value(self, path: KeyPath, depth: int = 0) -> None:
        kinds = ["scalar", "string", "long", "array", "table"] if depth < 3 else ["scalar", "string", "long"]
        kind = self.choose(*kinds)
        if kind == "scalar":
            self.text += self.choose("1", "-2.5e3", "true", "inf", "0xff", "1979-05-27 07:32:00", "07:32:00")
        elif kind == "string":
            body = "".join(self.draw(st.lists(st.sampled_from(DECOYS), max_size=3)))
            self.text += f'"{body}"' if "'" in body or self.choose(True, False) else f"'{body}'"
        elif kind == "long":
            body = "\n".join(
                self.draw(st.lists(st.sampled_from([decoy for decoy in DECOYS if decoy != "'"]), max_size=3))
            )
            self.text += self.choose(
                f'"""{body}"""', f'"""{body} ""\n"""', f"'''{body}'''", f"'''\n{body}''\n'''", '""""a"""'
            )
        elif kind == "array":
            self.text += "["
            for index in range(self.draw(st.integers(0, 3))):
                self.gap(newline=True)
                self.note((*path, index))
                self.value((*path, index), depth + 1)
                self.gap(newline=True)
                self.text += ","
            self.gap(newline=True)
            self.text += "]"
        else:
            self.text += "{"
            for index in range(self.draw(st.integers(0, 3))):
                self.text += "," if index else ""
                self.gap(newline=False)
                self.pair(path, depth + 1)
                self.gap(newline=False)
            self.text += "}"

    def pair(self, table: KeyPath, depth: int = 0) -> None:
        parts = [self.new_name() for _ in range(self.draw(st.integers(1, 3)))]
        for length in range(1, len(parts) + 1):
            self.note((*table, *parts[:length]))
        self.text += ".".join(self.key(part) for part in parts) + "=" + self.choose("", " ")
        self.value((*table, *parts), depth)

    def body(self, table: KeyPath) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.pair(table)
            self.text += self.choose("\n", " # k1 = [\n", "\n\n")

    def header(self, names: list[str], *, array: bool) -> None:
        self.text += ("[[" if array else "[") + ".".join(self.key(name) for name in names) + ("]]" if array else "]")

    def document(self) -> None:
        self.body(())
        for _ in range(self.draw(st.integers(0, 4))):
            outer, inner = self.new_name(), self.new_name()
            kind = self.choose("table", "parent last", "array")
            if kind == "table":
                self.expected[outer,] = self.expected[outer, inner] = self.text.count("\n") + 1
                self.header([outer, inner], array=False)
                self.text += "\n"
                self.body((outer, inner))
            elif kind == "parent last":
                self.note((outer, inner))
                self.header([outer, inner], array=False)
                self.text += "\n"
                self.expected[outer,] = self.text.count("\n") + 1
                self.header([outer], array=False)
                self.text += "\n"
                self.body((outer,))
            else:
                for index in range(self.draw(st.integers(1, 3))):
                    self.note((outer,))
                    self.note((outer, index))
                    self.header([outer], array=True)
                    self.text += "  # [[x]]\n"
                    self.body((outer, index))
                    self.note((outer, index, inner))
                    self.header([outer, inner], array=False)
                    self.text += "\n"
                    self.body((outer, index, inner))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[KeyPath, int]]:
    writer = Writer(draw)
    writer.document()
    return writer.text, writer.expected


@given(documents())
@settings(deadline=None, max_examples=200)
def test_locates_every_path_on_the_line_it_was_written_on(document: tuple[str, dict[KeyPath, int]]) -> None:
    text, expected = document

    assert set(expected) == set(paths(tomli.loads(text)))
    assert expected == locate(text)


def test_a_table_stands_at_its_header_even_when_a_child_came_first() -> None:
    text = "[a.b.c]\nx = 1\n[a.b]\ny = 2\n"

    expected = {("a",): 1, ("a", "b"): 3, ("a", "b", "c"): 1, ("a", "b", "c", "x"): 2, ("a", "b", "y"): 4}
    assert expected == locate(text)


def test_an_empty_key_is_a_key() -> None:
    assert locate('\n"" = 1\n') == {("",): 2}


def test_windows_line_ends_count_once() -> None:
    assert locate("a = 1\r\nb = '''\r\n'''\r\nc = 3\r\n") == {("a",): 1, ("b",): 2, ("c",): 4}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "   # no newline at the end"])
def test_a_document_without_keys_has_no_places(text: str) -> None:
    assert locate(text) == {}


def test_dotted_quotes_what_is_no_bare_key() -> None:
    assert dotted(("data", "my set", "files", 2)) == 'data."my set".files[2]'
