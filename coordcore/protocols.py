"""What each kind of component builds: the contract between the core and a plugin.

Shape legend: n positions, m boxes, K bins (1000), V vocabulary rows, H hidden size.
Importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import attrs

from coordcore.records.example import Example

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from coordcore.coords import CoordVocab, Quantisation
    from coordcore.errors import Problem
    from coordcore.manifest.sections import Manifest

Scope = Literal["coord", "text", "token", "box"]


# --- data -----------------------------------------------------------------------------------------------------------


class ExampleSource(Protocol):
    """Examples by index. Read lazily, picklable (data-loader workers), the same example for the same index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class DataBuilder(Protocol):
    """Built by a data component."""

    def train(self) -> ExampleSource:
        """The training examples, unshuffled: the core shuffles with the run's seed."""
        ...

    def validation(self) -> ExampleSource | None:
        """The held-out examples, or None when there are none."""
        ...


# --- template -------------------------------------------------------------------------------------------------------


class TemplateAdapter(Protocol):
    """Built by a template component."""

    def apply(self, template: Any) -> None:
        """Change one ms-swift `Template` instance in place, once, before anything is encoded.

        The tokenizer is `template.tokenizer`, the processor `template.processor`.
        """
        ...


# --- model surgery --------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AddedRows:
    """Rows that a surgery adds: `embedding[ids] += rows`, or to the head, `logits[:, ids] += hidden @ rows.T`.

    ids: [K] int64 vocabulary ids, distinct, best a buffer of the module, which is the same tensor at every call.
    rows: [K, H] float32, a live (trainable) parameter or computed from some.
    """

    ids: Tensor
    rows: Tensor


HeadOffset = AddedRows
"""What `ModelSurgery.head_offset` gives."""


@attrs.frozen(kw_only=True)
class ModelFacts:
    """What a row surgery makes its module from.

    vocab: the coord tokens, None when the base has none. vocabulary_size: rows of embedding and head, padding included.
    hidden_size: H. dtype: of the matrices; rows are best float32 all the same, which keeps small updates.
    """

    vocab: CoordVocab | None
    vocabulary_size: int
    hidden_size: int
    dtype: torch.dtype


@runtime_checkable
class RowSurgery(Protocol):
    """Built by a surgery component: a module, and the rows that it adds to the input embedding and the output head.

    The core does the rest: it adds the module to the model, saves and trains it, freezes the matrices that get rows,
    hooks them, proves that the rows act, and merges them, untying the head where the rows of the two differ.

    name: the attribute of the model that holds the module, its name in a checkpoint and in PEFT's `modules_to_save`.
    tag: what the module's parameters are called for optimizer groups ("offset").
    """

    @property
    def name(self) -> str: ...

    @property
    def tag(self) -> str: ...

    def module(self, facts: ModelFacts, /) -> nn.Module:
        """A new module, on the CPU. For it torch is seeded, with the same number on every rank and at every start."""
        ...

    def embedding_rows(self, module: Any, /) -> AddedRows | None:
        """What `module`, a copy of the one that was made, adds to the embedding; None if that is left alone.

        A pure function, differentiable by the module's parameters. Zero for a new module: training starts at the base.
        """
        ...

    def head_rows(self, module: Any, /) -> AddedRows | None:
        """The same for the output head. Called inside the forward, where FSDP has gathered the parameters."""
        ...


