"""Tables as TOML, in one of the many ways of writing them."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

from mutate import Raw


def as_toml(table: dict[str, Any], rng: Random) -> str:
    """A document. rng: chooses between headers, dotted keys and inline tables, line ends and comments."""
    lines: list[str] = []
    _table(table, (), lines, rng)
    end = "\r\n" if rng.random() < 0.05 else "\n"
    return end.join([*lines, ""])


def _table(table: dict[str, Any], path: tuple[str, ...], lines: list[str], rng: Random) -> None:
    tables = {}
    for key, value in table.items():
        if isinstance(value, dict) and not (path and rng.random() < 0.1):
            tables[key] = value
        elif value is not None:  # TOML has no null
            comment = rng.choice((" # why", "")) if rng.random() < 0.1 else ""
            lines.append(f"{_key(key)} = {_value(value)}{comment}")
    for key, value in tables.items():
        inner = (*path, key)
        if value and rng.random() < 0.1 and not any(isinstance(item, dict) for item in value.values()):
            header = ".".join(map(_key, path))
            if not path:
                lines[:0] = [
                    f"{_key(key)}.{_key(name)} = {_value(item)}" for name, item in value.items() if item is not None
                ]
                continue
            lines.append(f"[{header}.{_key(key)}]")
        else:
            lines.append(f"[{'.'.join(map(_key, inner))}]")
        _table(value, inner, lines, rng)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _string(text: str) -> str:
    """A basic string: JSON's, but DEL must be escaped, and a lone surrogate cannot be."""
    return json.dumps(text, ensure_ascii=text.isascii()).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        pairs = (f"{_key(str(key))} = {_value(item)}" for key, item in value.items() if item is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value if item is not None) + "]"
    return repr(value)
