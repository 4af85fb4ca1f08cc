"""What a plugin offers: components, the options they read, and what they are built with. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.coords import DEFAULT_COORDS, CoordFormat, CoordVocab
from coordcore.errors import Problem
from coordcore.kinds import Kind

if TYPE_CHECKING:
    from coordcore.manifest.sections import Manifest
    from coordcore.quantisation import Quantisation
    from coordcore.records.answers import Format

COORD_TOKENS = "coord-tokens"
"""Capability: the examples of this run contain coord tokens (said by a data builder)."""

PLAIN_NUMBERS = "plain-numbers"
"""Capability: the answers of this run hold numbers in place of coord tokens (said by a data builder)."""

COORD_SUPERVISION = "coord-supervision"
"""Capability: coord positions are supervised (said by a loss; needed by a builder that emits coord tokens)."""

LENGTHS = "lengths"
"""Capability: training examples tell how long they are before they are made (said by a data builder)."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def option(
    *,
    help: str,  # noqa: A002 - the word users know from every command-line library
    default: Any = attrs.NOTHING,
    factory: Callable[[], Any] | None = None,
    validator: Any = None,
    exists: bool = False,
    before: Any = attrs.NOTHING,
) -> Any:
    """Declare one manifest key on a component's config class.

    `help` is what `coordcore schema` prints. A `validator` is an ordinary attrs validator; its message reaches the
    user with the file, the line and the dotted path in front. `exists` is for `Path` fields: `coordcore check` then
    reports a missing file. Relative paths are relative to the manifest that holds them. `before` is for a key of a
    section that was published without it: the value that says what was done before. At it the key changes no
    fingerprint, and runs that began without the key continue.
    """
    if factory is not None:
        default = attrs.Factory(factory)
    return attrs.field(
        default=default, validator=validator, metadata={"help": help, "exists": exists, "before": before}
    )


def _coordjson() -> Format:
    from coordcore.records.answers import COORDJSON  # msgspec, which a plain import does without

    return COORDJSON


@attrs.frozen(kw_only=True)
class BuildContext:
    """What `Component.build` may know about the run besides its own config.

    `vocab` is None only when the base checkpoint has no coord tokens, which the guard allows only for a run whose
    data builder emits none. `coords` is how answers write coordinates, `vocab.format` where there is one; `format` how
    they are written, `coordcore.records.answers.COORDJSON` where the run names no other.
    """

    run_dir: Path
    seed: int
    quantisation: Quantisation
    vocab: CoordVocab | None
    coords: CoordFormat = DEFAULT_COORDS
    format: Format = attrs.field(factory=_coordjson)
    rank: int = 0
    world_size: int = 1


def nothing(_config: Any) -> Iterable[str]:
    """The default of `provides`, `requires` and `claims`: no capability, no module."""
    return ()


def no_soft_target(_config: Any) -> float | None:
    """The default of `soft_target`."""
    return None


def no_problem(_config: Any, _run: Manifest) -> Iterable[Problem]:
    """The default of `check`."""
    return ()


def _is_config_class(instance: Component, _attribute: Any, cls: Any) -> None:
    cure = "declare it with @attrs.frozen(kw_only=True)"
    if not (isinstance(cls, type) and attrs.has(cls)):
        raise TypeError(f"component {instance.name!r}: config must be an attrs class, got {cls!r}; {cure}")
    if positional := [field.name for field in attrs.fields(cls) if field.init and not field.kw_only]:
        takes = f"config class {cls.__name__} takes {', '.join(positional)} by position"
        raise TypeError(f"component {instance.name!r}: {takes}; {cure}")


def _is_text(_instance: Any, attribute: Any, text: Any) -> None:
    if not isinstance(text, str) or not text.isprintable():
        raise ValueError(f"{attribute.name} must be one line of printable text, got {text!r}")


def _is_units(_instance: Any, _attribute: Any, units: Any) -> None:
    if not isinstance(units, Mapping):
        raise TypeError(f"units must be a mapping of part to unit, got {units!r}")
    for part, unit in units.items():
        _is_text(None, attrs.fields(Component).units, part)
        _is_text(None, attrs.fields(Component).units, unit)


