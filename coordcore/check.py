"""What can be known of a run without GPU or model weights: rules across sections, and the engine's. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

from packaging.utils import canonicalize_name

from coordcore import kinds
from coordcore.assemble import answer_format
from coordcore.components import COORD_SUPERVISION, COORD_TOKENS
from coordcore.errors import InputError, ManifestError, Problem, in_order
from coordcore.guard import guarded, told
from coordcore.lifecycle import asked
from coordcore.manifest import Loaded, Manifest, load
from coordcore.plugins import Plugins

_WHY = {COORD_SUPERVISION: "coord tokens need a loss that supervises them"}


def load_and_check(manifest: Path, overrides: Iterable[str] | None = None) -> Loaded:
    """The manifest, right in itself and across sections. Raises ManifestError with everything that is wrong."""
    loaded = load(manifest, overrides or ())
    problems = check(loaded)
    if problems:
        raise ManifestError(problems)
    return loaded


def check(loaded: Loaded) -> list[Problem]:
    """Everything wrong with a loaded manifest that reading it did not show, in the order of the file.

    Where the answer format is wrong, plugins and engine are not asked.
    """
    run, plugins = loaded.manifest, loaded.plugins
    problems = [*loaded.missing, *_capabilities(run, plugins), *_claims(run), *_evaluation(run)]
    problems += (wrong := list(_format(run)))
    if wrong:  # their checks build it
        return in_order(loaded.document.placed(problem) for problem in problems)
    problems += loaded.hooks.check(run)
    if reason := plugins.engine_conflict:
        problems.append(Problem(path="plugins.block", message=reason))
    for distribution, engine in plugins.engines():
        problems += asked(partial(map, engine.check, [run]), "", distribution, run)
    return in_order(loaded.document.placed(problem) for problem in problems)


def notes(loaded: Loaded) -> list[str]:
    """What `check` could not look into on this machine, and what is blocked and not there, for the user to know."""
    run, plugins = loaded.manifest, loaded.plugins
    known = {info.distribution for info in plugins.infos}
    found = [
        f"plugins.block: no installed plugin's distribution is called {name!r}; blocks nothing"
        for name in run.plugins.block
        if canonicalize_name(name) not in known
    ]
    with guarded() as watch:
        return [*plugins.engine.notes(run), *found]
    return [f"the base checkpoint and [train.swift] were not checked: {_reason(watch.error)}", *found]


def _reason(error: BaseException | None) -> str:
    return str(error) if isinstance(error, InputError) or error is None else told(error)


def _format(run: Manifest) -> Iterator[Problem]:
    try:
        answer_format(run)
    except InputError as error:
        path, _, reason = str(error).partition(": ")
        yield Problem(path=path, message=reason)


def _evaluation(run: Manifest) -> Iterator[Problem]:
    for selected in run.of(kinds.EVAL):
        if not run.output.merge:
            message = "evaluates the merged checkpoint, and output.merge is false; leave one of them out"
            yield Problem(path=selected.path, message=message)
    path = "train.evaluate_checkpoints"
    if run.train.evaluate_checkpoints and not run.of(kinds.EVAL):
        yield Problem(path=path, message="there is no [eval] section to call; add one, or leave this out")
    if run.train.evaluate_checkpoints and run.train.save_every is None:
        message = "only the last checkpoint is saved, which is evaluated anyway; set train.save_every"
        yield Problem(path=path, message=message)


# --- components -----------------------------------------------------------------------------------------------------


def _capabilities(run: Manifest, plugins: Plugins) -> Iterator[Problem]:
    provided = run.capabilities()
    for selected in run.selected:
        # Whoever emits coord tokens needs them supervised, whether or not its author has thought of it.
        supervision = [COORD_SUPERVISION] if COORD_TOKENS in selected.provides else []
        for capability in dict.fromkeys([*selected.requires, *supervision]):
            if capability not in provided:
                why = _WHY.get(capability, f"it needs {capability!r}")
                providers = ", ".join(_providers(capability, plugins))
                cure = f"add {providers}" if providers else "set one so that it does, or install a plugin that does"
                message = f"{why}, and no component of this run provides {capability!r}; {cure}"
                yield Problem(path=selected.path, message=message)


def _providers(capability: str, plugins: Plugins) -> list[str]:
    """The sections of the components that provide a capability as they come, without settings, and can be added."""
    providers = []
    for kind in [kind for kind in plugins.kinds if not (kind.single and kind.required)]:  # of which a run has its one
        for name in plugins.names(kind):
            component = plugins.get(kind, name)
            with guarded():  # a stranger's: the run does not name it
                if capability in component.provides(component.config()):  # which fails where it has required keys
                    providers.append(f"[{kind}.{name}]")
    return providers


def _claims(run: Manifest) -> Iterator[Problem]:
    claims = [(item, module) for item in run.of(kinds.SURGERY) for module in item.claims]
    for (first, claimed), (second, module) in combinations(claims, 2):
        names_agree = f".{claimed}".endswith(f".{module}") or f".{module}".endswith(f".{claimed}")
        if first is not second and names_agree:
            yield Problem(path=second.path, message=f"changes {module}, which {first.path} changes too; keep one")
