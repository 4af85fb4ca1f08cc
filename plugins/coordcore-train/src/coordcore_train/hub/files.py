"""Which files of a merged folder go to a hub: none that training left, none that names this machine. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec

from coordcore.errors import InputError
from coordcore_train.checkpoint.folder import NOT_JSON, WEIGHT_SUFFIXES
from coordcore_train.checkpoint.tensorfile import metadata_of
from coordcore_train.checkpoint.weights import stored_tensors
from coordcore_train.hub.paths import name_of, path_in_text, paths_in, texts_in

CARD = "README.md"

_LEFT_BY_TRAINING = re.compile(
    r"optimizer.*|scheduler\.pt|scaler\.pt|rng_state.*|training_args\.bin|trainer_state\.json|(additional_config|args)\.json"
    r"|state\.json|coordcore_checkpoint\.json|manifest\.resolved\.toml|swift_plugin\.py|adapter_.*"
    r"|.*\.(log|jsonl|npz|tmp|lock|swp)|.*\.tfevents\..*|logs|runs|wandb|mlruns|eval|checkpoints|__pycache__"
)
"""Names of files and folders that are no part of a checkpoint that others load."""

_VOCABULARY = ("tokenizer.json", "vocab.json", "added_tokens.json", "merges.txt")
"""Files that hold any piece of text as a token, paths among them."""

_HEAD = 8192  # bytes in which a file that is no text has a zero

_ORIGIN = ("_name_or_path", "name_or_path")
"""Keys by which transformers says where it loaded from; nothing reads them."""


@attrs.frozen(kw_only=True)
class Upload:
    """A file that goes up. name: in the repository. content: what goes up instead of what is in the file, if it is."""

    name: str
    file: Path
    content: bytes | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.stat().st_size if self.content is None else len(self.content)


@attrs.frozen(kw_only=True)
class Files:
    """uploads: by name. left: names of what stays here. mended: "config.json: _name_or_path" that goes up as a name."""

    uploads: list[Upload]
    left: list[str]
    mended: list[str]


def files_of(folder: Path, known: tuple[str, ...], card: str | None) -> Files:
    """What of the merged checkpoint in `folder` goes up.

    known: folders of this machine that no file may name. card: goes up as README.md; None for the one that lies there.
    Raises InputError for weights that are not whole, and for a file that names a path of this machine, but where it
    only says from where it was loaded: that goes up as a name.
    """
    stored_tensors(folder)
    uploads: list[Upload] = []
    left: list[str] = []
    mended: list[str] = []
    for name, file in _files(folder, left):
        content = None
        if name == CARD and card is not None:
            continue
        if not is_weights(name) or file.suffix == ".json":
            content = _cleaned(file, name, known, mended)
        elif file.suffix == ".safetensors":
            for key, path in paths_in(metadata_of(file) or {}):
                raise InputError(f"{file}: its metadata says {key} = {path!r}, a path of this machine; write it anew")
        uploads.append(Upload(name=name, file=file, content=content))
    if card is not None:
        if (place := path_in_text(card, known)) is not None:
            raise InputError(
                f"{folder / CARD}: would name {place}, a path of this machine, as the head of the card that is there, "
                "the run's manifest.resolved.toml or coordcore.json does; take it out there"
            )
        uploads.append(Upload(name=CARD, file=folder / CARD, content=card.encode()))
    return Files(uploads=uploads, left=left, mended=mended)


def is_weights(name: str) -> bool:
    """Whether a file of that name holds weights, or says which files do."""
    return name.endswith(WEIGHT_SUFFIXES)


def _files(folder: Path, left: list[str]) -> Iterator[tuple[str, Path]]:
    """The files to look at by name, and into `left` the names of the others."""
    for root, subfolders, names in os.walk(folder):
        here = Path(root)
        left += [(here / name).relative_to(folder).as_posix() for name in sorted([*subfolders, *names]) if _stays(name)]
        for name in subfolders:
            if not _stays(name) and (here / name).is_symlink():
                raise InputError(f"{here / name}: is a link to a folder; put the folder itself there, or remove it")
        subfolders[:] = [name for name in sorted(subfolders) if not _stays(name)]
        for name in sorted(name for name in names if not _stays(name)):
            file = here / name
            if not file.is_file():
                raise InputError(f"{file}: is no file, or a link to nothing; remove it")
            yield file.relative_to(folder).as_posix(), file


def _stays(name: str) -> bool:
    return name.startswith(".") or _LEFT_BY_TRAINING.fullmatch(name) is not None


def _cleaned(file: Path, name: str, known: tuple[str, ...], mended: list[str]) -> bytes | None:
    """The content of a text file where it must differ from what lies here, else None."""
    if file.name in _VOCABULARY:
        return None
    content, cleaned = file.read_bytes(), None
    if file.suffix.lower() == ".json":
        try:
            document = msgspec.json.decode(content)
        except NOT_JSON as error:
            raise InputError(f"{file}: not readable as JSON: {error}; mend it, or write it again") from error
        found = list(paths_in(document))
        for key, path in found:
            if key.rpartition(".")[2] not in _ORIGIN:
                raise InputError(f"{file}: {key} is {path!r}, a path of this machine; remove it, or put a name there")
            mended.append(f"{name}: {key}")
        if found:
            document = _named(document)
            cleaned = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        text = "\n".join(texts_in(document))  # without escapes, behind which a path would not be seen
    elif b"\0" in content[:_HEAD]:
        return None
    else:
        text = content.decode("utf-8", "replace")
    if (place := path_in_text(text, known)) is not None:
        raise InputError(f"{file}: names {place}, a path of this machine; take it out")
    return cleaned


def _named(document: Any) -> Any:
    """A JSON document in which each origin is a name."""
    if isinstance(document, dict):
        return {
            key: name_of(item) if key in _ORIGIN and isinstance(item, str) else _named(item)
            for key, item in document.items()
        }
    return [_named(item) for item in document] if isinstance(document, list) else document
