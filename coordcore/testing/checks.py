"""The checks of every kind of component: plain functions `check_<what>(component, config=None)`.

A check returns None when the component keeps its promise, and raises AssertionError with what it found and the cure
when it does not. `config` is an instance of the component's config class; its defaults when None.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import pluggy

from coordcore import hookspecs
from coordcore.components import Component
from coordcore.discovery import discover
from coordcore.kinds import KINDS, Kind
from coordcore.testing.building import build, config_or_default
from coordcore.testing.missing import needs_train

Check = Callable[..., None]


def check_config(component: Component, config: Any = None) -> None:
    """The config class is frozen, every key has a help text, and the config is one of this class."""
    cls = type(config_or_default(component, config))
    # attrs marks a frozen class by its __setattr__.
    frozen = getattr(cls, "__setattr__", None) is attrs.make_class("Frozen", [], frozen=True).__setattr__
    assert frozen, f"{cls.__name__} can be changed after it was made; declare it with @attrs.frozen(kw_only=True)"
    silent = [field.name for field in attrs.fields(cls) if field.init and not field.metadata.get("help")]
    assert not silent, (
        f"{cls.__name__}: {', '.join(silent)} has no help; declare it with coordcore.option(help=...), "
        "which `coordcore schema` prints"
    )


def check_config_survives_a_manifest(component: Component, config: Any = None) -> None:
    """Written out as TOML and read back, the config is the same: a finished run can be loaded again."""
    import tomli
    import tomli_w

    from coordcore.manifest.read import Document, Origin
    from coordcore.manifest.structure import Structurer
    from coordcore.manifest.types import plain

    config = config_or_default(component, config)
    attrs.resolve_types(component.config)
    document = tomli.loads(tomli_w.dumps(plain(config)))
    structurer = Structurer(Document(data=document, origins={(): Origin("config", None, Path.cwd())}))
    read = structurer.structure((), document, component.config)
    assert not structurer.problems, "; ".join(str(problem) for problem in structurer.problems)
    assert read == config, f"a manifest gives back {read!r} for {config!r}"


def check_summary(component: Component, config: Any = None) -> None:
    """The summary is one line of text for `coordcore plugins`."""
    summary = component.summary
    assert len(summary.strip().splitlines()) == 1, f"summary must be one line of text, got {summary!r}"


def check_capabilities(component: Component, config: Any = None) -> None:
    """`provides`, `requires` and `claims` answer with several strings, the same at every call."""
    config = config_or_default(component, config)
    for name in ("provides", "requires", "claims"):
        answer = getattr(component, name)
        found = answer(config)
        assert not isinstance(found, str), f"{name} returned the string {found!r}; return a list: [{found!r}]"
        found = list(found)
        assert all(isinstance(item, str) for item in found), f"{name} must hold strings, got {found!r}"
        assert found == list(answer(config)), f"{name} answers differently at the second call"


def check_found_by_name(component: Component, config: Any = None) -> None:
    """The installed plugins offer this component under its name."""
    plugins = discover()
    offered = {(kind, item.name): item for info in plugins.infos for kind, item in info.components}
    failed = [f"{info.distribution}: {info.reason}" for info in plugins.infos if info.status != "ready"]
    same = [item for (_, name), item in offered.items() if name == component.name and item.config is component.config]
    assert same, (
        f"no installed distribution offers {component.name!r}; give pyproject.toml an entry point in the group "
        f"{hookspecs.GROUP} and install again" + ("; not loaded: " + "; ".join(failed) if failed else "")
    )
    conflicts = [str(conflict) for conflict in plugins.conflicts if conflict.name == component.name]
    assert not conflicts, "; ".join(conflicts)


def check_imports_no_torch(component: Component, config: Any = None) -> None:
    """The module of the config class imports neither torch nor what needs it, so that `coordcore check` is quick."""
    module = component.config.__module__
    code = f"import sys, {module}; print([one for one in ('torch', 'transformers', 'swift') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} cannot be imported by itself: {done.stderr}"
    assert done.stdout == "[]\n", f"importing {module} imports {done.stdout.strip()}; import them inside build"


@needs_train()
def check_build(component: Component, config: Any = None) -> None:
    """`build` accepts the config, and gives something."""
    built = build(component, config)
    assert built is not None, "build returned None; return what coordcore.protocols says for this kind"


COMMON: tuple[Check, ...] = (
    check_config,
    check_config_survives_a_manifest,
    check_summary,
    check_capabilities,
    check_found_by_name,
    check_imports_no_torch,
    check_build,
)


def checks_for(kind: Kind | str) -> tuple[Check, ...]:
    """Every check of one kind of component: those that hold for all kinds first. Raises KeyError for no kind."""
    row = {str(item): item for item in KINDS}[kind] if not isinstance(kind, Kind) else kind
    of_kind: tuple[Check, ...] = import_module(f"coordcore.testing.{row}_checks").CHECKS if row.kit else ()
    return COMMON + tuple(needs_train()(check) for check in of_kind)


def components_of(plugin: Any) -> list[tuple[Kind, Component]]:
    """What a plugin module's hooks offer, with the kind of each. Raises ValueError when it offers nothing."""
    manager = pluggy.PluginManager("coordcore")
    manager.add_hookspecs(hookspecs.hooks())  # type: ignore[arg-type]  # as in coordcore.discovery
    manager.register(plugin)
    found = [
        (kind, component) for kind in KINDS for offered in getattr(manager.hook, kind.hook)() for component in offered
    ]
    if not found:
        raise ValueError(f"{plugin!r} offers no component; pass the module that the entry point names")
    return found
