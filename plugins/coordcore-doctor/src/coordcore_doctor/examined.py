"""The run that the checks look at: each part is made when it is first needed, and never twice. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from coordcore.coords import CoordVocab, MissingCoordTokensError
from coordcore.errors import InputError, RunError
from coordcore.manifest import Loaded
from coordcore.quantisation import Quantisation, quantisation
from coordcore_train.checkpoint.base import base_checkpoint, resolve_base
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.engine import engine_of

if TYPE_CHECKING:
    from torch import nn

    from coordcore_doctor.sample import Sample
    from coordcore_train.checkpoint.merge import NotStreamedError
    from coordcore_train.checkpoint.weights import Matrix
    from coordcore_train.engine import Rehearsal, RehearsedTrainer, Step

T = TypeVar("T")


class NotAvailableError(Exception):
    """A check needs something that could not be made. `told`: whether a finding has given the reason already."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason)
        self.what = what
        self.told = False


def prerequisite(what: str) -> Callable[[Callable[[Any], T]], _Prerequisite[T]]:
    """A property that is made once. Where that fails, this and every later use raises the same NotAvailableError.

    what: its name in the table, behind "needs the".
    """
    return lambda make: _Prerequisite(make, what)


class _Prerequisite(Generic[T]):
    def __init__(self, make: Callable[[Any], T], what: str) -> None:
        self._make = make
        self._name = make.__name__
        self._what = what
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, run: None, owner: type) -> _Prerequisite[T]: ...

    @overload
    def __get__(self, run: ExaminedRun, owner: type) -> T: ...

    def __get__(self, run: ExaminedRun | None, owner: type) -> T | _Prerequisite[T]:
        if run is None:
            return self
        if self._name not in run.made:
            run.made[self._name] = self._try(run)
        made = run.made[self._name]
        if isinstance(made, NotAvailableError):
            raise made
        return made

    def _try(self, run: ExaminedRun) -> T | NotAvailableError:
        try:
            return self._make(run)
        except NotAvailableError as error:
            return error
        except (InputError, RunError) as error:
            return NotAvailableError(self._what, str(error))
        # Whatever breaks in a library over a damaged file or a wrong setting is what the user asked to be told of. It
        # becomes an error of the table, and nothing goes on as if it had not been.
        except Exception as error:
            if os.environ.get("COORDCORE_VERBOSE"):
                raise
            first = (str(error).strip() or "no message").splitlines()[0]
            return NotAvailableError(self._what, f"{type(error).__name__}: {first}; COORDCORE_VERBOSE=1 shows where")


class ExaminedRun:
    """A run that has not started. folder: a temporary folder for what the checks write; nothing else is written to,
    but for the cache of expanded bases."""

    def __init__(self, loaded: Loaded, folder: Path, samples: int) -> None:
        self.loaded = loaded
        self.manifest = loaded.manifest
        self.folder = folder
        self.samples = samples
        self.made: dict[str, Any] = {}

    @property
    def quantisation(self) -> Quantisation:
        """The convention that the manifest declares."""
        return quantisation(self.manifest.coords.quantisation)

    @property
    def trusted(self) -> bool:
        """Whether Python that lies in the base may run."""
        return self.manifest.model.trust_remote_code

    @prerequisite("base")
    def expanded(self) -> Path:
        """The folder of the base that `coordcore run` would train."""
        return base_checkpoint(self.manifest)

    @prerequisite("base")
    def base(self) -> Path:
        """The same; where `coordcore run` would refuse it, the folder as it is, for the other checks to look into."""
        try:
            return self.expanded
        except NotAvailableError:
            try:
                found = resolve_base(self.manifest.model.base, self.loaded.file.parent)
            except InputError:
                found = None
            if found is None:
                raise
            require_no_code(found, trusted=self.trusted)
            return found

    @prerequisite("tokenizer")
    def tokenizer(self) -> Any:
        """The base's tokenizer, as transformers reads it."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base, local_files_only=True, trust_remote_code=self.trusted)

    @prerequisite("coord tokens")
    def vocab(self) -> CoordVocab | None:
        """The ids of the coord tokens, wherever they lie; None where the base has none and the run needs none."""
        from coordcore.components import COORD_TOKENS

        try:
            return CoordVocab.from_tokenizer(self.tokenizer, self.manifest.coords.format)
        except MissingCoordTokensError:
            if COORD_TOKENS in self.manifest.capabilities():
                raise
            return None

    @prerequisite("embedding matrix")
    def matrices(self) -> dict[str, Matrix]:
        """ "embedding", and "head" where the files hold one."""
        from coordcore_train.checkpoint.weights import vocabulary_matrices

        return vocabulary_matrices(self.base)

    @prerequisite("layout of the weights")
    def tensors(self) -> int | NotStreamedError:
        """How many tensors the base's files hold of the model, or why that is told only when it is loaded."""
        from coordcore_train.checkpoint.merge import NotStreamedError
        from coordcore_train.checkpoint.merge.layout import layout
        from coordcore_train.checkpoint.merge.skeleton import skeleton_of

        try:
            model = skeleton_of(self.base, dtype=self.manifest.model.dtype, trusted=self.trusted)
            return len(layout(model, self.base, self.base))
        except NotStreamedError as reason:
            return reason

    @prerequisite("model and template")
    def rehearsal(self) -> Rehearsal:
        """The run as far as model and template, on a narrow copy of the base."""
        return engine_of(self.loaded.plugins).rehearse(self.loaded, self.base, self.folder)

    @prerequisite("sample of the data")
    def sample(self) -> Sample:
        """Examples spread over the data, encoded by the template."""
        from coordcore_doctor.sample import draw_sample

        return draw_sample(self.rehearsal, self.samples)

    @prerequisite("wrapped model")
    def wrapped(self) -> nn.Module:
        """The narrow copy as the tuner wraps it."""
        return self.rehearsal.wrap()

    @prerequisite("trainer")
    def trainer(self) -> RehearsedTrainer:
        """The trainer, its model bound to the surgeries."""
        return self.rehearsal.trainer(self.wrapped, self.sample.shortest())

    @prerequisite("training step")
    def step(self) -> Step:
        """One training step of the narrow copy."""
        return self.trainer.step()
