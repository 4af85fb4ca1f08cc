"""Builds the components a manifest selects. Imports torch only where a component does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.components import BuildContext, Selected
from coordcore.errors import InputError
from coordcore.kinds import FORMAT, Kind
from coordcore.manifest.sections import Manifest
from coordcore.quantisation import quantisation

if TYPE_CHECKING:
    from coordcore.records.answers import Format


def answer_format(manifest: Manifest) -> Format:
    """How the answers of a run are written, for one who builds nothing else. Raises InputError as `Assembly.build`."""
    context = BuildContext(
        run_dir=Path(),
        seed=manifest.train.seed,
        quantisation=quantisation(manifest.coords.quantisation),
        vocab=None,
        coords=manifest.coords.format,
    )
    for chosen in manifest.of(FORMAT):
        form: Format = Assembly(manifest=manifest, context=context).build(chosen)
        try:
            form.require()
        except (ValueError, AttributeError) as error:
            whose = f"tell the authors of {chosen.distribution}"
            raise InputError(f"{chosen.path}: is no answer format: {error}; {whose}") from error
        return form
    return context.format


@attrs.frozen(kw_only=True, slots=False)
class Assembly:
    """The components of a manifest, each built once, when it is first asked for.

    A component that nobody asks for is not built: merging needs neither the data builder nor its files.
    """

    manifest: Manifest
    context: BuildContext
    _built: dict[str, Any] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def build(self, selected: Selected) -> Any:
        """What a component builds. Raises InputError, with the section's path, for what it refuses."""
        if selected.path not in self._built:
            try:
                self._built[selected.path] = selected.component.build(selected.config, self.context)
            except InputError as error:
                raise InputError(f"{selected.path}: {error}") from error
        return self._built[selected.path]

    def all(self, kind: Kind) -> tuple[Any, ...]:
        """What the components of one kind build, in manifest order."""
        return tuple(self.build(selected) for selected in self.manifest.of(kind))

    def one(self, kind: Kind) -> Any:
        """What the one component of a kind builds."""
        (built,) = self.all(kind)
        return built
