"""Small mistakes in values, texts and bytes, drawn by a seeded generator. What was done is noted."""

from __future__ import annotations

import copy
import gzip
import json
import re
from random import Random
from typing import Any

import attrs

Path = tuple[Any, ...]


@attrs.frozen
class Raw:
    """Text that is put into a JSON or TOML file as it stands."""

    text: str


LONG = "x" * 100_000
CONTROL = "a\x1b[31mred\x1b]0;title\x07\x00\x9b2J\x7fb"

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 0.5, -0.0, 1e300, -1e300, 1e-300, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**20, 10**30, 10**49,
    -(10**30), 999, 1000, 1_000_001, 10**9, Raw("1e999"), Raw("NaN"), Raw("-Infinity"), Raw("nan"), Raw("inf"),
    Raw("9" * 5000), Raw("0." + "3" * 400), Raw("1" + "0" * 400 + ".0"), Raw("0x" + "f" * 5000), Raw("007"), Raw("1_0"),
)  # fmt: skip

STRINGS: tuple[Any, ...] = (
    "", " ", "x", "0", "1.5", "true", "null", "-x", "--set", "-", ".", "..", "../..", "a/b", "a\\b", CONTROL, LONG,
    "\x00", "a\nb", "a\tb", "\u2028", "\u202egnp.txt", "e\u0301", "\U0001f600", "\ufeff", "a\x7f", "\x85",
    "<|coord_5|>", "<|coord_1000|>", "<|im_end|>", "<|image_pad|>", "<image>", "<bbox>", "%s%n", "{0}", "${HOME}",
    "[red]x[/red]", "[/]", "[bold", "`a`", "\"'", "'; --", "nul\0middle", Raw('"\\ud800"'), Raw('"\\udfff\\ud800"'),
    Raw('"\\u0000"'), Raw('"\\q"'), Raw('"unterminated'), Raw("'single'"),
)  # fmt: skip

PATHS: tuple[Any, ...] = (
    "~nosuchuser/x", "~", "~/x", "/", "/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "fifo", "loop",
    "folder", "missing", "missing/deeper/x", "a\0b", "y" * 300, "z/" * 3000 + "z", "../" * 50 + "etc/passwd", "./././m",
    "endless", "link", "empty", "file:///etc/passwd", "http://x/y", "C:\\x\\y", "\\\\host\\share", CONTROL,
    "name with blanks.png", "glob*[", "a" * 255, Raw('"\\ud800/x"'),
)  # fmt: skip

CONTAINERS: tuple[Any, ...] = (
    [], {}, [[]], [None], [{}], {"": 0}, {"a": {"b": {"c": 1}}}, [1, 2, 3], [0.1, 0.2, 0.7, 0.9], [5, 5, 1, 1],
    [1] * 5, ["a", 1], None, True, False, [["x"]], {"x": []}, [True, False, True, False], ["1", "2", "3", "4"],
    Raw("[" * 60 + "]" * 60), Raw("[" * 500 + "]" * 500), Raw("[" * 5000 + "]" * 5000),
    Raw('{"a":' * 600 + "1" + "}" * 600),
    Raw("{a={b=1}}"), Raw("[1,,2]"), Raw("1979-05-27T07:32:00Z"), Raw("07:32:00"), Raw("[\n1,\n# c\n2\n]"),
)  # fmt: skip

_PATH_KEYS = frozenset(
    [
        "base",
        "train",
        "validation",
        "image_root",
        "dir",
        "deepspeed",
        "fsdp",
        "extends",
        "images",
        "image",
        "filename",
        "file_name",
        "imagePath",
        "path",
    ]
)

KEYS = ("", "x", "desc", "bbox", "id", " ", "a.b", CONTROL, "\u202e", "Images", "__class__", "k" * 5000, "\x00", "é")

BYTES = (
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\n", b"\r", b"\r\n", b'"', b"'", b"{", b"}",
    b"[", b"]", b",", b":", b"=", b"#", b"\\", b"<", b">", b"&", b"]]>", b"<!--", b"<?xml?>", b"nan", b"1e999", b"-",
    b"\x1b[2J", b"\x1b]0;x\x07", b"\xc2\x9b31m", b"\xe2\x80\xa8", b"9" * 5000, b"[" * 2000, b"{" * 2000, b"(" * 2000,
    b" " * 100_000, b"\n" * 1000, b"a" * 100_000, b'"""', b"'''", b"null", b"true", b"\x1f\x8b\x08", b"PK\x03\x04",
    b"!!python/object/apply:os.system [id]", b"*a", b"&a [*a]", b"<<: *x", b"0x", b".5", b"+1", b"\xf4\x90\x80\x80",
)  # fmt: skip


