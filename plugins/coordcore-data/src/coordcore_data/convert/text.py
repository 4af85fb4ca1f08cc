"""Reading text that may be broken: JSON files, lines, XML, labels. Each mistake has a reason that can be counted."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs
import msgspec

from coordcore import InputError
from coordcore.errors import shortened
from coordcore.records.answers import reserved
from coordcore.records.source import all_lines, open_source

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_ENCODING = re.compile(rb"<\?xml[^>]*encoding=[\"']([A-Za-z][\w.-]*)", re.ASCII)
_MOST_XML = 1 << 24
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


class UnreadableError(Exception):
    """A file or line cannot be read. reason: one of few, so that they can be counted. detail: what and where."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@attrs.frozen
class Label:
    """A label fit for a record, or the reason why there is none. changed: it differs from what the source holds."""

    text: str
    problem: str = ""
    changed: bool = False


@lru_cache(maxsize=65536)
def clean_label(raw: str | None) -> Label:
    """Runs of white space and control characters become one blank; quotes and emoji stay as they are."""
    if raw is None:
        return Label("", "no label")
    try:
        raw.encode()
    except UnicodeEncodeError:
        return Label("", "label is no valid Unicode")
    text = " ".join("".join(" " if _is_control(letter) else letter for letter in raw).split())
    if not text:
        return Label("", "empty label")
    if reserved(text):
        return Label("", "label holds a control token of the model; rename the category")
    return Label(text, changed=text != raw)


def _is_control(letter: str) -> bool:
    import unicodedata

    return unicodedata.category(letter) in ("Cc", "Zl", "Zp")


def clean_path(raw: str) -> str:
    """A path as records write it: forward slashes, no "./" in front; of a file:// URL the path."""
    if raw.startswith("file://"):
        # An URL's "/C:/a.jpg" is a path of Windows.
        raw = re.sub("^/(?=[A-Za-z]:)", "", unquote(raw.removeprefix("file://").removeprefix("localhost")))
    path = raw.replace("\\", "/")
    while path.startswith("./"):
        path = path.removeprefix("./").lstrip("/")
    return path


def is_file(path: Path) -> bool:
    """As `Path.is_file`, also of a path that no system takes."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL or half a character in it
        return False


def read_bytes(path: Path) -> bytes:
    """What a file holds, unpacked if it is a gzip file. Raises UnreadableError."""
    try:
        with open_source(path) as file:
            return file.read()
    except OSError as error:
        raise UnreadableError("cannot be opened", (error.strerror or str(error)).lower()) from error


def parse_json(data: bytes, pairs: Callable[[Any], Any] | None = None) -> Any:
    """Any JSON, and NaN or Infinity as Python writes them. Raises UnreadableError.

    pairs: makes an object of its keys and values, which may be there twice.
    """
    try:
        if pairs is None:
            return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # the standard library reads more (NaN, UTF-16, byte order marks), and says where it stops
    try:
        return json.loads(data, object_pairs_hook=pairs)
    except UnicodeDecodeError as error:
        raise UnreadableError("not UTF-8", f"{error.reason} at byte {error.start}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UnreadableError("not JSON", f"{error}; is the file cut off?") from error
    except RecursionError as error:
        raise UnreadableError("not JSON", "nested too deep") from error
    except ValueError as error:  # an integer of more than 4300 digits
        raise UnreadableError("not JSON", str(error)) from error


def structure(data: Any, kind: Any) -> Any:
    """`data` as an instance of the msgspec type `kind`. Raises UnreadableError with the path and what was found."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise UnreadableError(reword(error)) from error
    except UnicodeEncodeError as error:
        raise UnreadableError("text that is no valid Unicode") from error


def loose_structure(data: Any, kind: Any) -> Any:
    """As `structure`, but numbers may be written as text."""
    try:
        return structure(data, kind)
    except UnreadableError:
        try:
            return msgspec.convert(data, kind, strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError):
            pass  # the stricter error says more
        raise


def reword(error: msgspec.MsgspecError) -> str:
    """msgspec's message with the path in front: "bbox: expected array of length 4".

    Without the indices of the path, so that equal mistakes are counted together.
    """
    message = str(error)
    place = _PLACE.search(message)
    text = _PLACE.sub("", message).replace("`", "")
    text = text[:1].lower() + text[1:]
    path = re.sub(r"\[\d+\]", "[...]", place.group(1)) if place else ""
    return f"{path}: {text}" if path else text


def load_whole(path: Path) -> Any:
    """The JSON of a file that must be readable. Raises InputError."""
    try:
        return parse_json(read_bytes(path))
    except UnreadableError as error:
        raise InputError(f"{path}: {error}") from error