@runtime_checkable
class ModelSurgery(Protocol):
    """The free form, for a surgery that does more than add rows. PROVISIONAL: it may change in any release.

    It states some facts twice (a hook and `head_offset`, `frozen` and what `merge` writes), which the core can only
    compare. Called in this order: install, (PEFT wraps), rebind, verify, training, merge.

    modules_to_save: top-level module names that the tuner must train and save whole.
    frozen: dotted suffixes of modules whose own parameters stay frozen under the full tuner ("embed_tokens").
    """

    @property
    def modules_to_save(self) -> Sequence[str]: ...

    @property
    def frozen(self) -> Sequence[str]: ...

    def install(self, model: nn.Module, vocab: CoordVocab | None) -> None:
        """Change the freshly loaded model in place. Must change no logit, so that training starts at the base."""
        ...

    def rebind(self, model: nn.Module) -> None:
        """Bind hooks to the live modules of `model`, which PEFT may have wrapped or copied. Idempotent.

        In training `lm_head` returns the loss in place of logits: a hook on it returns any output unchanged whose last
        dimension is not the vocabulary.
        """
        ...

    def verify(self, model: nn.Module) -> None:
        """Raise RuntimeError, with what was found and the cure, unless the surgery acts on `model` as it stands."""
        ...

    def head_offset(self, model: nn.Module) -> AddedRows | None:
        """The rows this surgery adds to the output head through a hook, or None if it leaves the head alone.

        The objective projects hidden states itself and adds these rows; a surgery that changes the head in any other
        way replaces the `lm_head` module, which the objective then calls whole.
        """
        ...

    def parameters(self, model: nn.Module) -> Mapping[str, Sequence[nn.Parameter]]:
        """Tag -> the live parameters of this surgery, for optimizer groups: {"offset": [...]}."""
        ...

    def merge(self, model: nn.Module) -> None:
        """Write the surgery into ordinary weights of the unwrapped model, remove its modules and hooks.

        Afterwards the model is one plain transformers can save and load, and its logits are the same as before. A head
        that becomes a matrix of its own makes `tie_word_embeddings` false, in the text config too.
        """
        ...


# --- losses ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class CoordPositions:
    """Positions whose target is a coord token, already shifted (row i predicts bins[i]) and selected.

    logits: [n, K] float32, columns in bin order. bins: [n] int64, the target bin.
    values: [n] float32, the real-valued target in bin units; equal to `bins` where nothing finer is known.
    full_lse: [n] float32, log-sum-exp over the whole vocabulary; None unless a term asks (`full_lse = True`).
    """

    logits: Tensor
    bins: Tensor
    values: Tensor
    full_lse: Tensor | None = None


@attrs.frozen(kw_only=True, slots=False)
class TextPositions:
    """Positions with any supervised target, already shifted and selected.

    Scope "text" holds those whose target is no coord token, scope "token" holds all.
    logits: [n, V] float32; only there for a term that asks (`full_logits = True`). Everything below is there anyway,
    and the core can give it without ever holding an [n, V] tensor.
    labels: [n] int64. coord_ids: [K] int64, empty when the run has no coord tokens.
    """

    logits: Tensor
    labels: Tensor
    coord_ids: Tensor

    @cached_property
    def label_logits(self) -> Tensor:
        """[n] float32, the logit of each label."""
        return self.logits.gather(-1, self.labels[:, None]).squeeze(-1)

    @cached_property
    def coord_logits(self) -> Tensor:
        """[n, K] float32, the columns of the coord tokens in bin order."""
        return self.logits[:, self.coord_ids]

    @cached_property
    def lse(self) -> Tensor:
        """[n] log-sum-exp over the vocabulary, computed once and shared by every term of the chunk."""
        return self.logits.logsumexp(-1)

    @cached_property
    def coord_lse(self) -> Tensor:
        """[n] log-sum-exp over the coord columns; minus infinity when the run has none."""
        return self.coord_logits.logsumexp(-1)

    @cached_property
    def text_lse(self) -> Tensor:
        """[n] log-sum-exp over all columns but the coord tokens'."""
        return self.logits.index_fill(-1, self.coord_ids, -math.inf).logsumexp(-1)


@attrs.frozen(kw_only=True)
class BoxPositions:
    """Whole boxes: the four corner positions (x1, y1, x2, y2) of each `bbox_2d` of the answer.

    logits: [m, 4, K] float32, columns in bin order. bins: [m, 4] int64. values: [m, 4] float32 as in CoordPositions.
    """

    logits: Tensor
    bins: Tensor
    values: Tensor


