"""Paths of this machine in texts and settings: found, and cut to the name that they end in. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_START = r"(?:file://)?(?:~(?:[a-z_][\w-]*)?|/[^\s/:'\"<>|*?]+)/|[A-Za-z]:[\\/]|\\\\[\w.-]+\\"
_WHOLE = re.compile(rf"(?:{_START})[^\n]*|file://\S+")
_INSIDE = re.compile(rf"(?<![\w/.~<\\])(?:{_START})[^\s'\",;<>]*")
_HOME = re.compile(r"(?<![\w/.])(?:/home|/Users|[A-Za-z]:\\Users)[\\/][\w.-]+[\\/][^\s'\",;<>)]*")
_SECRET = re.compile(r"token$|secret|passw|pwd|(?:api|access|private)_?key|auth$|credential", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^\s/@]+@")


def is_path(text: str) -> bool:
    """Whether `text` as a whole is an absolute path: of at least two parts, for "/" alone may begin any word."""
    return _WHOLE.fullmatch(text.strip()) is not None


def name_of(path: str) -> str:
    """What a path ends in."""
    return re.split(r"[\\/]+", path.strip().rstrip("\\/"))[-1]


def without_paths(value: Any) -> Any:
    """A setting, or a table of them, as others may read it: paths are the names that they end in, secrets are out."""
    if isinstance(value, Mapping):
        return {without_paths(key): without_paths(item) for key, item in value.items() if not _SECRET.search(key)}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if is_path(value):
        return name_of(value)
    return _INSIDE.sub(lambda found: name_of(found[0]), _LOGIN.sub("", value))


def paths_in(document: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Each value or key of a JSON document that is a path of a machine, with its dotted key."""
    if isinstance(document, Mapping):
        for key, item in document.items():
            if is_path(key):
                yield f"{at}, a key," if at else "a key", key
            yield from paths_in(item, f"{at}.{key}" if at else str(key))
    elif isinstance(document, list):
        for index, item in enumerate(document):
            yield from paths_in(item, f"{at}[{index}]")
    elif isinstance(document, str) and is_path(document):
        yield at, document


def texts_in(document: Any) -> Iterator[str]:
    """Every text of a JSON document, keys as well."""
    if isinstance(document, Mapping):
        for key, item in document.items():
            yield key
            yield from texts_in(item)
    elif isinstance(document, list):
        for item in document:
            yield from texts_in(item)
    elif isinstance(document, str):
        yield document


def path_in_text(text: str, known: tuple[str, ...]) -> str | None:
    """The first path of a machine in prose or code: below somebody's home, or one that begins with a `known` folder."""
    found = _HOME.search(text)
    if found is not None:
        return found[0]
    return next((folder for folder in known if folder in text), None)
