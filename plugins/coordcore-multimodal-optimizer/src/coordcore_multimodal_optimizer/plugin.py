"""The `multimodal_coord_offset` optimizer as coordcore sees it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from coordcore import BuildContext, Component, Problem, hookimpl
from coordcore.manifest import Manifest
from coordcore_multimodal_optimizer.config import NAME, MultimodalOptimizerConfig

if TYPE_CHECKING:
    from coordcore_multimodal_optimizer.groups import MultimodalOptimizer


def _build(config: MultimodalOptimizerConfig, _context: BuildContext) -> MultimodalOptimizer:
    from coordcore_multimodal_optimizer.groups import MultimodalOptimizer

    return MultimodalOptimizer(config)


def _check(config: MultimodalOptimizerConfig, run: Manifest) -> Iterator[Problem]:
    """A learning rate for a part that `[tuner]` keeps frozen would be dropped without a word."""
    for part in ("vision", "aligner"):
        lr = config.of(part).lr
        if lr is not None and getattr(run.tuner, f"freeze_{part}"):
            yield Problem(
                path=f"optimizer.{NAME}.{part}_lr",
                message=f"{lr:g} would train nothing: tuner.freeze_{part} is true; set that to false or drop this",
            )


@hookimpl
def coordcore_optimizers() -> Iterable[Component]:
    return [
        Component(
            name=NAME,
            config=MultimodalOptimizerConfig,
            build=_build,
            check=_check,
            summary="learning rate and weight decay for vision tower, aligner, language model, offsets and other tags",
        )
    ]
