"""What each kind of component builds: the contract between the core and a plugin.

Shape legend: n positions, m boxes, K bins (1000), V vocabulary rows, H hidden size.
Importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import attrs

from coordcore.errors import RunError
from coordcore.records.example import Example

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from coordcore.coords import CoordVocab
    from coordcore.errors import Problem
    from coordcore.manifest.sections import Manifest
    from coordcore.quantisation import Quantisation

Scope = Literal["coord", "text", "token", "box"]


# --- data -----------------------------------------------------------------------------------------------------------


class ExampleSource(Protocol):
    """Examples by index. Read lazily, picklable (data-loader workers), the same example for the same index.

    One whose examples differ from epoch to epoch also has `in_epoch(epoch: int, index: int) -> Example`, which training
    asks in the place of `source[index]`: the same example for the same two numbers, whatever was asked before. epoch:
    from 0.

    One that can tell how long an example is without making it also has
    `length(epoch: int, index: int) -> tuple[int, Sequence[tuple[int, int]]]`: about how many tokens its texts have, and
    width and height in pixels of each of its images. `[train] group_by_length` asks it for every example, once an epoch
    and on every rank, with the same answer everywhere; the component then provides `coordcore.components.LENGTHS`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class DataBuilder(Protocol):
    """Built by a data component.

    One whose examples come from several places may have `groups: Sequence[str]`, and give each example one of them as
    its `group`: the run's metrics then tell the groups apart (`loss@coco`).

    One whose examples are of several tasks (`coordcore.tasks`) may have `prompts`: by task, "detect" among them, the
    prompt that is asked in evaluation, with its placeholder. Checkpoints carry it; None stands for no tasks.
    """

    def train(self) -> ExampleSource:
        """The training examples, unshuffled: the core shuffles with the run's seed."""
        ...

    def validation(self) -> ExampleSource | None:
        """The held-out examples, or None when there are none."""
        ...


# --- answers --------------------------------------------------------------------------------------------------------


class AnswerFormat(Protocol):
    """Built by a format component: a `coordcore.records.answers.Format`, which describes how answers are written.

    Writer, parser and the grammar of constrained decoding follow from it, and checkpoints carry it.
    """

    @property
    def name(self) -> str: ...

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it; `Format.from_dict` gives the same format back."""
        ...


# --- template -------------------------------------------------------------------------------------------------------


class TemplateAdapter(Protocol):
    """Built by a template component.

    Provisional: it gets the engine's own object, an ms-swift `Template`, because what adapters
    have to mend (fixed media ids, a second scaling of boxes) differs with the engine's version. An adapter must be
    ready for its attributes to change. What is not provisional: it is called once, before anything is encoded.
    """

    def apply(self, template: Any) -> None:
        """Change one ms-swift `Template` instance in place; its class and other instances stay as they are.

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


HeadOffset = AddedRows  # its name in the first drafts, after which surgeries have been written


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


Need = Literal["full_lse", "logits", "origin"]


class NotRequestedError(RunError):
    """A term read what it did not ask for."""


def requested(value: Any, need: Need) -> Any:
    """`value`, or NotRequestedError with the cure where it is None."""
    if value is None:
        raise NotRequestedError(f'it reads positions.{need}, which it did not ask for; add "{need}" to its needs')
    return value


@attrs.frozen(kw_only=True)
class Origin:
    """Where positions come from. n is m for scope "box".

    example: [n] int64, the number of the example within its batch. image_size, object_size: [n, 2] float32, width and
    height in pixels of the example's image and of the object that a coordinate belongs to; NaN where unknown, and
    object_size wherever there is no object.
    """

    example: Tensor
    image_size: Tensor
    object_size: Tensor


@attrs.frozen(kw_only=True)
class Targets:
    """What all positions of one scope in a batch are to say, before a model has seen them. On the CPU.

    labels, bins: [n] int64 ([m, 4] for scope "box"), token ids and bins; a bin is -1 where the label is no coord token.
    values: [n] or [m, 4] float32, as in CoordPositions, NaN where the label is no coord token.
    """

    labels: Tensor
    bins: Tensor
    values: Tensor
    origin: Origin


@attrs.frozen(kw_only=True)
class CoordPositions:
    """Positions whose target is a coord token, already shifted (row i predicts bins[i]) and selected.

    logits: [n, K] float32, columns in bin order. bins: [n] int64, the target bin.
    values: [n] float32, the real-valued target in bin units; equal to `bins` where nothing finer is known.
    full_lse: [n] float32, log-sum-exp over the whole vocabulary, and origin: for a term whose `needs` name them.
    """

    logits: Tensor
    bins: Tensor
    values: Tensor
    _full_lse: Tensor | None = None
    _origin: Origin | None = None

    @property
    def full_lse(self) -> Tensor:
        return requested(self._full_lse, "full_lse")

    @property
    def origin(self) -> Origin:
        return requested(self._origin, "origin")


