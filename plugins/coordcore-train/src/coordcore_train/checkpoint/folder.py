"""A checkpoint folder without its weights: reading and copying its files. Torch-free."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec

from coordcore.coords import DEFAULT_COORDS, PRESETS, CoordFormat, CoordVocab
from coordcore.errors import InputError
from coordcore.files import require_regular
from coordcore.manifest.sections import Coords
from coordcore.manifest.types import show
from coordcore.quantisation import Quantisation
from coordcore.records.answers import COORDJSON, Format
from coordcore_train.chat import Question

INFO_FILE = "coordcore.json"
"""The file in a checkpoint folder that says how its coord tokens are meant."""

INFO_FORMAT = 1

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it cannot decode."""

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".index.json")


@attrs.frozen(kw_only=True)
class CheckpointInfo:
    """What `coordcore.json` of an expanded or merged checkpoint holds.

    vocab: None where answers hold plain numbers. parallel_boxes: whether it has learned to say the corners of a box
    together (`coordcore_train.hidden`).
    """

    quantisation: Quantisation
    vocab: CoordVocab | None
    format: Format = COORDJSON
    question: Question | None = None
    parallel_boxes: bool = False
    coordcore_version: str


def read_checkpoint_info(folder: Path) -> CheckpointInfo | None:
    """What `coordcore.json` in `folder` says, None when there is no such file. Raises InputError when it is damaged."""
    path = Path(folder) / INFO_FILE
    if not path.exists():
        return None
    data = read_json(path)
    if data.get("format") != INFO_FORMAT:
        raise InputError(
            f"{path}: format {data.get('format')!r} is not {INFO_FORMAT}; use the coordcore version that wrote it "
            f"({data.get('coordcore_version')})"
        )
    ids, version = data.get("coord_ids"), data.get("coordcore_version")
    if not isinstance(ids, list) or not all(type(id_) is int for id_ in ids) or not isinstance(version, str):
        raise InputError(f"{path}: needs coord_ids (integers) and coordcore_version; write the checkpoint anew")
    try:
        coords = CoordFormat(**data.get("coords", {}))  # not written before there were others
        vocab = CoordVocab(ids=tuple(ids), format=coords) if ids else None
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: coords, coord_ids: {error.args[0]}; write the checkpoint anew") from error
    spec = Quantisation.from_dict(data.get("quantisation", {}), source=f"{path}: quantisation")
    form = Format.from_dict(data["answers"], source=f"{path}: answers") if "answers" in data else COORDJSON
    question, parallel = data.get("question"), data.get("parallel_boxes", False)
    if not isinstance(parallel, bool):
        told = f"must be true or false, got {show(parallel)}"
        raise InputError(f"{path}: parallel_boxes: {told}; write the checkpoint anew")
    try:
        asked = None if question is None else Question(**question)
    except TypeError as error:
        raise InputError(f"{path}: question: {error}; write the checkpoint anew") from error
    return CheckpointInfo(
        quantisation=spec,
        vocab=vocab,
        format=form,
        question=asked,
        parallel_boxes=parallel,
        coordcore_version=version,
    )


