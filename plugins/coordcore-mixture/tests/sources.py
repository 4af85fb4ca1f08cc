"""Mixtures from plain tables, as a manifest gives them, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordcore import BuildContext
from coordcore.manifest.read import Document, Origin
from coordcore.manifest.structure import Structurer
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_mixture import MixtureConfig
from coordcore_mixture.data import Mixture


def structured(sources: Any) -> tuple[Any, list[str]]:
    """The config of a mixture of `sources`, and what is wrong with it."""
    data = {"sources": sources}
    structurer = Structurer(Document(data=data, origins={(): Origin("m.toml", None, Path("/runs"))}))
    config = structurer.structure((), data, MixtureConfig)
    return config, [str(problem).removeprefix("m.toml: ") for problem in structurer.problems]


def boxes(train: int = 8, validation: int = 2, **keys: Any) -> dict[str, Any]:
    """A source of the kit's pictures."""
    return {"builder": "tiny_boxes", "settings": {"train": train, "validation": validation}, **keys}


def config(**sources: Any) -> MixtureConfig:
    """A mixture that is right."""
    found, problems = structured(sources)
    assert problems == []
    return found


def opened(seed: int = 0, **sources: Any) -> Mixture:
    """What a run builds from a mixture."""
    context = BuildContext(run_dir=Path("run"), seed=seed, quantisation=DEFAULT_QUANTISATION, vocab=None)
    return Mixture.open(config(**sources), context)
