"""The writer of answers, and the text that they must not contain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

import attrs

from coordcore.coords import DEFAULT_COORDS, CoordFormat, int_to_token
from coordcore.errors import InputError
from coordcore.records.answers.format import COORDJSON, Coords, Format, Label, Layouts
from coordcore.records.geometry import bounds

THOUGHT = r"(?i:[<◁](?P<end>/?)(?:think|thinking|thought|reasoning)\s*[>▷]|<(?:\|channel>thought|(?P<last>channel\|>)))"
"""The tags that models think in, Gemma 4's the last; `end` or `last` is not empty where a thought ends."""

# Text between <| and |> is a control token in Qwen's vocabulary (or a coord token); the second group is replaced by
# ms-swift's templates (swift.template.Template.special_tokens), the third is markup of tools and of thoughts
# (Qwen3's, Kimi-VL's, Gemma 4's), which `parse_answer` leaves out.
_RESERVED = re.compile(
    r"<\|[^<>|]*\|>|<(?:image|video|audio|bbox|ref-object|cot-process|start-image)>"
    rf"|</?tool_(?:call|response)>|{THOUGHT}"
)


@attrs.frozen(kw_only=True)
class Located:
    """One object of an answer.

    kind: one of `geometry.KINDS`. bins: what the answer says.
    values: the same coordinates as real numbers in bin units, for `coordcore.Geometry`.
    """

    desc: str
    kind: str
    bins: tuple[int, ...]
    values: tuple[float, ...] = ()

    @property
    def top_left(self) -> tuple[int, int]:
        """(top, left) of the bounding box, in bins."""
        left, top, _, _ = bounds(self.bins)
        return top, left


def reserved(text: str, coords: CoordFormat = DEFAULT_COORDS) -> str | None:
    """The first piece of `text` that a tokenizer or template would not read as text, or None."""
    found = (_RESERVED.search(text) or re.search(coords.pattern(), text)) if "<" in text or "◁" in text else None
    return found.group() if found else None


def answer_text(
    objects: Iterable[Located],
    *,
    coord_tokens: bool = True,
    geometry_first: bool = False,
    form: Format = COORDJSON,
    coords: CoordFormat = DEFAULT_COORDS,
) -> str:
    """CoordJSON: `{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, <|coord_40|>, ...]}]}`.

    Valid JSON but for the bare coord tokens, which are those of `coords`, in its order; with `coord_tokens=False` they
    are plain numbers, x first, and it is JSON.
    The text is a function of its arguments alone: ", " and ": " between items, letters outside ASCII as they are. In a
    format that groups objects they stand as `form.grouped` has them.
    Raises InputError for a description or a kind that another format, `form`, cannot hold.
    """
    coord_tokens = coord_tokens and not form.numbers
    groups = form.grouped(objects)
    if unknown := next((group[0].kind for group in groups if group[0].kind not in form.places), None):
        raise InputError(f"the format {form.name} cannot say a {unknown}; it can say {', '.join(form.places)}")
    if not coord_tokens and not all(_between(form.places[group[0].kind]) and form.again != "" for group in groups):
        raise InputError(f"the format {form.name} has nothing between two coordinates, which plain numbers need")
    written = [
        _write(form.layout(group[0].kind, geometry_first), group, coords if coord_tokens else None, form.name)
        for group in groups
    ]
    return form.opening + (form.between.join(written) or form.nothing) + form.closing


def geometry_text(kind: str, bins: Sequence[int], coords: CoordFormat = DEFAULT_COORDS) -> str:
    """The part of an object in CoordJSON that says where it is, `"bbox_2d": [<|coord_12|>, <|coord_40|>, ...]`."""
    return _place(COORDJSON.places[kind], bins, coords)


def _write(layout: Layouts, group: Sequence[Located], coords: CoordFormat | None, name: str) -> str:
    texts = []
    for piece in layout:
        if isinstance(piece, str):
            texts.append(piece)
        elif isinstance(piece, Label):
            texts.append(_label(piece, group[0].desc, name))
        else:
            texts.append(piece.again.join(_place(piece.place, item.bins, coords) for item in group))
    return "".join(texts)


def _between(place: Sequence[str | Label | Coords]) -> bool:
    return all(piece.between for piece in place if isinstance(piece, Coords))


def _place(place: Sequence[str | Coords], bins: Sequence[int], coords: CoordFormat | None) -> str:
    written = map(str, bins) if coords is None else [int_to_token(k, coords) for k in coords.arranged(bins)]
    return "".join(piece if isinstance(piece, str) else piece.between.join(written) for piece in place)


def _label(label: Label, desc: str, name: str) -> str:
    if not desc:
        raise InputError("a description must not be empty; write what is there")
    if thought := re.search(THOUGHT, desc):  # which every parser passes over, in quotes too
        raise InputError(f"description {desc!r}: {thought[0]!r} would be read as a thought; reword it")
    if label.without is None:
        return json.dumps(desc, ensure_ascii=False)
    if wrong := [letter for letter in desc if letter in label.without or letter < " "]:
        raise InputError(f"description {desc!r}: the format {name} cannot hold {wrong[0]!r}; reword it")
    return desc
