"""Pushes a merged folder to a hub through huggingface_hub, in one commit, with a model card. Torch-free."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from coordcore.errors import InputError, RunError
from coordcore.files import require_regular, write_whole
from coordcore.manifest.sections import is_hub_id
from coordcore_train.checkpoint.code import trust_section
from coordcore_train.hub.card import card, is_untouched
from coordcore_train.hub.facts import Facts, read_facts
from coordcore_train.hub.files import CARD, Files, Upload, files_of, is_weights
from coordcore_train.run.folder import MERGED, RunDir

WAITS = (2.0, 10.0, 30.0)
"""Seconds before the hub is asked again, after each failure."""

_AGAIN = (408, 425, 429, 500, 502, 503, 504)

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Prepared:
    """A folder that is ready to go up. kept: a card that somebody wrote, and that stays as it is."""

    folder: Path
    files: Files
    kept: bool

    def __str__(self) -> str:
        size = sum(upload.size for upload in self.files.uploads)
        lines = [f"{upload.size:>15,}  {upload.name}" for upload in self.files.uploads]
        lines += [f"{'stays here':>15}  {name}" for name in self.files.left]
        lines += [f"{'':>15}  {place} goes up as a name, without the path" for place in self.files.mended]
        card_ = (
            "README.md is not ours and was kept (--overwrite-card writes it anew)" if self.kept else "wrote README.md"
        )
        return "\n".join([*lines, f"{self.folder}: {len(self.files.uploads)} files, {size:,} bytes; {card_}"])


def merged_folder(path: Path) -> tuple[Path, RunDir | None]:
    """The merged checkpoint in a run folder, or `path` itself, and the run that it is the result of, if any.

    Raises InputError, with the command that merges, for what is not merged.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; name a run folder, or a merged one")
    path = path.absolute()
    run = RunDir(path)
    if run.manifest.is_file() and run.state():
        if not run.merged.is_dir():
            raise InputError(f"{path}: is not merged yet; coordcore merge {path} --output {run.merged}")
        return run.merged, run
    if (path / "adapter_config.json").is_file() or (path / "trainer_state.json").is_file():
        of_run = path.parent.parent
        merge = f"coordcore merge {of_run} --output {of_run / f'merged-{path.name}'} --checkpoint {path}"
        cure = merge if RunDir(of_run).manifest.is_file() else "coordcore merge RUN --output DIR, of the run it is of"
        raise InputError(f"{path}: is a checkpoint of training; merge it first: {cure}")
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: holds neither a run nor a checkpoint (no config.json); name a run folder")
    above = RunDir(path.resolve().parent)
    is_result = path.resolve().name == MERGED and above.manifest.is_file() and bool(above.state())
    return path, above if is_result else None


def prepare(path: Path, repository: str, *, revision: str | None, overwrite_card: bool) -> Prepared:
    """Write the card of a run's merged folder, or of `path` itself, and say which files go up.

    overwrite_card: also over one that somebody wrote or changed. Raises InputError as `merged_folder` and `files_of`,
    and for a name that no repository can have.
    """
    require_name(repository)
    if revision is not None and (not re.fullmatch(r"\w[\w./-]*", revision, re.ASCII) or ".." in revision):
        raise InputError(f"--revision {revision!r}: is no name of a branch; as in v2")
    folder, run = merged_folder(path)
    file = folder / CARD
    known = _known_folders(folder, run)
    before = _read_card(file)
    facts = read_facts(folder, run, _front_matter(file))
    kept = bool(before) and not overwrite_card and not _is_ours(before, facts, run)
    name = facts.run.manifest["name"] if facts.run else repository.partition("/")[2]
    code = trust_section(folder) if facts.trusted else ""
    text = None if kept else card(facts, name, repository, revision, code)
    files = files_of(folder, known, text)
    if text is not None:
        write_whole(file, text)
    return Prepared(folder=folder, files=files, kept=kept)


def require_name(repository: str) -> None:
    """Raise InputError for what is no name of a repository, OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    fault = None if is_hub_id(repository) else "it is no OWNER/NAME"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        fault = fault or " ".join(str(error).split())
    if fault is not None:
        raise InputError(f"{repository!r} cannot be a repository's name: {fault}; as in alice/shapes-detector")


def require_hub() -> None:
    """Raise InputError where nothing can be pushed from: offline by the environment, or without a token."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise InputError("HF_HUB_OFFLINE is set, so nothing is pushed; unset it, or look at the card with --dry-run")
    if get_token() is None:
        raise InputError("there is no token to push with; log in with `hf auth login`, or set HF_TOKEN")