@attrs.frozen(kw_only=True, slots=False)
class TextPositions:
    """Positions with any supervised target, already shifted and selected.

    Scope "text" holds those whose target is no coord token, scope "token" holds all.
    labels: [n] int64. coord_ids: [K] int64, empty when the run has no coord tokens.
    logits: [n, V] float32, and origin: for a term whose `needs` name them. Everything below is there anyway, and the
    core can give it without ever holding an [n, V] tensor.
    """

    labels: Tensor
    coord_ids: Tensor
    _logits: Tensor | None = None
    _origin: Origin | None = None

    @property
    def logits(self) -> Tensor:
        return requested(self._logits, "logits")

    @property
    def origin(self) -> Origin:
        return requested(self._origin, "origin")

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
    origin: for a term whose `needs` name it.
    """

    logits: Tensor
    bins: Tensor
    values: Tensor
    _origin: Origin | None = None

    @property
    def origin(self) -> Origin:
        return requested(self._origin, "origin")


@runtime_checkable
class LossTerm(Protocol):
    """Built by a loss component, alone or several in a list. A term is a pure function of its positions.

    scope: which positions it sees: "coord", "text", "token" (both of them) or "box".
    weights: part name -> weight. `__call__` returns exactly these parts. Weight 0 makes a part a diagnostic: it is
        logged, costs no gradient and changes nothing. A part with a weight must depend on the logits.
    needs: what it reads that costs something: "full_lse" (scope "coord": the full-vocabulary product), "logits" (scopes
        "text" and "token": [n, V] logits), "origin" (every scope).

    The core owns everything else: masks, shifting, chunking, memory, gradient accumulation, ranks, logging. The loss
    of a step is `sum over parts of weight * (sum over positions) / (global number of positions)`.

    A term may have two more attributes, either of them None or a function:

    position_weights(targets: Targets) -> {part: [n] float32, 0 or more}: its positions count that much, in the sum and
        in the denominator; 0 leaves a position out of both. Parts that it does not name count every position once. A
        function of the targets alone, called beside the collator with whole examples: a weight may depend on all
        positions of its example, and on no other example.
    weights_at(step: int, total_steps: int) -> {part: weight}: the weights of `weights`, as they follow the training.
        `step` steps are done, 0 before the first. A function of its arguments alone, so that a resumed run weighs as
        the run would have. Logged as `weight/<component>/<part>`. Evaluation keeps to `weights`, so that the
        `eval_loss` of different steps can be compared.
    """

    @property
    def scope(self) -> Scope: ...

    @property
    def weights(self) -> Mapping[str, float]: ...

    @property
    def needs(self) -> Set[Need]: ...

    def __call__(self, positions: Any, /) -> Mapping[str, Tensor]:
        """One loss per position (per box for scope "box"): part name -> [n] float32, not reduced.

        `positions` is CoordPositions, TextPositions or BoxPositions by scope; it may be a chunk of the batch, in any
        order, so a position's loss must not depend on its neighbours. Let NaN through: the core stops the run.
        """
        ...


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
    """Built by an eval component. Called on rank 0 when the run is merged, and on every saved checkpoint before where
    `train.evaluate_checkpoints` asks for it: what it raises then is told, and training goes on."""

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


RESERVED_TAGS = ("vision", "aligner", "llm")
"""The tags of the model's own parts: the vision tower, its projector, and everything else. No surgery may use them."""


@attrs.frozen(kw_only=True)
class TaggedParameter:
    """A trainable parameter as an optimizer factory sees it.

    tag: one of RESERVED_TAGS from the model's architecture, or what a surgery's `parameters` calls it ("offset"). A
        factory must take any tag.
    decay: False for biases and norms, by the rule of transformers' Trainer.
    """

    name: str
    parameter: nn.Parameter
    tag: str
    decay: bool


class OptimizerSettings(Protocol):
    """The `[train]` settings an optimizer factory starts from.

    betas: the decay rates of the moments that Adam and its kin keep. total_steps: optimizer steps of the whole run, the
    same when it is resumed. The learning rate of every group is multiplied by the run's schedule (`train.schedule`,
    `train.warmup`) whatever the optimizer; an optimizer that follows a schedule of its own counts its steps in its
    state.
    """

    @property
    def learning_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def betas(self) -> tuple[float, float]: ...

    @property
    def total_steps(self) -> int: ...

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
