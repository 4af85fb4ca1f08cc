"""The hook: the data component `shapes`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext, Component, hookimpl
from coordcore_demo.config import ShapesConfig

if TYPE_CHECKING:
    from coordcore_demo.data import Shapes


def _build(config: ShapesConfig, context: BuildContext) -> Shapes:
    from coordcore_demo.data import Shapes

    return Shapes(config=config, quantisation=context.quantisation, form=context.format)


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name="shapes",
            config=ShapesConfig,
            build=_build,
            summary="drawn squares, rings and crosses with their exact boxes",
            provides=lambda config: [COORD_TOKENS] if config.coord_tokens else [],
            requires=lambda config: [COORD_SUPERVISION] if config.coord_tokens else [],
        )
    ]
