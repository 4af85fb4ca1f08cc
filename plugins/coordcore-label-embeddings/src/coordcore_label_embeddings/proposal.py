"""A table of synonyms from what labels mean: about which labels a model is asked, and the table as TOML. Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from coordcore_detection.evaluate.synonyms import Synonyms, names

if TYPE_CHECKING:
    from coordcore_detection.evaluate.truth import TruthImage
    from coordcore_detection.predict.predictions import Row
    from coordcore_label_embeddings.embedding import Meant

NONE: Synonyms = {}


def unknown_and_known(
    truth: Iterable[TruthImage], rows: Iterable[Row], given: Synonyms = NONE
) -> tuple[list[str], list[str]]:
    """The predicted labels that the truth does not have, and those that it has; both sorted, without blank ones.

    The truth has the labels of its boxes and points, and those that it says somebody looked for: a box of such a label
    is a mistake where it is not, whatever it resembles. given: a table that a person wrote; its names count as known,
    and its alternatives as their names.
    """
    meant = names(given)
    known = {*given, *(meant.get(label, label) for image in truth for label in _labels(image))}
    said = {meant.get(box.label, box.label) for row in rows for box in row.boxes}
    return sorted(filter(str.strip, said - known)), sorted(filter(str.strip, known))


def _labels(image: TruthImage) -> Iterator[str]:
    yield from image.labels
    yield from (label for label, _, _ in image.points)
    yield from (*image.absent, *image.incomplete, *image.categories)


def merged(found: Sequence[Meant], least: float, given: Synonyms = NONE) -> Synonyms:
    """`given` with each label of cosine `least` and more as an alternative of its name."""
    table = {name: [*others] for name, others in given.items()}
    for item in found:
        if item.cosine >= least:
            table.setdefault(item.name, []).append(item.label)
    return {name: tuple(sorted(table[name])) for name in sorted(table)}


def table(found: Sequence[Meant], least: float, given: Synonyms = NONE) -> str:
    """TOML of `merged`, with the cosines as comments; labels that mean no name are comments too."""
    lines = []
    for name in merged(found, least, given):
        meant = [item for item in found if item.name == name and item.cosine >= least]
        meant.sort(key=lambda item: -item.cosine)
        lines += [f"# {_quoted(item.label)}: {item.cosine:.3f}" for item in meant]
        others = [*given.get(name, ()), *(item.label for item in meant)]
        lines.append(f"{_quoted(name)} = [{', '.join(map(_quoted, others))}]")
    lines += [
        f"# {_quoted(item.label)} stays itself: the nearest name is {_quoted(item.name)}, {item.cosine:.3f}"
        for item in found
        if item.cosine < least
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of TOML on one line; JSON's are, but for characters that only TOML wants escaped."""
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
