"""Builds a component, and looks at what it built: another thing is told with the section and the plugin. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from coordcore import kinds, protocols
from coordcore.components import Selected
from coordcore.errors import InputError, RunError
from coordcore.guard import told
from coordcore.kinds import Kind
from coordcore.manifest.types import show


def named(selected: Selected) -> str:
    """What messages call a component: its section and its plugin."""
    return f"{selected.path} of plugin {selected.distribution}"


@contextmanager
def of_plugin(selected: Selected, path: str = "") -> Iterator[None]:
    """Name the plugin, behind `path`, in what is found wrong with a thing that it has built."""
    try:
        yield
    except (InputError, RunError) as error:
        kind = InputError if isinstance(error, InputError) else RunError
        raise kind(f"{path}{error} (built by plugin {selected.distribution})") from error


def built(selected: Selected, build: Callable[[Selected], Any]) -> Any:
    """What `build` gives for `selected`, with the members that the protocol of its kind asks for.

    Raises the InputError and RunError of the component; RunError, with section and plugin, for anything else that it
    raises, and for another thing that it builds.
    """
    who = f"{selected.path}: build of plugin {selected.distribution}"
    try:
        result = build(selected)
        fault = _fault(selected.kind, result)
    except (InputError, RunError):
        raise
    except Exception as error:
        raise RunError(f"{who} raised {told(error)}; tell its authors") from error
    if fault:
        raise RunError(f"{who} {fault}; tell its authors")
    return result


def asked(who: str, ask: Callable[[], Any], what: str) -> Any:
    """What a thing that a plugin has built answers. who: its section and plugin. what: what it is asked for.

    Raises InputError and RunError of the plugin; InputError, with `who`, for a file that it cannot read; RunError for
    anything else that it raises, a SystemExit too, which would end the run as if it were done.
    """
    try:
        return ask()
    except (InputError, RunError, MemoryError):
        raise
    except OSError as error:
        raise InputError(f"{who}: {what} failed: {error}") from error
    except (Exception, SystemExit) as error:
        raise RunError(f"{who}: {what} raised {told(error)}; tell its authors") from error


def _fault(kind: Kind, built: Any) -> str:
    """What is wrong with what a component of `kind` built, empty where nothing is: it lacks a member, or is a class."""
    several = kind == kinds.LOSS and isinstance(built, list | tuple)
    forms = [kind.protocol, *(["ModelSurgery"] if kind == kinds.SURGERY else [])]
    if several and not built:
        return "returned no loss term at all"
    for item in built if several else [built]:
        lacking = [_lacking(getattr(protocols, form), item) for form in forms if hasattr(protocols, form)]
        if lacking and all(lacking):
            what = " ".join(show(item).split())
            return f"returned {what}, which is no {' and no '.join(forms)}: it has no {', no '.join(lacking[0])}"
    return ""


def _lacking(protocol: type[Any], item: Any) -> list[str]:
    """The members of `protocol` that `item` has not; a class in place of an object has none."""
    members = [name for name in vars(protocol) if not name.startswith("_") or name == "__call__"]
    return members if isinstance(item, type) else [name for name in members if not hasattr(item, name)]
