"""Tables of synonyms: labels that count as one name, from a TOML file `helmet = ["hard hat", "safety helmet"]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli

from coordcore import InputError
from coordcore.files import require_regular

Synonyms = Mapping[str, Sequence[str]]
"""Name -> its alternatives, both in the order of their text."""


def read(path: Path) -> Synonyms:
    """The table in `path`. Raises InputError, with the file, for all that is wrong in it."""
    try:
        require_regular(path)
        table = tomli.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise InputError(
            f'{path}: is no TOML ({error}); a line reads: helmet = ["hard hat", "safety helmet"]'
        ) from error
    if problems := _problems(table):
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))
    return {name: tuple(sorted(table[name])) for name in sorted(table)}


def names(synonyms: Synonyms) -> dict[str, str]:
    """Alternative -> the name it is taken for."""
    return {other: name for name, others in synonyms.items() for other in others}


def _problems(table: Mapping[str, object]) -> list[str]:
    if not table:
        return ['holds no names; a line reads: helmet = ["hard hat", "safety helmet"]']
    found: list[str] = []
    taken: dict[str, str] = {}
    for name, others in table.items():
        if not isinstance(others, list) or not all(isinstance(item, str) and item for item in others):
            found.append(f"{name}: must be a list of labels, got {others!r:.80}; quote names that hold blanks or dots")
            continue
        for other in others:
            if other in taken:
                both = "twice" if taken[other] == name else f"also of {taken[other]!r}; it can stand for one name only"
                found.append(f"{name}: {other!r} is an alternative {both}")
            elif other in table:
                cure = "leave it out" if other == name else "put all its alternatives under one of the two"
                found.append(f"{name}: {other!r} is a name of this table itself; {cure}")
            taken[other] = name
    return found