def push(prepared: Prepared, repository: str, *, private: bool, revision: str | None) -> str:
    """Put the files of a folder into a repository, which is made where there is none. Returns where they are.

    All of them come in one commit, so that a reader never finds a half of them; weights of an earlier push that these
    do not replace go with it. Raises RunError where the hub cannot be had, InputError where it refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="coordcore")
    asked = _Patient(repository)
    asked(lambda: api.create_repo(repository, private=private or None, exist_ok=True))
    if private and not asked(lambda: api.model_info(repository)).private:
        raise InputError(f"{repository}: exists and is public; make it private there, or leave --private out")
    if revision is not None:
        asked(lambda: api.create_branch(repository, branch=revision, exist_ok=True))
    there = asked(lambda: api.list_repo_files(repository, revision=revision))
    names = {upload.name for upload in prepared.files.uploads}
    stale = [name for name in there if is_weights(name) and name not in names]

    def commit() -> Any:
        # Made anew for each try: huggingface_hub keeps in them how far it came.
        added = [CommitOperationAdd(upload.name, _source(upload)) for upload in prepared.files.uploads]
        removed = [CommitOperationDelete(name) for name in stale]
        message = f"Push {prepared.folder.name} with coordcore"
        return api.create_commit(repository, [*added, *removed], commit_message=message, revision=revision)

    return str(asked(commit).commit_url)


def _source(upload: Upload) -> Any:
    return str(upload.file) if upload.content is None else upload.content


@attrs.frozen
class _Patient:
    """Asks the hub, and again after a while where that may help."""

    repository: str

    def __call__(self, ask: Callable[[], T]) -> T:
        from httpx import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        for wait in (*WAITS, None):
            try:
                return ask()
            except HfHubHTTPError as error:
                code = error.response.status_code
                why = error.server_message or f"HTTP {code}"
                if code not in _AGAIN:
                    raise InputError(self._refusal(code, why)) from error
                failed: Exception = error
            except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:  # the last: of its file transfer
                why, failed = f"{type(error).__name__}: {error}", error
            if wait is None:
                break
            time.sleep(wait)
        raise RunError(
            f"{self.repository}: not pushed: {' '.join(why.split())}, {len(WAITS) + 1} times; nothing of this push is "
            "to be seen there; the same command tries again"
        ) from failed

    def _refusal(self, code: int, why: str) -> str:
        cures = {
            401: "log in again with `hf auth login`, or mend HF_TOKEN",
            403: "use a token that may write there, or a repository of your own",
            404: "look for a slip in its name, and whether the token may see it",
        }
        why = " ".join(why.split())
        return f"{self.repository}: not pushed, the hub refuses ({code}): {why}; {cures.get(code, 'mend that first')}"


# --- the card that is there -------------------------------------------------------------------------------------------


def _read_card(file: Path) -> str:
    if not file.exists():
        return ""
    try:
        require_regular(file)
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not UTF-8 text ({error.reason}); save it as UTF-8, or remove it") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {(error.strerror or str(error)).lower()}; remove it") from error


def _front_matter(file: Path) -> Mapping[str, Any]:
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    try:
        return (metadata_load(file) or {}) if file.is_file() else {}
    except (ValueError, YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{file}: its head between the lines --- cannot be read: {why}; mend it") from error


def _is_ours(text: str, facts: Facts, run: RunDir | None) -> bool:
    """Whether a card may be replaced: one that we wrote, or the base's, as the merge copied it."""
    if is_untouched(text):
        return True
    if facts.trusted:
        text = text.partition("## Code\n\nMade with `trust_remote_code")[0]
    base = Path(str(run.state().get("base", ""))) / CARD if run is not None else None
    before = _read_card(base) if base is not None and base.is_file() else ""
    return text.strip() in ("", before.strip())


def _known_folders(folder: Path, run: RunDir | None) -> tuple[str, ...]:
    """Folders of this machine that nobody else needs to hear of."""
    found = [str(folder), str(folder.resolve())]
    if run is not None:
        found += [str(run.path), str(run.path.resolve()), str(run.state().get("base", ""))]
    found = [path for path in found if path.count("/") > 1]
    home = os.path.expanduser("~")
    return (*dict.fromkeys(found), *([f"{home}/"] if len(home) > 1 and home.startswith("/") else []))
