"""Building one component outside a run, for the checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordcore.components import BuildContext, Component
from coordcore.coords import CoordVocab
from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation
from coordcore.testing.positions import make_vocab


def config_or_default(component: Component, config: Any) -> Any:
    """`config`, or the component's defaults where it is None.

    Raises AssertionError when there are none, or when `config` belongs to another component.
    """
    if config is None:
        try:
            return component.config()
        except TypeError as error:
            raise AssertionError(
                f"{component.name}: its config has required keys; give the check a config ({error})"
            ) from error
    assert isinstance(config, component.config), (
        f"{component.name}: config must be a {component.config.__name__}, got {config!r}"
    )
    return config


def build(
    component: Component,
    config: Any,
    *,
    vocab: CoordVocab | None = None,
    run_dir: Path = Path("run"),
    quantisation: Quantisation = DEFAULT_QUANTISATION,
) -> Any:
    """What the component builds from `config` (its defaults when None), as for one rank of a run with seed 0."""
    vocab = make_vocab() if vocab is None else vocab
    context = BuildContext(run_dir=run_dir, seed=0, quantisation=quantisation, vocab=vocab, coords=vocab.format)
    return component.build(config_or_default(component, config), context)
