"""The page of a report: pictures, and the template that they are put into. Torch-free; jinja2 is imported when used."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import attrs

from coordcore.errors import printable


@attrs.frozen(kw_only=True, eq=False)
class Picture:
    """One plot or drawing.

    name: of its PNG file. alt: what it shows, for who cannot see it. caption: below it, then `lines` as a list. png:
    the file. jpeg: stands in for it on the page where that is smaller.
    """

    name: str
    alt: str
    caption: str
    png: bytes
    jpeg: bytes | None = None
    lines: Sequence[str] = ()

    @property
    def address(self) -> str:
        """The picture as a data URL."""
        kind, data = "png", self.png
        if self.jpeg is not None and len(self.jpeg) < len(self.png):
            kind, data = "jpeg", self.jpeg
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@attrs.frozen(kw_only=True, eq=False)
class Group:
    """Pictures side by side, under a heading."""

    title: str
    pictures: Sequence[Picture]


def page(**content: Any) -> str:
    """templates/report.html with `content` put in, which is text: the template escapes it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("coordcore_detection.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(content)


def _printable(value: Any) -> Any:
    """What HTML forbids, turns the text around or cannot be encoded, escaped. What a macro made is left as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))


def short(text: str, length: int = 80) -> str:
    """The beginning of a text that a model may have made as long as it likes."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
