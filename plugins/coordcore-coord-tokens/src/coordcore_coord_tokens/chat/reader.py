"""From a row to the conversation that is trained: its boxes as coord tokens, and their real-valued places."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import msgspec

from coordcore import Geometry, InputError
from coordcore.coords import CoordFormat
from coordcore.quantisation import Quantisation, encode_boxes
from coordcore.records.annotations import Rules, Space, read_annotation
from coordcore.records.record import RecordError, RecordObject, check_text
from coordcore_coord_tokens.answer import Changes
from coordcore_coord_tokens.augment import shapes
from coordcore_coord_tokens.chat.config import ChatJsonlConfig
from coordcore_coord_tokens.chat.rows import ChatRow, Turn, parse_row
from coordcore_coord_tokens.chat.texts import BBOX, Place, Shape, shapes_in
from coordcore_coord_tokens.locate import are_fractions, is_flat

Size = tuple[int, int]

Mirrored = Callable[[str, str], str]
"""A text, and where it stands -> what it is beside mirrored images. Raises RecordError."""

_THOUSANDTHS = (1000, 1000)
_UNDECLARED = (
    "numbers of a {}, and nothing says what they are: set `space` to pixel, norm1, norm1000 or bin, or to "
    '"text" where they are no places'
)
_NO_BOX = '; where such numbers are no coordinates, set `space = "text"`, which leaves the text alone'


class Said(msgspec.Struct, frozen=True, gc=False):
    """A conversation, and what `coordcore.Example` says of it.

    owner: the index of the image that all geometries of the answers lie in, None where there is no such one. changes:
    what reading had to change in questions and answers.
    """

    messages: list[dict[str, str]]
    geometries: tuple[Geometry, ...]
    owner: int | None
    changes: Changes

    @property
    def text(self) -> str:
        """All that is said."""
        return "".join(message["content"] for message in self.messages)


@attrs.frozen
class _Box:
    """A geometry with its numbers as they are written. owner: the index of its image, None where nothing says it.

    guessed: it stands as plain numbers in a text, and may be no box.
    """

    path: str
    kind: str
    values: Sequence[float]
    space: Space
    size: Size
    owner: int | None
    guessed: bool = False


@attrs.frozen(kw_only=True)
class ChatReader:
    """Reads rows by the settings of one run."""

    config: ChatJsonlConfig
    quantisation: Quantisation
    coords: CoordFormat

    def read(self, line: bytes) -> ChatRow:
        """The row on a line. Raises RecordError."""
        return parse_row(line)

    def say(self, row: ChatRow, sizes: Sequence[Size], mirrored: Mirrored | None = None) -> Said:
        """What a row says to the model. sizes: width and height of its upright images. Raises RecordError.

        mirrored: what texts become beside its images, all of which are mirrored; None where none is.
        """
        placed = _Placed(row, sizes)
        turns = [(turn, list(self._pieces(turn, placed, sizes))) for turn in row.turns]
        placed.require_all_used()
        encoded = _Encoder(self, mirrors=mirrored is not None).encode(
            [box for _, pieces in turns for _, box in pieces if isinstance(box, _Box)]
        )
        messages, geometries = [], []
        owners: set[int | None] = set()
        boxes = iter(encoded.boxes)
        for turn, pieces in turns:
            text, position = "", 0
            for found, box in pieces:
                if isinstance(box, str):
                    parts = [(found.spans[0], box)]
                else:
                    bins, values = next(boxes)
                    parts = list(self._written(found, bins, anew=mirrored is not None))
                    if turn.role == "assistant":
                        geometries.append(Geometry(kind=box.kind, values=tuple(values)))
                        owners.add(box.owner)
                for (start, end), written in parts:
                    text += turn.text[position:start] + written
                    position = end
            said = text + turn.text[position:]
            messages.append({"role": turn.role, "content": mirrored(said, turn.path) if mirrored else said})
        if self.config.system is not None and messages[0]["role"] != "system":
            system = self.config.system
            messages.insert(0, {"role": "system", "content": mirrored(system, "system") if mirrored else system})
        owners = owners or set(range(len(sizes)))
        return Said(
            messages=messages,
            geometries=tuple(geometries),
            owner=owners.pop() if len(owners) == 1 else None,
            changes=Changes(encoded.widened, encoded.clipped, encoded.flat),
        )

    def _pieces(self, turn: Turn, placed: _Placed, sizes: Sequence[Size]) -> Iterator[tuple[Place | Shape, str | _Box]]:
        """What stands in a message: refs with their texts, and boxes. Raises RecordError."""
        # Without an image, numbers are no boxes: text-only rows stand among the others, with lists in their code.
        numbers = self.config.space != "text" and len(sizes) > 0
        for found in shapes_in(turn.text, turn.path, self.coords, numbers=numbers, is_answer=turn.role == "assistant"):
            if isinstance(found, Shape):
                yield found, self._in_text(found, turn, sizes)
            elif found.name == BBOX:
                yield found, placed.next_box(turn)
            else:
                ref = placed.next_ref(turn, self.coords)
                yield found, json.dumps(ref, ensure_ascii=False)[1:-1] if found.quoted else ref

    def _written(
        self, found: Place | Shape, bins: Sequence[int], *, anew: bool
    ) -> Iterator[tuple[tuple[int, int], str]]:
        """What takes the place of which part of a text. anew: also where coord tokens stand there."""
        tokens = [self.coords.written[k] for k in self.coords.arranged(bins)]
        if isinstance(found, Place):
            yield found.spans[0], f"[{', '.join(tokens)}]" if found.listed else "".join(tokens)
        elif anew or not found.tokens:
            yield from zip(found.spans, tokens, strict=True)

    def _in_text(self, found: Shape, turn: Turn, sizes: Sequence[Size]) -> _Box:
        """A box that is written into the text of a message."""
        space = self.config.space
        if not sizes:
            raise RecordError(turn.path, "has a box, but the row has no image; add its image")
        if not found.tokens and (space is None or space == "text"):
            raise RecordError(turn.path, _UNDECLARED.format("box" if found.kind == "bbox_2d" else found.kind))
        owner = 0 if len(sizes) == 1 else None
        if not found.tokens and space == "pixel" and len(set(sizes)) > 1:
            raise RecordError(
                turn.path,
                f"a box in pixels, of one of {len(sizes)} images of several sizes: of which is not said; give it as "
                f"<bbox>, with `objects.image_id`{_NO_BOX}",
            )
        scale: tuple[Space, Size] = ("norm1", (1, 1))
        if found.tokens or space == "bin":
            scale = ("bin", (1, 1))
        elif space == "pixel":
            scale = ("pixel", sizes[0])
        elif space == "norm1000":
            scale = ("pixel", _THOUSANDTHS)
        return _Box(turn.path, found.kind, found.values, *scale, owner, guessed=not found.tokens)


@attrs.define
class _Encoder:
    """Encodes the boxes of one row. boxes: bins and real-valued bins of each, in order. mirrors: left to right."""

    reader: ChatReader
    mirrors: bool = attrs.field(kw_only=True)
    boxes: list[tuple[Sequence[int], Sequence[float]]] = attrs.Factory(list)
    widened: int = 0
    clipped: int = 0
    flat: int = 0

    def encode(self, boxes: Sequence[_Box]) -> _Encoder:
        """Raises RecordError for a box that is not right."""
        spec, outside = self.reader.quantisation, self.reader.config.outside
        together: dict[Size, list[int]] = {}
        read = [(box, self._read(box)) for box in boxes]
        if self.mirrors:
            read = [self._mirrored(*pair) for pair in read]
        for index, (box, values) in enumerate(read):
            self.boxes.append(([int(value) for value in values], values))
            if box.space != "bin" and box.kind == "bbox_2d":
                together.setdefault(box.size, []).append(index)
            elif box.space != "bin":
                sizes = box.size * (len(values) // 2)
                try:
                    bins = spec.encode(values, sizes, outside=outside).tolist()
                except InputError as error:  # outward rounding has no meaning for a single point
                    raise RecordError(box.path, str(error)) from error
                self.boxes[index] = bins, spec.to_bin_units(values, sizes, outside=outside).tolist()
                self.flat += is_flat(box.kind, bins)
        for size, indices in together.items():
            encoded = encode_boxes([read[index][1] for index in indices], *size, quantisation=spec, outside=outside)
            self.widened += encoded.widened
            for index, bins, units in zip(indices, encoded.bins.tolist(), encoded.values.tolist(), strict=True):
                self.boxes[index] = bins, units
        return self

    def _mirrored(self, box: _Box, values: tuple[float, ...]) -> tuple[_Box, tuple[float, ...]]:
        """A box and its numbers beside mirrored images. A bin is mirrored as the place that it stands for."""
        spec = self.reader.quantisation
        if box.space == "bin":
            if spec.rounding != "nearest":
                message = (
                    f"bins of {spec.name} tell a place to within a bin, which rounding to one side would move again; "
                    "write boxes in pixels, or leave flip out"
                )
                raise RecordError(box.path, message)
            box = attrs.evolve(box, space="norm1")
            values = tuple(spec.decode(values, box.size * (len(values) // 2)).tolist())
        return box, shapes.mirrored(shapes.Shape("", box.kind, values), box.size[0]).values

    def _read(self, box: _Box) -> tuple[float, ...]:
        """The numbers of a box, as a record's are checked."""
        written: dict[str, Any] = {box.kind: list(box.values)}
        item = RecordObject(desc=box.kind, **written)
        # The corners of a quad stay in the order of the text, as all of it does.
        rules = Rules(
            space=box.space,
            ordered=box.kind != "quad",
            outside=self.reader.config.outside,
            coords=self.reader.coords,
        )
        try:
            read = read_annotation(item, "", rules, box.size)
        except RecordError as error:
            cure = _NO_BOX if box.guessed else ""
            raise RecordError(box.path, f"{error.message}{cure}", reason=error.reason) from error
        if box.space == "pixel" and are_fractions(box.values):
            cure = f'`space = "norm1"`{_NO_BOX}' if box.guessed else '`objects.bbox_type` to "norm1"'
            raise RecordError(box.path, f"{[*box.values]} all lie in 0..1, as fractions of an image do; set {cure}")
        self.clipped += read.outside
        return tuple(map(float, read.values))