@runtime_checkable
class LossTerm(Protocol):
    """Built by a loss component, alone or several in a list. A term is a pure function of its positions.

    scope: which positions it sees: "coord", "text", "token" (both of them) or "box".
    weights: part name -> weight. `__call__` returns exactly these parts. Weight 0 makes a part a diagnostic: it is
        logged, costs no gradient and changes nothing.
    full_lse: a "coord" term that reads `positions.full_lse`. Leave it False to be spared the full-vocabulary product.
    A "text" or "token" term that does not read `positions.logits` says so with `full_logits` (see TextTerm).

    The core owns everything else: masks, shifting, chunking, memory, gradient accumulation, ranks, logging. The loss
    of a step is `sum over parts of weight * (sum over positions) / (global number of positions)`.
    """

    @property
    def scope(self) -> Scope: ...

    @property
    def weights(self) -> Mapping[str, float]: ...

    @property
    def full_lse(self) -> bool: ...

    def __call__(self, positions: Any, /) -> Mapping[str, Tensor]:
        """One loss per position (per box for scope "box"): part name -> [n] float32, not reduced.

        `positions` is CoordPositions, TextPositions or BoxPositions by scope; it may be a chunk of the batch, in any
        order, so a position's loss must not depend on its neighbours. Let NaN through: the core stops the run.
        """
        ...


@runtime_checkable
class TextTerm(LossTerm, Protocol):
    """A "text" or "token" term that says whether it reads `positions.logits`.

    full_logits: False spares the [n, V] tensor; the other properties of TextPositions are there all the same. A term
    without this attribute gets the logits.
    """

    @property
    def full_logits(self) -> bool: ...


# --- evaluation -----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Evaluation:
    """What an evaluator works on.

    checkpoint: a plain transformers folder, the run's merged one. output: a folder of its own, empty or holding what an
    interrupted evaluation left. examples: those held out, in the builder's order; their answers are the ground truth.
    device: "cpu" or "cuda". log: prints a line to the user.
    """

    checkpoint: Path
    output: Path
    run_dir: Path
    examples: ExampleSource
    quantisation: Quantisation
    vocab: CoordVocab | None
    device: str
    log: Callable[[str], None]


@attrs.frozen(kw_only=True)
class EvaluationResult:
    """What an evaluator found. metrics: all of them, by name. shown: the names worth a line on the terminal.

    files: what a person should open, such as a report.
    """

    metrics: Mapping[str, float]
    shown: Sequence[str] = ()
    files: Sequence[Path] = ()


class Evaluator(Protocol):
    """Built by an eval component. Called once on rank 0, when the run is merged."""

    def __call__(self, evaluation: Evaluation, /) -> EvaluationResult:
        """Measure the checkpoint and leave the details in `evaluation.output`.

        May be called again after an interruption, with what it has left there. Raises InputError for what the user
        can mend, RunError otherwise; the merged checkpoint stays in either case.
        """
        ...


# --- the engine -----------------------------------------------------------------------------------------------------


class Engine(Protocol):
    """What trains a manifest, offered through `coordcore_engine`. Torch-free: `coordcore check` asks it.

    How it trains, rehearses and binds is `coordcore_train.engine`'s, for those who build on torch.
    """

    def check(self, run: Manifest) -> Iterable[Problem]:
        """What would stop the engine: the base checkpoint, its own arguments, settings that exclude each other."""
        ...

    def notes(self, run: Manifest) -> Iterable[str]:
        """What `check` could not look into on this machine, for the user to know."""
        ...


# --- optimizer ------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TaggedParameter:
    """A trainable parameter as an optimizer factory sees it.

    tag: "vision", "aligner" or "llm" from the model's architecture, or what a surgery calls it ("offset").
    decay: False for biases and norms, by the rule of transformers' Trainer.
    """

    name: str
    parameter: nn.Parameter
    tag: str
    decay: bool


class OptimizerSettings(Protocol):
    """The `[train]` settings an optimizer factory starts from."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    def create(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer that `[train] optim` names (fused AdamW by default), over `groups`."""
        ...


class OptimizerFactory(Protocol):
    """Built by an optimizer component."""

    def __call__(self, parameters: Sequence[TaggedParameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
        """An optimizer over all `parameters`, each in exactly one group (the core checks), in a repeatable order.

        A "name" key in a group survives save and resume and names the group in the logs.
        """
        ...