def _is_function(_instance: Any, attribute: Any, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{attribute.name} must be a function, got {function!r}")


def _is_name(_instance: Any, _attribute: Any, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "lower-case letters, digits and underscores, starting with a letter"
        raise ValueError(f"a name must be {rule}, got {name!r}")


@attrs.frozen(kw_only=True)
class Component:
    """One thing a manifest can name: `[loss.coord_soft_ce_w1]` selects the loss component of that name.

    name: the manifest key, lower-case with underscores, unique within its kind over all installed plugins.
    config: a frozen, keyword-only attrs class. It lives in a module that does not import torch.
    build: `build(config, context)` returns what `coordcore.protocols` says for the kind. Import torch inside it.
    summary: one line for `coordcore plugins`.
    provides, requires: capabilities, from the config. Every required one must be provided by some component of the
        run: cross-plugin rules speak of capabilities, never of another plugin's name.
    claims: dotted names of the modules a surgery changes ("embed_tokens", "lm_head"). No module has two claimants.
    check: `check(config, run)` reports what this component's section alone cannot show to be wrong, from the structured
        manifest `run`. Called by `coordcore check` and at the start of a run that names the component; must not import
        torch or read weights.
    units: of a loss, what its logged parts are counted in, by name: {"w1": "share of the bin range"}. For the axes of
        plots; a part without one is labelled with its name.
    soft_target: of a loss that trains coord positions on a Gaussian around the target, its standard deviation in bins,
        from the config; None for any other. For plots of what the model weighed beside what it was trained on.

    Raises ValueError for a bad name or text, TypeError for a config that is not a keyword-only attrs class, for what
    is no function and for units that are no mapping.
    """

    name: str = attrs.field(validator=_is_name)
    config: type[Any] = attrs.field(validator=_is_config_class)
    build: Callable[[Any, BuildContext], Any] = attrs.field(validator=_is_function)
    summary: str = attrs.field(validator=_is_text)
    provides: Callable[[Any], Iterable[str]] = attrs.field(default=nothing, validator=_is_function)
    requires: Callable[[Any], Iterable[str]] = attrs.field(default=nothing, validator=_is_function)
    claims: Callable[[Any], Iterable[str]] = attrs.field(default=nothing, validator=_is_function)
    check: Callable[[Any, Manifest], Iterable[Problem]] = attrs.field(default=no_problem, validator=_is_function)
    units: Mapping[str, str] = attrs.field(factory=dict, validator=_is_units)
    soft_target: Callable[[Any], float | None] = attrs.field(default=no_soft_target, validator=_is_function)


@attrs.frozen(kw_only=True)
class Command:
    """A command that a plugin adds to the `coordcore` command line.

    name: lower-case with underscores, unique over coordcore's own commands and all installed plugins.
    load: returns a function with Typer's annotated parameters, or a `typer.Typer` of subcommands. Called when the
        command is used or its help is shown; import torch inside the function only. An InputError or RunError that the
        function raises becomes a message and exit code 2 or 1.
    summary: one line for `coordcore --help`.

    Raises ValueError for a bad name.
    """

    name: str = attrs.field(validator=_is_name)
    load: Callable[[], Any]
    summary: str = attrs.field(validator=_is_text)


@attrs.frozen(kw_only=True)
class Selected:
    """A component the manifest names, with its structured config and the distribution that offers it.

    provides, requires, claims: what the component's functions of these names said of the config.
    """

    kind: Kind
    component: Component
    config: Any
    distribution: str
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()

    @classmethod
    def asked(cls, kind: Kind, component: Component, config: Any, distribution: str) -> Selected:
        """What the component says of `config`, asked once. Raises TypeError, or what the component raises."""
        said = {}
        for question in ("provides", "requires", "claims"):
            answer = getattr(component, question)(config)
            listed = isinstance(answer, Iterable) and not isinstance(answer, str)
            said[question] = tuple(answer) if listed else ()
            if not listed or not all(isinstance(item, str) for item in said[question]):
                raise TypeError(f"{question} must return an iterable of strings, got {answer!r}")
        return cls(kind=kind, component=component, config=config, distribution=distribution, **said)

    @property
    def path(self) -> str:
        """The dotted manifest path, "loss.coord_soft_ce_w1"."""
        return f"{self.kind}.{self.component.name}"
