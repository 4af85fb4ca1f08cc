"""Which image of the ground truth an answer is of: by the path of the image, else by an id. Torch-free."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coordcore.errors import InputError
from coordcore_detection.evaluate.truth import Id

if TYPE_CHECKING:
    from coordcore_detection.predict.answer_files import Given

Parts = tuple[str, ...]


class Join:
    """The images of the ground truth by path, file name, stem and id."""

    def __init__(self, images: Sequence[tuple[str, Id | None]]) -> None:
        """images: key and id of each."""
        self._keys = [key for key, _ in images]
        self._exact = {key: index for index, key in enumerate(self._keys)}
        self._by_name: dict[str, list[tuple[Parts, int]]] = defaultdict(list)
        self._by_stem: dict[str, list[tuple[Parts, int]]] = defaultdict(list)
        self._by_id: dict[str, list[int]] = defaultdict(list)
        for index, (key, number) in enumerate(images):
            parts = _parts(key)
            self._by_name[parts[-1]].append((parts, index))
            self._by_stem[_stem(parts[-1])].append((parts, index))
            if number is not None:
                self._by_id[_text(number)].append(index)

    def place(self, given: Given) -> int | None:
        """The index of the image that an answer is of; None for one that is not there.

        Raises InputError for a name or an id that several images have.
        """
        tried = [self._named(name, given.at) for name in given.names]
        tried += [self._numbered(number, given.at) for number in given.ids if not any(_known(tried))]
        known = set(_known(tried))
        if len(known) > 1:
            raise InputError(
                f"{given.at}: names several images: {' and '.join(repr(self._keys[index]) for index in sorted(known))}"
            )
        return known.pop() if known else None

    def _named(self, name: str, at: str) -> int | None:
        if name in self._exact:
            return self._exact[name]
        parts = _parts(name)
        same = self._by_name.get(parts[-1], [])
        # "/data/val/a.png" is "val/a.png" and not "train/a.png".
        inside = [index for other, index in same if _ends_alike(parts, other)]
        stem = self._by_stem.get(parts[-1], []) if "." not in parts[-1] else []
        for found in (inside, [index for _, index in same], [index for _, index in stem]):
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(
                    f"{at}: {name!r} can be {' and '.join(repr(self._keys[index]) for index in found[:2])}; "
                    "name the image by the path that the records have"
                )
        return None

    def _numbered(self, number: str, at: str) -> int | None:
        found = self._by_id.get(number, [])
        if len(found) > 1:
            raise InputError(f"{at}: several images have the id {number!r}; name the image by its path")
        return found[0] if found else self._named(number, at)


def _known(tried: Iterable[int | None]) -> list[int]:
    return [index for index in tried if index is not None]


def _text(number: Id) -> str:
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def _parts(path: str) -> Parts:
    """The folders and the file of a path or address, in whatever form its accents are written."""
    if path.startswith(("http://", "https://", "file://")):
        path = unquote(urlsplit(path).path)
    plain = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return tuple(part for part in plain.split("/") if part not in ("", ".")) or (path,)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _ends_alike(a: Parts, b: Parts) -> bool:
    length = min(len(a), len(b))
    return a[-length:] == b[-length:]
