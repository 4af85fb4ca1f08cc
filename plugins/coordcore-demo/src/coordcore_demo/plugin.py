"""The hook: the data component `shapes`. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext, Component, Problem, hookimpl
from coordcore.assemble import answer_format
from coordcore.components import LENGTHS, PLAIN_NUMBERS
from coordcore_demo.config import ShapesConfig

if TYPE_CHECKING:
    from coordcore.manifest import Manifest
    from coordcore_demo.data import Shapes


def _build(config: ShapesConfig, context: BuildContext) -> Shapes:
    from coordcore_demo.data import Shapes

    return Shapes(config=config, quantisation=context.quantisation, form=context.format)


def _check(config: ShapesConfig, run: Manifest) -> Iterable[Problem]:
    form = answer_format(run)
    if not config.coord_tokens and (form.again == "" or not form.json):
        message = f"false, and the format {form.name} is read with coord tokens only; leave [format] out"
        yield Problem(path="data.shapes.coord_tokens", message=message)


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name="shapes",
            config=ShapesConfig,
            build=_build,
            check=_check,
            summary="drawn squares, rings and crosses with their exact boxes",
            provides=lambda config: [LENGTHS, COORD_TOKENS if config.coord_tokens else PLAIN_NUMBERS],
            requires=lambda config: [COORD_SUPERVISION] if config.coord_tokens else [],
        )
    ]
