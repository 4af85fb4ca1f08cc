"""Finds the base checkpoint that `[model] base` names, and gives it coord tokens if the run says so. Torch-free."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from coordcore.components import COORD_TOKENS
from coordcore.coords import MissingCoordTokensError
from coordcore.errors import InputError
from coordcore.manifest.sections import PACKAGE, Manifest, is_hub_id
from coordcore.quantisation import quantisation, require_same
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.folder import preset_hint, read_checkpoint_info, read_vocab


def resolve_base(base: str, folder: Path | None = None) -> Path | None:
    """The folder of a base checkpoint: a local folder, 'package:NAME/FOLDER', or a hub id in the local cache.

    folder: what a relative path starts from; the working directory when absent.
    Returns None for a hub id that would have to be downloaded. Raises InputError naming what was looked for.
    """
    if base.startswith(PACKAGE):
        return _in_package(base)
    path = (folder or Path.cwd()) / os.path.expanduser(base)
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path} is a file; name the checkpoint's folder")
    if is_hub_id(base):
        return _in_hub_cache(base)
    raise InputError(f"no such folder: {path}")


def base_checkpoint(manifest: Manifest) -> Path:
    """The folder of a run's base, with coord tokens: expanded into the cache when `[vocab]` asks and they are missing.

    A hub id that is not in the local cache is downloaded. Raises InputError when there is no such base, when a
    component needs coord tokens, the base has none and there is no `[vocab]` section, for another convention, and for
    Python in the base that `[model]` does not trust.
    """
    base = resolve_base(manifest.model.base) or _from_hub(manifest.model.base)
    trusted = manifest.model.trust_remote_code
    require_no_code(base, trusted=trusted)
    spec = quantisation(manifest.coords.quantisation)
    try:
        read_vocab(base, manifest.coords.format)
    except MissingCoordTokensError:
        if manifest.vocab is not None:
            from coordcore_train.checkpoint.expand import cached_expansion

            return cached_expansion(
                base,
                initialiser=manifest.vocab.initialiser,
                seed=manifest.vocab.seed,
                quantisation=spec,
                coords=manifest.coords.format,
                trusted=trusted,
            )
        if COORD_TOKENS in manifest.capabilities():
            raise InputError(
                f"model.base: {base} has no coord tokens; add a [vocab] section, or expand it with `coordcore expand`"
                f"{preset_hint(base)}"
            ) from None
    info = read_checkpoint_info(base)
    if info is not None:
        require_same(info.quantisation, spec, str(base), "coords.quantisation")
    return base


def _from_hub(name: str) -> Path:
    """A checkpoint of the hub, from the local cache when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"model.base: {name!r} is no folder here, and could not be had from the hub "
            f"({type(error).__name__}); download it first, or name a local folder"
        ) from error


def hub_cache() -> Path:
    """The folder of the local Hugging Face cache, by the variables that huggingface_hub reads."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expanduser(os.path.expandvars(cache)))  # stays as it is for a user without a home


def _in_package(base: str) -> Path:
    name, _, inside = base.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier() or not inside:
        raise InputError(f"must be package:NAME/FOLDER, as in package:coordcore_demo/base, got {base!r}")
    spec = importlib.util.find_spec(name)  # of a top-level package: finds it without importing it
    if spec is None:
        raise InputError(f"package {name} is not installed; pip install {name.replace('_', '-')}")
    for root in spec.submodule_search_locations or ():
        path = Path(root) / inside
        if path.is_dir():
            return path
    raise InputError(f"package {name} has no folder {inside!r}")


def _in_hub_cache(base: str) -> Path | None:
    """The snapshot that the cache's `main` points to. Layout: huggingface_hub, "Understand caching"."""
    repository = hub_cache() / f"models--{base.replace('/', '--')}"
    main = repository / "refs" / "main"
    if not main.is_file():
        return None
    snapshot = repository / "snapshots" / main.read_text(encoding="utf-8").strip()
    return snapshot if (snapshot / "config.json").exists() else None
