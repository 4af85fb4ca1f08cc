"""Where each key of a TOML document stands: dotted path -> line. tomli gives the values, this gives the lines."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator

import tomli

KeyPath = tuple[str | int, ...]
"""A path into a document: table keys are strings, places in an array are integers from 0."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\s\"'.=\]]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # up to two quotes may touch the closing ones from inside
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def locate(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every table, key and array element of `text`, which tomli has already accepted.

    A table stands where its header is; one that only its children imply stands where the first of them is.
    The work is left to tomli wherever it can be: this scanner relies on the document being valid.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.lines: dict[KeyPath, int] = {}
        self.tables_in_array: dict[KeyPath, int] = {}
        self._line_ends = [match.start() for match in re.finditer("\n", text)]

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_GAP)
        while self.place < len(self.text):
            table = self._header() if self.text[self.place] == "[" else self._pair(table)
            self._skip(_GAP)
        return self.lines

    # Each method below starts at its own first character and ends just behind its last one.

    def _header(self) -> KeyPath:
        line = self._line()
        is_array = self.text.startswith("[[", self.place)
        self.place += 2 if is_array else 1
        *parents, last = self._key()
        self.place += 2 if is_array else 1
        table: KeyPath = ()
        for name in parents:
            table = self._newest((*table, name), line)
        table = (*table, last)
        if not is_array:
            self.lines[table] = line
            return table
        self.lines.setdefault(table, line)
        index = self.tables_in_array.get(table, -1) + 1
        self.tables_in_array[table] = index
        self.lines[*table, index] = line
        return (*table, index)

    def _newest(self, table: KeyPath, line: int) -> KeyPath:
        """The table that a header means by a parent's name: in an array of tables it is the newest one."""
        self.lines.setdefault(table, line)
        index = self.tables_in_array.get(table)
        return table if index is None else (*table, index)

    def _pair(self, table: KeyPath) -> KeyPath:
        """One `key = value`. Returns `table`, which the pair does not leave."""
        line = self._line()
        path = table
        for name in self._key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self.place += len("=")
        self._skip(_BLANK)
        self._value(path)
        return table

    def _key(self) -> list[str]:
        """A dotted key, and the blanks around it."""
        names = []
        while True:
            self._skip(_BLANK)
            names.append(_plain(self._skip(_KEY_PART)))
            self._skip(_BLANK)
            if self.text[self.place] != ".":
                return names
            self.place += 1

    def _value(self, path: KeyPath) -> None:
        first = self.text[self.place]
        if first in "\"'":
            self._skip(_STRING)
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        for index, _ in enumerate(self._members("]")):
            self.lines[*path, index] = self._line()
            self._value((*path, index))

    def _inline_table(self, path: KeyPath) -> None:
        for _ in self._members("}"):
            self._pair(path)

    def _members(self, closing: str) -> Iterator[None]:
        """Stop at the start of each member of an array or inline table, then step over the closing bracket."""
        self.place += 1
        self._skip(_GAP)
        while self.text[self.place] != closing:
            yield
            self._skip(_GAP)
            if self.text[self.place] == ",":
                self.place += 1
                self._skip(_GAP)
        self.place += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.place)
        assert match is not None, f"tomli accepted what {pattern.pattern!r} does not match at {self.place}"
        self.place = match.end()
        return match.group()

    def _line(self) -> int:
        return bisect_right(self._line_ends, self.place - 1) + 1


def _plain(part: str) -> str:
    """The key that one part of a dotted key stands for, escapes and quotes undone."""
    if part[0] not in "\"'":
        return part
    (name,) = tomli.loads(f"{part} = 0")
    return name


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