@attrs.define
class Mutator:
    """Draws mistakes. notes: what it did, for a person who reads the case."""

    rng: Random
    notes: list[str] = attrs.Factory(list)

    def value(self, path: Path = ()) -> Any:
        """A value that may well be wrong, for the place `path`."""
        if self.rng.random() < 0.6 and any(name in _PATH_KEYS for name in path[-2:]):
            return copy.deepcopy(self.rng.choice(PATHS))
        return copy.deepcopy(self.rng.choice(self.rng.choice((NUMBERS, STRINGS, PATHS, CONTAINERS))))

    def tree(self, tree: Any, other: Any = None) -> Any:
        """A copy of nested lists and dicts with one mistake in it. other: another tree, to take parts from."""
        tree = copy.deepcopy(tree)
        path = self._place(tree)
        if not path:
            return self.value()
        *above, last = path
        parent = _get(tree, above)
        how = self.rng.choice(("replace",) * 6 + ("delete", "insert", "rename", "swap", "wrap", "repeat", "near"))
        if how == "replace":
            parent[last] = self.value(path)
        elif how == "delete":
            del parent[last]
        elif how == "insert":
            value = self.value(path)
            if isinstance(parent, list):
                parent.insert(self.rng.randint(0, len(parent)), value)
            else:
                parent[self.rng.choice(KEYS)] = value
        elif how == "rename" and isinstance(parent, dict):
            key = self.rng.choice((*KEYS, last[:-1], last + "s", last.upper(), last + last[-1:]))
            parent[key] = parent.pop(last)
        elif how == "swap":
            source = other if other is not None and self.rng.random() < 0.5 else tree
            parent[last] = copy.deepcopy(_get(source, self.rng.choice([*_paths(source)])))
        elif how == "wrap":
            parent[last] = self.rng.choice(([parent[last]], {"x": parent[last]}, [[parent[last]]], str(parent[last])))
        elif how == "repeat" and isinstance(parent, list):
            parent[last:last] = [copy.deepcopy(parent[last])] * self.rng.choice((1, 3, 50))
        else:
            parent[last] = self.near(parent[last])
        self.notes.append(f"{how} {'.'.join(map(str, path))}"[:120])
        return tree

    def _place(self, tree: Any) -> Path:
        """Where to make a mistake: down from the root, so that a long section is no likelier than a short one."""
        path: Path = ()
        while isinstance(tree, dict | list) and tree and (not path or self.rng.random() < 0.7):
            key = self.rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
            path, tree = (*path, key), tree[key]
        return path

    def near(self, value: Any) -> Any:
        """A value of the same type, a little off."""
        rng = self.rng
        if isinstance(value, bool):
            return not value
        if isinstance(value, int | float):
            return rng.choice((-value, value * 1e6, value + 0.5, value - 1, value * 1000, float(value), str(value)))
        if isinstance(value, str):
            cut = rng.randint(0, len(value))
            return rng.choice(
                (value[:cut], value + value, value.upper(), value[:cut] + CONTROL + value[cut:], f" {value}")
            )
        if isinstance(value, list):
            return rng.choice(
                (value[::-1], value[:-1], value * 2, {str(index): item for index, item in enumerate(value)})
            )
        if isinstance(value, dict):
            return rng.choice((list(value.values()), dict(reversed(value.items())), {}))
        return "null"

    def bytes(self, data: bytes, other: bytes = b"") -> bytes:
        """The bytes of a file with one mistake in them."""
        rng = self.rng
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 1, 1, 2, 5, 20, 200)))
        lines = data.splitlines(keepends=True)
        how = rng.choice(
            ("insert",) * 4 + ("overwrite",) * 3 + ("cut", "delete", "flip", "line twice", "lines swapped", "line lost")
            + ("splice", "token") * 2 + ("encoding", "newlines", "twice", "empty", "gzip")
        )  # fmt: skip
        self.notes.append(f"bytes: {how} at {start}")
        if how == "insert":
            return data[:start] + rng.choice(BYTES) + data[start:]
        if how == "overwrite":
            return data[:start] + rng.choice(BYTES) + data[end:]
        if how == "cut":
            return data[:start]
        if how == "delete":
            return data[:start] + data[end:]
        if how == "flip":
            return data[:start] + bytes(entry ^ (1 << rng.randint(0, 7)) for entry in data[start:end]) + data[end:]
        if how == "splice" and other:
            begin = rng.randint(0, len(other))
            return data[:start] + other[begin : begin + rng.choice((5, 50, 500))] + data[end:]
        if how == "token":
            return self._token(data)
        if how == "encoding":
            text = data.decode("utf-8", "replace")
            codec = rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-7", "utf-8-sig", "cp1252"))
            return text.encode(codec, "replace")
        if how == "newlines":
            return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", b"\xe2\x80\xa8", b"")))
        if how == "twice":
            return data + data
        if how == "empty":
            return rng.choice((b"", b"\n", b"\x00" * 100, b" \n \n", b"\xef\xbb\xbf"))
        if how == "gzip":
            return gzip.compress(data, mtime=0)
        if not lines:
            return data + rng.choice(BYTES)
        index = rng.randrange(len(lines))
        if how == "line twice":
            lines.insert(index, lines[index])
        elif how == "lines swapped":
            other_index = rng.randrange(len(lines))
            lines[index], lines[other_index] = lines[other_index], lines[index]
        else:
            del lines[index]
        return b"".join(lines)

    def _token(self, data: bytes) -> bytes:
        """A number or word replaced by another."""
        found = list(re.finditer(rb"-?\d+(?:\.\d+)?|[A-Za-z_]+", data))
        if not found:
            return data
        token = self.rng.choice(found)
        value = self.rng.choice((*NUMBERS, *STRINGS))
        text = value.text if isinstance(value, Raw) else str(value)
        return data[: token.start()] + text.encode("utf-8", "surrogatepass") + data[token.end() :]


def as_json(value: Any) -> str:
    """A value as JSON, Raw in it as it stands. Lone surrogates are written as escapes."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {as_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_json, value)) + "]"
    return json.dumps(value)


def json_bytes(value: Any) -> bytes:
    return as_json(value).encode("utf-8", "surrogatepass")


def as_lines(rows: list[Any]) -> bytes:
    """A JSONL file."""
    return b"".join(json_bytes(row) + b"\n" for row in rows)


def _paths(tree: Any, path: Path = ()) -> list[Path]:
    found = [path]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += _paths(value, (*path, key))
    return found


def _get(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key]
    return tree