def write_checkpoint_info(
    folder: Path,
    *,
    quantisation: Quantisation,
    vocab: CoordVocab | None,
    form: Format = COORDJSON,
    question: Question | None = None,
    parallel_boxes: bool = False,
    trusted: bool = False,
) -> None:
    """Write `coordcore.json` into the checkpoint `folder`.

    vocab: None for a checkpoint that answers in plain numbers. question: that every example of its training asked.
    parallel_boxes: as `CheckpointInfo` has it. trusted: whether it was made with Python from its base.
    """
    from coordcore import __version__

    data: dict[str, Any] = {
        "format": INFO_FORMAT,
        "coordcore_version": __version__,
        "quantisation": quantisation.as_dict(),
        **({"coords": attrs.asdict(vocab.format)} if vocab is not None else {}),
        "coord_ids": list(vocab.ids) if vocab is not None else [],
        **({"answers": form.as_dict()} if form is not COORDJSON else {}),
        **({"question": question.as_dict()} if question is not None else {}),
        **({"parallel_boxes": True} if parallel_boxes else {}),
        **({"trust_remote_code": True} if trusted else {}),
    }
    (Path(folder) / INFO_FILE).write_text(json.dumps(data) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises InputError naming the file."""
    try:
        require_regular(path)
        data = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; is {path.parent} a checkpoint folder?") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except NOT_JSON as error:
        raise InputError(f"{path}: not readable as JSON: {error}; download or write it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(data).__name__}")
    return data


def _unreadable(path: Path, error: OSError) -> InputError:
    reason = (error.strerror or str(error)).lower()
    return InputError(f"{path}: cannot be read: {reason}; download or write it again")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file as checkpoints have them: indented, any script as it is."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n")


class _AddedToken(msgspec.Struct):
    id: int
    content: str


class _Tokenizer(msgspec.Struct):
    added_tokens: list[_AddedToken]


def read_added_tokens(folder: Path) -> dict[str, int]:
    """Token -> id of the tokens added to the tokenizer in `folder`, which it keeps whole wherever they stand.

    Reads `tokenizer.json`, else `added_tokens.json`. Raises InputError when neither is there or readable.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        path = path.with_name("added_tokens.json")
    try:
        require_regular(path)
        # Typed decoding skips the vocabulary and the merges: 10 MB in a real tokenizer.json.
        if path.name == "tokenizer.json":
            tokenizer = msgspec.json.decode(path.read_bytes(), type=_Tokenizer)
            return {token.content: token.id for token in tokenizer.added_tokens}
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no tokenizer.json; is this a checkpoint folder?") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except NOT_JSON as error:
        raise InputError(f"{path}: not a tokenizer file: {error}; download or save it again") from error


def read_vocab(folder: Path, coords: CoordFormat | None = None) -> CoordVocab:
    """The coord tokens of a checkpoint folder, from its files alone: neither transformers nor torch is imported.

    Reads the added tokens of `tokenizer.json` (else `added_tokens.json`) and the vocabulary size of `config.json`.
    coords: what they must be; those that `coordcore.json` names, else the default, when absent.
    Raises as `CoordVocab.from_tokenizer`, and InputError when those files are missing or not readable, or
    `coordcore.json` names other tokens or ids, or the tokenizer has coord tokens beyond the last bin.
    """
    known = read_added_tokens(folder)
    coords = require_ids(folder, known, coords)
    if (beyond := coords.tokens.format(coords.bins)) in known:
        raise InputError(
            f"{folder}: the tokenizer has {beyond} as well, and coords.bins is {coords.bins}; "
            "set [coords] bins to the number of its coord tokens"
        )
    return CoordVocab.checked(known, f"{folder}: the tokenizer", coords, config_vocab_size=read_vocab_size(folder))


def require_same_coords(a: CoordFormat, b: CoordFormat, what_a: str, what_b: str) -> None:
    """Raise InputError unless `a` and `b` are the same; the message names both owners."""
    if a != b:
        cure = "use the tokens of the checkpoint throughout ([coords] tokens, bins, order)"
        raise InputError(f"{what_a} has the coord tokens {a}, {what_b} {b}; {cure}")


def own_tokens(folder: Path) -> list[str]:
    """What `[coords] tokens` calls the coord tokens that the tokenizer in `folder` has: presets, and the default."""
    known = read_added_tokens(folder).keys()
    named = {name: coords for name, (coords, _) in PRESETS.items()} | {DEFAULT_COORDS.tokens: DEFAULT_COORDS}
    return [name for name, coords in named.items() if known >= coords.bin_of.keys()]


def order_fault(coords: Coords) -> str | None:
    """What is wrong with the order of x and y in `[coords]`: a preset's tokens written out by hand do not say theirs,
    and a preset has no other than its own.
    """
    name = next((name for name, (preset, _) in PRESETS.items() if coords.tokens in (name, preset.tokens)), None)
    if name is None:
        return None
    preset, spec = PRESETS[name]
    has = f"{preset.order[0]} first"
    if coords.tokens == name:
        wrong = coords.order not in (None, preset.order)
        return (
            f"{name} has {has}; leave coords.order out, or write the tokens out: {preset.tokens!r}" if wrong else None
        )
    if coords.order is not None:
        return None
    return (
        f"{coords.tokens!r} are the tokens of {name}, which has {has} and {spec.format(last=preset.bins - 1)}; "
        f'write tokens = "{name}", or say coords.order, "xy" or "yx"'
    )


def preset_hint(folder: Path) -> str:
    """The end of a message about missing coord tokens: which others the tokenizer in `folder` has, if any."""
    return "".join(f'; it has its own: set [coords] tokens = "{name}"' for name in own_tokens(folder))


def require_ids(folder: Path, known: Mapping[str, int], coords: CoordFormat | None = None) -> CoordFormat:
    """The coord tokens that `coordcore.json` in `folder` names, else `coords` or the default.

    known: token -> id in its tokenizer. Raises InputError when `coordcore.json` names other ids, or other tokens than
    `coords`.
    """
    info = read_checkpoint_info(folder)
    if info is None or info.vocab is None:
        return coords or DEFAULT_COORDS
    said = info.vocab.format
    require_same_coords(said, coords or said, str(folder), "this run")
    for token, token_id in zip(said.written, info.vocab.ids, strict=True):
        if known.get(token) != token_id:
            found = f"has {known[token]}" if token in known else "has no such token"
            raise InputError(
                f"{folder / INFO_FILE}: coord_ids says that {token} is {token_id}, and the tokenizer beside it "
                f"{found}; the files are not of one checkpoint: expand, or merge, or copy it again"
            )
    return said


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a `config.json` that describes the language model: `text_config`, else the whole."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def read_vocab_size(folder: Path) -> int | None:
    """`vocab_size` of the language model in `config.json`, None when the file leaves it to the default."""
    path = Path(folder) / "config.json"
    size = text_config(read_json(path)).get("vocab_size")
    if size is not None and type(size) is not int:
        raise InputError(f"{path}: vocab_size must be an integer, got {size!r}")
    return size


def copy_files(base: Path, folder: Path) -> None:
    """Copy what belongs to the checkpoint `base` beside its weights into `folder`, subfolders included.

    That is tokenizer, processor, chat templates, settings and licences: not hidden entries, not weights of any format
    (they would be stale beside the new ones), not links to nothing, and nothing that `folder` has already.
    """
    for root, subfolders, files in os.walk(base, followlinks=True):
        # Neither up a link to where it stands, nor into what is being written.
        places = (Path(root).resolve(), folder.resolve())
        subfolders[:] = [
            name
            for name in sorted(subfolders)
            if not name.startswith(".")
            and not any(place.is_relative_to(Path(root, name).resolve()) for place in places)
        ]
        for name in sorted(files):
            file = Path(root, name)
            target = folder / file.relative_to(base)
            belongs = not name.startswith(".") and not name.endswith(WEIGHT_SUFFIXES) and file.is_file()
            if belongs and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                # Not its mode: a model store's files may be read-only, and some of the copies are edited.
                shutil.copyfile(file, target)
