"""The answer text (CoordJSON) of one image's objects, and the text it must not contain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import attrs
import msgspec

from coordcore import Geometry
from coordcore.coords import NUM_BINS, int_to_token, ints_to_tokens

TOKENS = tuple(ints_to_tokens(range(NUM_BINS)))
"""`TOKENS[k]` is the coord token of bin k."""

BINS = {token: k for k, token in enumerate(TOKENS)}
"""`BINS[token]` is its bin."""

# Text between <| and |> is a control token in Qwen's vocabulary (or a coord token); the second group is replaced by
# ms-swift's templates (swift.template.Template.special_tokens), the third is Qwen3's reasoning and tool markup.
_RESERVED = re.compile(
    r"<\|[^<>|]*\|>"
    r"|<(?:image|video|audio|bbox|ref-object|cot-process|start-image)>"
    r"|</?(?:think|tool_call|tool_response)>"
)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a record says to the model, and what reading it had to change.

    widened: boxes whose corners fell into one bin and were widened by one. clipped: objects cut at the image's edge.
    """

    text: str
    geometries: tuple[Geometry, ...] = ()
    widened: int = 0
    clipped: int = 0


@attrs.frozen(kw_only=True)
class Located:
    """One object of an answer.

    kind: "bbox_2d" (x1, y1, x2, y2) or "poly" (x1, y1, x2, y2, ...). bins: what the answer says, 0..999.
    values: the same coordinates as real numbers in bin units, for `coordcore.Geometry`.
    """

    desc: str
    kind: str
    bins: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def top_left(self) -> tuple[int, int]:
        """(top, left) of the bounding box, in bins."""
        return min(self.bins[1::2]), min(self.bins[::2])


def reserved(text: str) -> str | None:
    """The first piece of `text` that a tokenizer or template would not read as text, or None."""
    found = _RESERVED.search(text) if "<" in text else None
    return found.group() if found else None


def answer_text(objects: Iterable[Located], *, coord_tokens: bool = True, geometry_first: bool = False) -> str:
    """CoordJSON: `{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_12|>, <|coord_40|>, ...]}]}`.

    Valid JSON but for the bare coord tokens; with `coord_tokens=False` they are plain numbers and it is JSON.
    The text is a function of its arguments alone: ", " and ": " between items, letters outside ASCII as they are.
    """
    written = []
    for one in objects:
        bins = ", ".join(int_to_token(k) if coord_tokens else str(k) for k in one.bins)
        members = [f'"desc": {json.dumps(one.desc, ensure_ascii=False)}', f'"{one.kind}": [{bins}]']
        if geometry_first:
            members.reverse()
        written.append("{" + ", ".join(members) + "}")
    return '{"objects": [' + ", ".join(written) + "]}"
