"""Rows as the file holds them, and the one form they are read into: turns, images, refs and boxes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import attrs
import msgspec

from coordcore.records.record import Real, RecordError, decode_line

IMAGE = "<image>"

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "bing"), "assistant"),
    "system": "system",
}
"""The words of ms-swift and ShareGPT."""

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_URL = re.compile(r"[a-z][a-z0-9+]*://|data:", re.IGNORECASE)


class Objects(msgspec.Struct):
    """ms-swift's column of refs and boxes, in the order of the placeholders. Other keys are not read, as it does."""

    ref: list[str] | None = None
    bbox: list[list[Real]] | None = None
    bbox_type: Literal["real", "norm1"] | None = None
    image_id: list[int] | None = None


class _Path(msgspec.Struct):
    path: str | None = None


class _Link(msgspec.Struct):
    url: str | None = None


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    image: str | None = None
    image_url: _Link | str | None = None


class _Message(msgspec.Struct):
    role: str | None = None
    speaker: str | None = msgspec.field(name="from", default=None)
    content: str | list[_Part] | None = None
    value: str | list[_Part] | None = None
    loss: bool | None = None
    loss_scale: Any = None
    tool_calls: Any = None


_Images = list[str | _Path] | str | _Path | None


class _Row(msgspec.Struct):
    messages: list[_Message] | None = None
    conversations: list[_Message] | None = None
    system: str | None = None
    images: _Images = None
    image: _Images = None
    objects: Objects | None = None
    # What would change what is trained, and is not read.
    videos: Any = None
    video: Any = None
    audios: Any = None
    audio: Any = None
    tools: Any = None
    rejected_response: Any = None
    rejected_messages: Any = None
    label: Any = None


_DECODER = msgspec.json.Decoder(_Row)
_REFUSED = ("videos", "video", "audios", "audio", "tools", "rejected_response", "rejected_messages")


@attrs.frozen(kw_only=True)
class Turn:
    """One message. path: of its text, "messages[1].content"."""

    role: str
    text: str
    path: str


@attrs.frozen(kw_only=True)
class ChatRow:
    """A row. turns: perhaps one of the system, then question and answer in turn. images: paths, one per `<image>`."""

    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    objects: Objects


def parse_row(line: bytes) -> ChatRow:
    """The row on one line, or of an array. Raises RecordError for the first mistake."""
    if not line.strip():
        raise RecordError("", "blank line; every line holds one row, remove it")
    if line.startswith(codecs.BOM_UTF8):
        raise RecordError("", "starts with a byte order mark; save the file as UTF-8 without one")
    if line.lstrip().startswith(b"["):
        raise RecordError("", "expected object, got array; write one row a line, or one array of all rows")
    try:
        row = decode_line(line, _DECODER)
    except msgspec.ValidationError as error:
        place, message = _PLACE.search(str(error)), _PLACE.sub("", str(error)).replace("`", "")
        path = place.group(1) if place else ""
        cure = "; real is pixels, norm1 fractions, write one of these" if path == "objects.bbox_type" else ""
        raise RecordError(path, message[:1].lower() + message[1:] + cure) from error
    if refused := next((key for key in _REFUSED if getattr(row, key)), None):
        raise RecordError(refused, "not supported: only text and images are trained; leave the row out")
    if row.label is False:
        raise RecordError(
            "label",
            "false marks a rejected answer, which would be trained as a right one; leave the row out, or the key where "
            "it says something else",
        )
    inside: list[str | None] = []
    turns = list(_turns(row, inside))
    _require_order(turns)
    images = _images(row, inside)
    return ChatRow(turns=tuple(_with_places(turns, len(images))), images=images, objects=row.objects or Objects())