def load_unique(path: Path) -> Any:
    """The same of a file in which keys decide labels. Raises InputError also for a key with two values."""
    try:
        return parse_json(read_bytes(path), unique)
    except UnreadableError as error:
        raise InputError(f"{path}: {error}") from error


def unique(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Pairs of a key and its value. Raises UnreadableError for a key with two values: JSON and YAML keep the last."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            seen = " and ".join(shortened(repr(item), 80) for item in (found[key], value))
            raise UnreadableError(f"{key!r} stands there twice, with {seen}; keep the right one")
        found[key] = value
    return found


def count_of(data: bytes, *keys: str) -> int:
    """How many items the list under `keys` has, of a JSON object of no other use, for the account; 0 if unknown."""
    try:
        return count_in(parse_json(data.decode("utf-8", "replace").encode()), *keys)
    except UnreadableError:
        return 0


def count_in(found: Any, *keys: str) -> int:
    """The same of what was read."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return len(found) if isinstance(found, list) else 0


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of a JSONL file without its blank lines. Raises InputError when it cannot be opened."""
    for number, line in all_lines(path):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if text.strip():
            yield number, text


def json_rows(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(where, what gives the row or raises UnreadableError) of a file of JSON lines or of one JSON array.

    Raises InputError when it cannot be opened.
    """
    if path.name.lower().removesuffix(".gz").endswith(".json") or _begins_array(path):
        try:
            content = parse_json(read_bytes(path))
        except UnreadableError:
            content = None  # JSON lines under another name
        if isinstance(content, list):
            yield from ((f"row {index}", partial(lambda row: row, row)) for index, row in enumerate(content))
            return
    yield from ((f"line {number}", partial(parse_json, line)) for number, line in json_lines(path))


def _begins_array(path: Path) -> bool:
    """Whether the first line with anything on it begins a list, which no row is."""
    return next((line.lstrip().startswith(b"[") for _, line in json_lines(path)), False)


def parse_xml(data: bytes) -> Element:
    """The root of an XML document. Raises UnreadableError, also for entities, which can blow up in memory."""
    from defusedxml import ElementTree

    if len(data) > _MOST_XML:
        raise UnreadableError(f"more than {_MOST_XML >> 20} MiB of XML about one image")
    declared = _ENCODING.match(data)
    try:
        # expat knows no encoding of several bytes but Unicode's; of a text it does not look at the declaration.
        text = data.decode(declared.group(1).decode()) if declared else data
        root: Element = ElementTree.fromstring(text)
    except xml_errors() as error:
        raise xml_problem(error) from error
    return root


def xml_errors() -> tuple[type[Exception], ...]:
    """What parsing XML raises. LookupError is an unknown encoding, ValueError one that expat cannot use."""
    from xml.etree.ElementTree import ParseError

    return ParseError, LookupError, ValueError  # defusedxml's refusals are ValueErrors


def xml_problem(error: Exception) -> UnreadableError:
    from defusedxml import DefusedXmlException

    if isinstance(error, DefusedXmlException):
        return UnreadableError("XML with a DTD entity or an external reference is refused", type(error).__name__)
    return UnreadableError("not XML", f"{error}; is the file cut off?")


def number(given: Any) -> Any:
    """The number that a text is, anything else as it is. Raises ValueError for a text that is none."""
    if not isinstance(given, str):
        return given
    if "_" in given:  # Python's own way of writing 1_000
        raise ValueError(given)
    found = float(given)
    return int(found) if found.is_integer() else found


def numbers(text: str) -> list[float] | None:
    """The numbers of a text, separated by white space, commas or semicolons; None when a part is none."""
    try:
        return [float(number(part)) for part in re.split(r"[\s,;]+", text.strip())] if text.strip() else []
    except ValueError:
        return None


def files_below(folder: Path) -> list[Path]:
    """What the folder and those below it hold but for folders, by path. Linked folders count, each folder once.

    Raises InputError for a folder that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {(error.strerror or str(error)).lower()}") from error

    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += (Path(place, name) for name in names if not name.startswith("._"))  # macOS' own
    return sorted(found)


def find_files(source: Path, suffix: str) -> list[Path]:
    """`source` itself if it is a file, else the files of that suffix, in either case, in the folder and below, by path.

    Raises InputError when there are none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder")
    found = [path for path in files_below(source) if path.suffix.lower() == suffix]
    if not found:
        raise InputError(f"{source}: holds no {suffix} files")
    return found
