"""What travels from a data builder through the template to the loss. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.errors import InputError
from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation, encode_boxes

if TYPE_CHECKING:
    from coordcore.records.answers import Format

_WITHOUT_SOURCE = "an example without a source"


@attrs.frozen(kw_only=True)
class Geometry:
    """One geometry of the answer. x is first, also where answers write y first (`BuildContext.coords`).

    kind: one of `coordcore.records.geometry.KINDS`.
    values: targets in bin units on the run's quantisation, real-valued where the source is finer than a bin
        (12.4 rounds to the written token `<|coord_12|>`), else the bin itself. One value per coord token.
    """

    kind: str
    values: tuple[float, ...]


@attrs.frozen(kw_only=True)
class Example:
    """One training example: a conversation with its images, and the geometries its answer speaks of.

    messages: `{"role": "user" | "assistant" | "system", "content": str}` dicts, `<image>` where an image stands.
    images: paths, encoded bytes or PIL images, one per `<image>`. EXIF orientation is already applied (a path must
        point to an upright image): boxes and pixels then agree.
    geometries: one per geometry in the assistant's texts, in order, over all its turns; empty when they hold no coord
        tokens. Those of questions have none. Their value count must equal the coord tokens of the answers, or encoding
        stops with `source` in the message.
    source: where the example came from, "train.jsonl:17".
    image_size: width and height in pixels of the image that the geometries lie in; None where unknown, or where they
        lie in several. Losses that weigh by the size of objects read it.
    max_pixels: its images are resized to at most so many pixels, where that is less than the run's `train.max_pixels`.
    uncharged: which of `geometries`, by number, have coordinates that no loss sees: noise that nothing can tell.
    group: which of its builder's `groups` it belongs to.
    task: what is asked, of `coordcore.tasks`, for evaluators: an example of a task in text has no geometries.
    categories: those that a question of the task "named" asks for.

    `Example.boxes` makes one from pixels, text and geometries from one place.
    """

    messages: Sequence[dict[str, str]]
    images: Sequence[Path | str | bytes | Any] = ()
    geometries: tuple[Geometry, ...] = ()
    source: str = ""
    image_size: tuple[int, int] | None = None
    max_pixels: int | None = None
    uncharged: Sequence[int] = ()
    group: str = ""
    task: str = "detect"
    categories: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """What messages call it: its source, or that it has none."""
        return self.source or _WITHOUT_SOURCE

    @classmethod
    def boxes(
        cls,
        objects: Iterable[tuple[str, Sequence[float]]],
        *,
        image: Path | str | bytes | Any,
        image_size: tuple[int, int],
        prompt: str,
        quantisation: Quantisation = DEFAULT_QUANTISATION,
        coord_tokens: bool = True,
        source: str = "",
        coords: CoordFormat = DEFAULT_COORDS,
        form: Format | None = None,
    ) -> Example:
        """One image, one question, and an answer that names `objects` in their order, if its format keeps that.

        objects: (description, (x1, y1, x2, y2) in pixels). image_size: width and height. prompt: without `<image>`.
        quantisation, coords, form: those of the `BuildContext` (`context.format`); CoordJSON when absent.
        coord_tokens: False writes the same bins as plain numbers, and leaves `geometries` empty. Boxes that fall into
        one bin are widened as `encode_boxes` does. Raises InputError, with `source`, for a box that is not one.
        """
        from coordcore.records.answers import (  # msgspec, which a plain import does without
            COORDJSON,
            Located,
            answer_text,
            reserved,
        )

        where = source or _WITHOUT_SOURCE
        described = list(objects)
        for desc in [*(desc for desc, _ in described), prompt]:
            if found := reserved(desc, coords):
                raise InputError(f"{where}: {desc!r} contains {found!r}, which is read as a control token; reword it")
        try:
            encoded = encode_boxes([box for _, box in described], *image_size, quantisation=quantisation)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        boxes = zip((desc for desc, _ in described), encoded.bins.tolist(), encoded.values.tolist(), strict=True)
        located = [
            Located(desc=desc, kind="bbox_2d", bins=tuple(bins), values=tuple(values)) for desc, bins, values in boxes
        ]
        form = form or COORDJSON
        coord_tokens = coord_tokens and not form.numbers
        located = [item for group in form.grouped(located) for item in group]
        try:
            answer = answer_text(located, coord_tokens=coord_tokens, form=form, coords=coords)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        return cls(
            messages=({"role": "user", "content": f"<image>{prompt}"}, {"role": "assistant", "content": answer}),
            images=(image,),
            geometries=tuple(Geometry(kind="bbox_2d", values=item.values) for item in located if coord_tokens),
            source=source,
            image_size=image_size,
        )