def _turns(row: _Row, inside: list[str | None]) -> Iterator[Turn]:
    """The messages. inside: gets the images that stand in them, None for one that stands elsewhere."""
    key = "messages" if row.messages is not None else "conversations"
    messages = row.messages if row.messages is not None else row.conversations
    if not messages:
        found = "missing" if messages is None else "empty"
        raise RecordError("messages", f"{found}; write the turns, with role and content (or `conversations`)")
    for number, message in enumerate(messages):
        path = f"{key}[{number}]"
        said = message.role if message.role is not None else message.speaker
        where = f"{path}.{'from' if message.role is None and message.speaker is not None else 'role'}"
        if said is None:
            raise RecordError(where, "missing; write who speaks: user or assistant")
        role = _ROLES.get(said)
        if role is None:
            raise RecordError(where, f"{said!r} is not supported; known: {', '.join(_ROLES)}")
        if message.tool_calls:
            raise RecordError(f"{path}.tool_calls", "not supported: only text and images are trained")
        if message.loss is False or message.loss_scale not in (None, 1):
            raise RecordError(f"{path}.loss", "not supported: every answer is trained; write the turns to train alone")
        if number == 0 and role != "system" and row.system:  # files with a column for it leave it empty
            yield Turn(role="system", text=row.system, path="system")
        name = "content" if message.content is not None or message.value is None else "value"
        content = message.content if message.content is not None else message.value
        if content is None:
            raise RecordError(f"{path}.{name}", "missing; write what is said")
        yield Turn(role=role, text=_text(content, f"{path}.{name}", inside), path=f"{path}.{name}")


def _text(content: str | list[_Part], path: str, inside: list[str | None]) -> str:
    """The text of a message, which may come in parts, with `<image>` where an image stands."""
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        if part.type == "text":
            texts.append(part.text)
        elif part.type in ("image", "image_url"):
            link = part.image_url
            inside.append(part.image or (link.url if isinstance(link, _Link) else link))
            texts.append(IMAGE)
        else:
            raise RecordError(f"{path}[{number}].type", f"{part.type!r} is not supported; known: text, image")
    return "".join(texts)


def _require_order(turns: Sequence[Turn]) -> None:
    """Raise RecordError unless question and answer take turns."""
    expected = "user"
    for number, turn in enumerate(turns):
        if number == 0 and turn.role == "system":
            continue
        if turn.role != expected:
            raise RecordError(
                turn.path,
                f"a turn of the {turn.role}, where one of the {expected} belongs: question and answer take turns; "
                "join what one says, or leave the row out",
            )
        if turn.role == "assistant" and not turn.text.strip():
            raise RecordError(turn.path, "empty answer; write what is said")
        expected = "user" if turn.role == "assistant" else "assistant"
    if turns[-1].role != "assistant":
        raise RecordError(turns[-1].path, "the last turn is no answer, so there is nothing to train; leave it out")


def _images(row: _Row, inside: Sequence[str | None]) -> tuple[str, ...]:
    """The paths of the images, from the one place that has them."""
    key = "images" if row.images else "image"
    given: Any = row.images or row.image
    listed = given if isinstance(given, list) else [] if given in (None, "") else [given]
    if row.images and row.image and row.images != row.image:
        raise RecordError("image", "given beside other `images`; write one of them")
    if written := [path for path in inside if path]:
        if listed:
            raise RecordError(key, "given, but messages hold images of their own; write them in one place")
        if len(written) < len(inside):
            raise RecordError("messages", "some of the images in them have a path, others have none")
        key, listed = "messages", written
    paths = []
    for number, image in enumerate(listed):
        path = image if isinstance(image, str) else image.path
        where = f"{key}[{number}]" if key != "messages" and isinstance(given, list) else key
        if not path:
            raise RecordError(where, "without a path; write the image to a file and give its path")
        if _URL.match(path):
            raise RecordError(where, f"{path[:60]!r} is no path; download the image, and give the path of its file")
        paths.append(path)
    return tuple(paths)


def _with_places(turns: Sequence[Turn], count: int) -> Iterator[Turn]:
    """The turns with one `<image>` for each image. As ms-swift does, those that are missing go before the first."""
    places = 0
    for turn in turns:
        found = turn.text.count(IMAGE)
        if found and turn.role == "assistant":
            raise RecordError(turn.path, f"{IMAGE} in an answer: answers are text; put it into the question")
        places += found
        if places > count:
            has = f"{count} image{'' if count == 1 else 's'}"
            raise RecordError(turn.path, f"a further {IMAGE}, the {places}. of the row, which has {has}")
    missing = IMAGE * (count - places)
    for turn in turns:
        if missing and turn.role == "user":
            turn, missing = attrs.evolve(turn, text=missing + turn.text), ""
        yield turn
