"""Arguments and choices that several commands offer, plugins' among them. Torch-free."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class SpaceName(StrEnum):
    """What the numbers of the records are."""

    BIN = "bin"
    PIXEL = "pixel"
    NORM1 = "norm1"


ManifestFile = Annotated[Path, typer.Argument(metavar="MANIFEST", help="The TOML file to read.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. train.steps=10. May be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies in the output folder.")]
