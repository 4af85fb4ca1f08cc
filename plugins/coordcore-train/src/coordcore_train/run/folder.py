"""The run folder: what lies in it, whether it may be used, and where an interrupted run continues. Torch-free."""

from __future__ import annotations

import glob
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from coordcore.errors import InputError
from coordcore.files import require_regular, write_whole
from coordcore_train.chat import Question
from coordcore_train.checkpoint.image_size import ImageTokens
from coordcore_train.run.content import Content, changed, content_of_base

MANIFEST = "manifest.resolved.toml"
STATE = "state.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
PARTIAL = ".partial"
MERGED = "merged"
LOCK = ".lock"

_HEX = "[0-9a-f]" * 32


@attrs.frozen
class RunDir:
    """The folder of one run. Nothing in it is trusted unless it is complete."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def partial(self) -> Path:
        """Where a checkpoint is written before it is renamed into `checkpoints`."""
        return self.path / CHECKPOINTS / PARTIAL

    @property
    def merged(self) -> Path:
        return self.path / MERGED

    def state(self) -> Mapping[str, object]:
        """What is known of the run: its fingerprint, its base checkpoint, and whether training is done."""
        path = self.path / STATE
        if not path.exists():
            return {}
        try:
            require_regular(path)
            state = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{path}: cannot be read: {reason}; name another folder") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no JSON: {error}; name another folder") from error
        # Any folder may hold a file of this name; only ours says which manifest it belongs to.
        return state if isinstance(state, dict) and "fingerprint" in state else {}

    def write_state(self, **changes: object) -> None:
        """Update `state.json`, whole or not at all."""
        write_whole(self.path / STATE, json.dumps({**self.state(), **changes}, indent=2) + "\n")

    def image_tokens(self) -> ImageTokens | None:
        """The limits to which the engine brought images in training, None where it left that to the processor.

        The usual ones for a run that has not written them down.
        """
        state = self.state()
        found: Any = state.get("image_tokens", {})
        return None if found is None else ImageTokens(**found)

    def question(self) -> Question | None:
        """What every example of the run asked, None where it was no single question, and in runs of older versions."""
        found: Any = self.state().get("question")
        return None if found is None else Question(**found)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises InputError when another one works on the same run."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(f"output.dir: another process works on the run in {self.path}; wait for it") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def prepared(
        self,
        manifest_text: str,
        fingerprint: str,
        base: Path,
        *,
        layout: Mapping[str, object],
        content: Content,
        overwrite: bool,
        differs: Callable[[], str] = str,
    ) -> Iterator[bool]:
        """Make the folder ready as `prepare` does, and hold it for this process.

        overwrite: replace a run that is there. differs: tells of the manifest of a run that is there and is not this
        one. Whoever is refused has written nothing.
        """
        self._remove_replaced()
        if overwrite and self.path.is_dir() and self.state():
            old = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.old")
            with self.locked():
                self.path.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        self._resumes(fingerprint, layout, content, differs)
        self._make()
        with self.locked():
            yield self.prepare(manifest_text, fingerprint, base, layout=layout, content=content)

    def prepare(
        self,
        manifest_text: str,
        fingerprint: str,
        base: Path,
        *,
        layout: Mapping[str, object],
        content: Content | None = None,
    ) -> bool:
        """Make the folder ready, and say whether it continues an interrupted run of the same manifest.

        layout: how the work is spread over ranks, which decides the batches and the optimizer's files. content: what
        the data's files hold.
        Raises InputError when it holds something else: a finished run, another manifest's run, or foreign files.
        """
        resumed = self._resumes(fingerprint, layout, content or {})
        base = self.base_of(fingerprint, base)
        self._make()
        self._remove_half_written()
        # The state first: from then on the same command can continue, wherever it was cut off.
        self.write_state(
            fingerprint=fingerprint, base=str(base), layout=dict(layout), done=False, content=content or {}
        )
        self.checkpoints.mkdir(exist_ok=True)
        write_whole(self.manifest, manifest_text)
        return resumed

    def base_of(self, fingerprint: str, base: Path) -> Path:
        """What a run of this manifest goes on with: a hub id may have moved on since it was started with `base`.

        The adapter belongs to the old files.
        """
        state = self.state()
        kept = Path(str(state.get("base")))
        return kept if state.get("fingerprint") == fingerprint and kept.is_dir() else base

    def require_same_base(self, base: Path) -> None:
        """Raise InputError when `base` has other weights than this run was started with."""
        if word := changed(content_of_base(base), self.state().get("content")):
            raise InputError(f"{word}, and its adapter belongs to those weights: put them back")

    def _resumes(
        self, fingerprint: str, layout: Mapping[str, object], content: Content, differs: Callable[[], str] = str
    ) -> bool:
        """Whether the folder holds an interrupted run. Raises InputError when it holds what may not be continued."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"output.dir: {self.path} is a file; name another folder")
        if not self.path.is_dir() or all(path.name.startswith(".") for path in self.path.iterdir()):
            return False
        cure = "name another folder with --output, or replace it with --overwrite"
        state = self.state()
        if not state:
            raise InputError(f"output.dir: {self.path} exists and holds no coordcore run; name another folder")
        same = state["fingerprint"] == fingerprint
        if state.get("done"):
            which = "this manifest" if same else f"another manifest{differs()}"
            raise InputError(f"output.dir: {self.path} holds a finished run of {which}; {cure}")
        # A run that never got to a checkpoint has nothing to lose: its manifest may have been mended since.
        if not same and self.last_checkpoint() is not None:
            raise InputError(f"output.dir: {self.path} holds a run of another manifest{differs()}; {cure}")
        if self.last_checkpoint() is not None and state.get("layout", layout) != layout:
            raise InputError(
                f"output.dir: the run in {self.path} was started with {state['layout']}, now with {dict(layout)}; "
                "continue it as it was started, or replace it with --overwrite"
            )
        if self.last_checkpoint() is not None and (word := changed(content, state.get("content"))):
            raise InputError(f"{word}: put it back to go on from the last checkpoint; or else {cure}")
        return True

    def _remove_replaced(self) -> None:
        """Remove runs that --overwrite has put aside here, and was killed before it removed them."""
        for old in self.path.parent.glob(f".{glob.escape(self.path.name)}.{_HEX}.old"):
            shutil.rmtree(old, ignore_errors=True)

    def _remove_half_written(self) -> None:
        """Remove the files that `write_whole` was killed over. For whoever holds the folder."""
        for folder in (self.path, *self.path.glob("eval/*"), *self.path.glob("eval/*/step-*")):
            for path in folder.glob(f".*.{_HEX}"):
                path.unlink()

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output.dir: cannot make {self.path}: {error.strerror}; name another folder") from error

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint of the run."""
        return newest_checkpoint(self.checkpoints)

    def discard_after(self, step: int) -> None:
        """Forget what an interrupted run wrote beyond `step`: half-written checkpoints, evaluations, logged metrics."""
        shutil.rmtree(self.partial, ignore_errors=True)
        for path in self.path.glob("eval/.*"):  # checkpoints merged to be evaluated
            shutil.rmtree(path)
        for path in checkpoints_in(self.checkpoints):
            if checkpoint_step(path) > step or not (path / "trainer_state.json").is_file():
                shutil.rmtree(path)
        for path in self.path.glob("eval/*/step-*"):
            if int(path.name.removeprefix("step-")) > step:
                shutil.rmtree(path)
        if self.metrics.exists():
            kept = []
            lines = self.metrics.read_bytes().splitlines()
            for number, line in enumerate(lines, start=1):
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line.decode() + "\n")
                except (ValueError, RecursionError, TypeError, LookupError) as error:
                    if number < len(lines):  # the last one was being written when the run was cut off
                        cure = "remove it, and the same command continues"
                        raise InputError(f"{self.metrics}:{number}: is no line of metrics; {cure}") from error
            write_whole(self.metrics, "".join(kept))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder; one is complete when it holds the trainer state, written last."""
    found = [path for path in checkpoints_in(folder) if (path / "trainer_state.json").is_file()]
    return found[-1] if found else None


def checkpoints_in(folder: Path) -> list[Path]:
    """The folders named checkpoint-<step>, complete or not, by step."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """The step of a folder named "checkpoint-<step>"."""
    return int(path.name.rpartition("-")[2])
