"""What the files of a checkpoint that a server has say of it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.errors import InputError
from coordcore.quantisation import Quantisation
from coordcore.records.answers import Format
from coordcore_detection.predict.loading import manifest_of, run_and_folder
from coordcore_train.checkpoint.folder import read_checkpoint_info, read_json
from coordcore_train.checkpoint.image_size import most_pixels


@attrs.frozen(kw_only=True)
class Checkpoint:
    """What the files of the checkpoint that is served say of it.

    ids: of the coord tokens, by bin. max_pixels: to which an image is reduced before it is sent, None where nothing
    limits it. switches: whether its chat template can switch thinking. plain: what a request says so that a server
    takes the most likely token, as this process does, and shows every token of the answer.
    """

    path: Path
    quantisation: Quantisation
    coords: CoordFormat
    ids: Sequence[int]
    format: Format
    max_pixels: int | None
    switches: bool
    plain: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """path: a merged checkpoint folder, or a run that has one. Raises InputError."""
        run, folder = run_and_folder(path)
        info = read_checkpoint_info(folder)
        if info is None:
            raise InputError(
                f"{folder}: has no coordcore.json, which says how a model answers; a server has the merged folder of a "
                "run (`coordcore merge`): name that"
            )
        limits = [most_pixels(folder)] if run is None else [most_pixels(folder), _max_pixels(run)]
        known = [limit for limit in limits if limit is not None]
        templates = [folder / "chat_template.jinja", folder / "tokenizer_config.json", folder / "processor_config.json"]
        coords, form = info.vocab.format if info.vocab else DEFAULT_COORDS, info.format
        return cls(
            path=path,
            quantisation=info.quantisation,
            coords=coords,
            ids=info.vocab.ids if info.vocab else (),
            format=form,
            max_pixels=min(known, default=None),
            switches=any(
                "enable_thinking" in template.read_text("utf-8") for template in templates if template.is_file()
            ),
            plain=_penalties(folder) | _special(folder, "" if form.numbers else coords.written[0], form),
        )

    def require_as(self, root: str, url: str) -> None:
        """Raise InputError where the folder that a server says it serves answers in another way than this checkpoint.

        root: as it says it. One that is not here, or says nothing of its answers, is passed over; so is a path from the
        folder in which a server on another machine was started.
        """
        folder = Path(root)
        if not folder.is_absolute() and urlsplit(url).hostname not in _HERE:
            return
        try:
            info = read_checkpoint_info(folder)
        except (InputError, OSError, ValueError):
            return
        if info is None:
            return
        coords = info.vocab.format if info.vocab else DEFAULT_COORDS
        others = _in_words(info.format, info.quantisation, coords)
        own = _in_words(self.format, self.quantisation, self.coords)
        if differing := [(a, b) for a, b in zip(own, others, strict=True) if a != b]:
            raise InputError(
                f"{self.path}: answers {', '.join(a for a, _ in differing)}, and {url} serves {root}, which answers "
                f"{', '.join(b for _, b in differing)}: name that folder, or serve this one"
            )


_HERE = ("localhost", "127.0.0.1", "::1")


def _in_words(form: Format, quantisation: Quantisation, coords: CoordFormat) -> tuple[str, str, str]:
    """How answers are written; what is different is different in words."""
    return (
        f"in the format {form.name}",
        f"in bins of {quantisation}",
        f"with the coord tokens {coords} in the order {coords.order}",
    )


def _max_pixels(run: Path) -> int | None:
    limit: int | None = manifest_of(run).get("train", {}).get("max_pixels")
    return limit


_PENALTIES = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""What a request says of penalties on tokens that an answer holds already, and when it means none."""


def _penalties(folder: Path) -> dict[str, Any]:
    """Servers take them from the checkpoint, as Qwen2.5-VL's; a box needs the same token as the one before it."""
    file = folder / "generation_config.json"
    given = read_json(file) if file.is_file() else {}
    return {name: none for name, none in _PENALTIES.items() if given.get(name, none) != none}


def _special(folder: Path, coord: str, form: Format) -> dict[str, Any]:
    """Servers leave tokens that the tokenizer calls special out of the text; some formats are made of them."""
    file = folder / "tokenizer.json"
    tokens = read_json(file).get("added_tokens", []) if file.is_file() else []
    special = [token["content"] for token in tokens if token.get("special")]
    shown = any(token == coord or token in form.literals for token in special)
    return {"skip_special_tokens": False} if shown else {}
