"""Files of answers that other tools wrote: vLLM's and OpenAI's batches, `swift infer`, own scripts. Torch-free.

JSON lines or one JSON array, an answer each, which must name its image. What the answers say is read in `foreign`.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from coordcore.errors import InputError
from coordcore.records.source import open_source

ANSWERS = ("response", "predict", "prediction", "generated_text", "outputs", "output", "choices", "text", "answer")
"""Keys of an answer. Of several, the first: where `response` is there too, `answer` is often what should be said."""

IMAGES = ("image", "images", "image_path", "img_path", "path", "file_name", "filename")
IDS = ("image_id", "id", "custom_id", "question_id")

_GEOMETRIES = ("bbox_2d", "bbox", "box_2d", "poly", "point", "point_2d", "quad")

_PREDICTIONS = b'{"predictions":'

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""What a Windows shell begins a file with; `read` says what to do then."""


@attrs.frozen(kw_only=True)
class Given:
    """One answer as its file has it.

    at: "answers.jsonl:3". names, ids: what says which image it is of. text: None where there is none, for the reason
    `missing`. is_cut: ended by a limit of tokens.
    """

    at: str
    names: tuple[str, ...]
    ids: tuple[str, ...]
    text: str | None
    missing: str = ""
    is_cut: bool = False


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzip's. Raises InputError."""
    try:
        with open_source(path) as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error


def is_foreign(data: bytes) -> bool:
    """Whether the content of a file is JSON, but not what `coordcore predict` writes."""
    begins = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return data.startswith(_UTF16) or (begins in (b"{", b"[") and not is_own(data))


def is_own(data: bytes) -> bool:
    """Whether the content of a file begins as what `coordcore predict` writes."""
    return data.startswith(_PREDICTIONS)


def read(items: Iterable[tuple[str, Any]]) -> list[Given]:
    """The answers among `items` of a file. Raises InputError naming line, what is missing, and the cure."""
    return [_given(at, item) for at, item in items]


def items(path: Path, data: bytes) -> list[tuple[str, Any]]:
    """Each thing that a file with the content `data` holds in JSON, behind where it stands.

    Raises InputError for what is not JSON, and where there is nothing.
    """
    found = list(_items(path, data))
    if not found:
        raise InputError(
            f"{path}: holds no answers, and does not say to which images; an answer that nothing is there is "
            '{"image": PATH, "answer": []}'
        )
    return found


def _items(path: Path, data: bytes) -> Iterator[tuple[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 ({error.reason}); save the file as UTF-8") from error
    if text.lstrip().startswith("["):
        listed = _json(text, str(path))
        yield from ((f"{path}: [{index}]", item) for index, item in enumerate(listed))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            at = f"{path}:{number}"
            yield at, _json(line, at)


def _json(text: str, at: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{at}: is not JSON ({str(error).lower()}); write one JSON object a line") from error


def _given(at: str, item: Any) -> Given:
    if not isinstance(item, dict):
        raise InputError(f"{at}: is no JSON object, but {item!r:.60}; an answer is an object that names its image")
    if "category_id" in item and "bbox" in item:
        raise InputError(
            f"{at}: is a detection of COCO's results format among answers, one box with a category's number; give "
            "eval a file of detections alone, or one of answers alone"
        )
    if "objects" in item and "width" in item:
        raise InputError(f"{at}: is a record, not an answer; give the answers first, then the records")
    text, missing, is_cut = _answer(item, at)
    names = tuple(_names(item, at))
    ids = tuple(shown for key in IDS if (shown := identified(item.get(key))))
    if not names and not ids:
        raise InputError(
            f"{at}: does not say which image it is of: neither {', '.join(IMAGES)} nor {', '.join(IDS)}; "
            "write the image's path, as the records have it, beside each answer"
        )
    return Given(at=at, names=names, ids=ids, text=text, missing=missing, is_cut=is_cut)


def _answer(item: Mapping[str, Any], at: str) -> tuple[str | None, str, bool]:
    """Text, the reason why there is none, and whether it was cut off."""
    key = next((answer for answer in ANSWERS if answer in item), None)
    failed = item.get("error")
    if key is None and not failed:
        others = ", ".join(item) or "nothing"
        raise InputError(f"{at}: holds no answer: none of {', '.join(ANSWERS)}, but {others!r:.200}")
    value = item.get(key) if key is not None else None
    samples = key == "choices"
    if isinstance(value, dict) and "body" in value:  # OpenAI's batches
        body = value["body"] if isinstance(value["body"], dict) else {"error": value["body"]}
        failed, samples = failed or body.get("error"), True
        value = body.get("choices", body.get("output"))  # the second is of the Responses API
    is_cut = False
    if samples and not value:
        value = None
    elif isinstance(value, list) and value and (message := _response_message(value)) is not None:
        value = _joined(message.get("content"))
    elif isinstance(value, list) and value and _is_sample(value[0]):
        if len(value) > 1:
            raise InputError(f"{at}: {key}: holds {len(value)} answers to one question; ask for one")
        value, is_cut = _sample(value[0])
    if failed or value is None:
        return None, f"no answer: {failed!r:.80}" if failed else "no answer", is_cut
    if isinstance(value, dict | list):  # parsed by whoever wrote the file
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        raise InputError(f"{at}: {key}: is no text, but {value!r:.60}")
    return whole(value), "", is_cut


def whole(text: str) -> str:
    """A text that a file can hold: half of a surrogate pair, which JSON can write, becomes a replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _response_message(value: list[Any]) -> dict[str, Any] | None:
    """The message among the outputs of OpenAI's Responses API, which its reasoning may precede; None for others."""
    found = [item for item in value if isinstance(item, dict) and item.get("type") == "message"]
    return found[-1] if found else None


def _joined(content: Any) -> Any:
    """The content of a message as text: some write it in parts, [{"type": "text", "text": ...}]."""
    if isinstance(content, list) and content and all(isinstance(part, dict) and "text" in part for part in content):
        return "".join(str(part["text"]) for part in content)
    return content


def _is_sample(value: Any) -> bool:
    """Whether something is one of several answers that a model was asked for, and no object of an answer."""
    if isinstance(value, dict):
        return ("text" in value or "message" in value) and not any(key in value for key in _GEOMETRIES)
    return isinstance(value, str)


def _sample(value: Any) -> tuple[Any, bool]:
    """The text of such an answer, and whether it was cut off."""
    if isinstance(value, str):
        return value, False
    message = value.get("message")
    text = message.get("content") if isinstance(message, dict) else value.get("text")
    return _joined(text), value.get("finish_reason") == "length"


def _names(item: Mapping[str, Any], at: str) -> Iterator[str]:
    """Paths of the image; pictures that stand in the line itself have none."""
    for key in IMAGES:
        value = item.get(key)
        if isinstance(value, list):
            if len(value) > 1:
                raise InputError(f"{at}: {key}: holds {len(value)} images; boxes refer to one image")
            value = value[0] if value else None
        if isinstance(value, dict):  # ms-swift: {"bytes": null, "path": "a.png"}
            value = value.get("path")
        if isinstance(value, str) and value and not value.startswith("data:"):
            yield whole(value)


def identified(value: Any) -> str:
    """An id as text, "17" for 17, 17.0 and "17"; "" for none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return whole(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