class _Placed:
    """The refs and boxes of `objects`, taken one by one as the placeholders ask for them."""

    def __init__(self, row: ChatRow, sizes: Sequence[Size]) -> None:
        objects = row.objects
        self._refs, self._boxes = objects.ref or [], objects.bbox or []
        self._real = objects.bbox_type != "norm1"
        self._sizes = sizes
        given = objects.image_id or []
        if len(given) > len(self._boxes):
            raise RecordError("objects.image_id", f"holds {len(given)}, but objects.bbox {len(self._boxes)}")
        # As ms-swift does: boxes without an image_id are on the first image.
        self._owners = [*given, *[0] * (len(self._boxes) - len(given))]
        for index, owner in enumerate(self._owners):
            if not 0 <= owner < len(sizes):
                has = f"{len(sizes)} image{'' if len(sizes) == 1 else 's'}"
                path = f"objects.image_id[{index}]" if index < len(given) else f"objects.bbox[{index}]"
                raise RecordError(path, f"is on image {owner}, counted from 0, but the row has {has}")
        self._ref = self._box = 0

    def next_ref(self, turn: Turn, coords: CoordFormat) -> str:
        """The ref that a `<ref-object>` stands for. Raises RecordError."""
        index = self._ref
        if index == len(self._refs):
            raise RecordError(turn.path, f"a further <ref-object>, but objects.ref holds {len(self._refs)}")
        self._ref += 1
        check_text(self._refs[index], f"objects.ref[{index}]", coords)
        return self._refs[index]

    def next_box(self, turn: Turn) -> _Box:
        """The box that a `<bbox>` stands for. Raises RecordError."""
        index = self._box
        if index == len(self._boxes):
            raise RecordError(turn.path, f"a further <bbox>, but objects.bbox holds {len(self._boxes)}")
        self._box += 1
        path, values, owner = f"objects.bbox[{index}]", self._boxes[index], self._owners[index]
        kind = "point" if len(values) == 2 else "bbox_2d"
        size = self._sizes[owner] if self._real else (1, 1)
        return _Box(path, kind, values, "pixel" if self._real else "norm1", size, owner)

    def require_all_used(self) -> None:
        """Raise RecordError for a ref or a box that no placeholder stands for."""
        for key, place, held, used in (
            ("bbox", BBOX, len(self._boxes), self._box),
            ("ref", "<ref-object>", len(self._refs), self._ref),
        ):
            if used < held:
                raise RecordError(f"objects.{key}", f"holds {held}, but the messages have {used} {place}")
