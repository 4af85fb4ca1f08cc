"""Where each key of a TOML document stands: dotted path -> line. tomli gives the values, this gives the lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

import tomli

KeyPath = tuple[str | int, ...]
"""A path into a document: table keys are strings, places in an array are integers from 0."""

_GAP = re.compile(r"(?:[\s,]|#[^\n]*)*")
_NAME = r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = rf"(?P<key>[ \t]*{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*[ \t]*)"
_HEADER = re.compile(rf"\[\[?{_KEY}\]\]?")
_KEY_OF_PAIR = re.compile(rf"{_KEY}=[ \t]*")
_VALUE = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # up to two quotes may touch the closing ones from inside
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|[\[{]"
    r"|[^,\]}\n#]+",
    re.DOTALL,
)


def locate(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every table, key and array element of `text`, which tomli has already accepted.

    A table stands where its header is; one that only its children imply stands where the first of them is.
    The work is left to tomli wherever it can be: this scanner relies on the document being valid.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    """Walks over a document. Each method begins at the first character of what it is named after, and ends behind it.

    lines: what was found. newest: array of tables -> the index of the one that was opened last.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.place, self.line = 0, 1
        self.lines: dict[KeyPath, int] = {}
        self.newest: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        self.skip(_GAP)
        while self.place < len(self.text):
            if self.text[self.place] == "[":
                table = self.table()
            else:
                self.pair(table)
            self.skip(_GAP)

    def table(self) -> KeyPath:
        """The table that a header opens. A parent that is an array of tables means its newest one."""
        header = self.skip(_HEADER)
        *parents, last = key_path(header["key"]) or ()
        table: KeyPath = ()
        for name in parents:
            table = (*table, name)
            self.lines.setdefault(table, self.line)
            if table in self.newest:
                table = (*table, self.newest[table])
        table = (*table, last)
        if header[0].startswith("[["):
            self.lines.setdefault(table, self.line)
            self.newest[table] = self.newest.get(table, -1) + 1
            table = (*table, self.newest[table])
        self.lines[table] = self.line
        return table

    def pair(self, table: KeyPath) -> None:
        for name in key_path(self.skip(_KEY_OF_PAIR)["key"]) or ():
            table = (*table, name)
            self.lines.setdefault(table, self.line)
        self.value(table)

    def value(self, path: KeyPath) -> None:
        value = self.skip(_VALUE)[0]
        if value == "[":
            for index in self.members():
                self.lines[*path, index] = self.line
                self.value((*path, index))
        elif value == "{":
            for _ in self.members():
                self.pair(path)

    def members(self) -> Iterator[int]:
        """Stop at each member of an array or inline table, then step over the bracket that closes it."""
        for index in count():
            self.skip(_GAP)
            if self.text[self.place] in "]}":
                self.place += 1
                return
            yield index

    def skip(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Step over what `pattern` matches here."""
        match = pattern.match(self.text, self.place)
        assert match is not None, f"tomli accepted what {pattern.pattern!r} does not match, on line {self.line}"
        self.place = match.end()
        self.line += match[0].count("\n")
        return match


def key_path(text: str) -> tuple[str, ...] | None:
    """The names in a dotted TOML key, quotes and escapes undone, or None where `text` is no such key."""
    try:
        table: Any = tomli.loads(f"{text} = 0")
    except tomli.TOMLDecodeError:
        return None
    names = []
    while isinstance(table, dict) and len(table) == 1:
        ((name, table),) = table.items()
        names.append(name)
    return tuple(names) if table == 0 and "\n" not in text else None


def dotted(path: KeyPath) -> str:
    """How messages write a path: `loss.x.sigma`, `plugins.block[1]`, `data."my set"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part, ensure_ascii=False)
            text += f".{name}" if text else name
    return text
