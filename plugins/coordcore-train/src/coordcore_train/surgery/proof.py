"""The proof at the start of a run: the model's own logits and the objective train the same model. Imports torch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coordcore import builtins
from coordcore.coords import CoordVocab
from coordcore.errors import RunError
from coordcore.protocols import ModelSurgery
from coordcore_train.objective import CallableHead, Objective, loss_in_forward, make_targets
from coordcore_train.objective.in_forward import soft_cap_of
from coordcore_train.surgery.matrices import unwrapped
from coordcore_train.surgery.rows import LiveRows, moved
from coordcore_train.surgery.zero3 import is_parted

_TOKENS = 16
_TOLERANCE = {torch.float32: (1e-3, 1e-2), torch.bfloat16: (0.01, 0.1), torch.float16: (0.002, 0.02)}
"""Largest relative difference of the loss, and of the gradients, that counts as rounding, by dtype of the head.

The model rounds its logits to that dtype, the objective does not. Models of width 1024 whose logits are 10 to 30 show
0.0003 and 0.02 in bfloat16, 0.00002 and 0.003 in float16, and 1e-6 in float32 (on an accelerator, TF32 gives 0.001).
"""


@attrs.frozen(kw_only=True)
class _Measured:
    """loss: of the probe. gradients: by parameter name, those of all that trains; of the hidden states under ""."""

    loss: float
    gradients: Mapping[str, Tensor | None]


@attrs.frozen(kw_only=True)
class _Probe:
    """run: the logits of a few positions, by a forward of the model or of its head alone. targets: of these positions.

    hidden: what the head alone is given; it stands for the parameters that its gradient would go on to.
    """

    run: Callable[[], Tensor]
    targets: Mapping[str, Tensor]
    hidden: Tensor | None = None


def prove(
    model: nn.Module,
    surgeries: Mapping[str, ModelSurgery],
    vocab: CoordVocab | None,
    *,
    device: torch.device | None = None,
) -> str | None:
    """Compare loss and gradients of the model's own logits with those through the objective, on a few tokens.

    model: as the tuner wrapped it, its surgeries bound. surgeries: by the name that a message gives them. device: where
    it will train. A model that is not there yet may be unable to run: then its head alone is, on random hidden states.

    Two forwards of 16 tokens, text and coord tokens, and two backwards to everything that trains, with the surgeries'
    parameters away from where they start. The loss is the cross-entropy over the whole vocabulary, whatever the run
    trains: it depends on every logit. Afterwards model, gradients and random state are as they were.

    Returns None, or what could not be compared and why. Raises RunError, with the surgery and the cure, when the two
    differ.
    """
    weight = next(model.get_output_embeddings().parameters())  # type: ignore[operator]  # of nn.Module's __getattr__
    if weight.shape[0] == 0 or hasattr(weight, "device_mesh") or weight.is_meta:
        return "no rank holds the whole output head (FSDP)"
    _require_gradients(model, surgeries)
    _require_same_rows_served(model, surgeries)
    [text_ce] = [component for component in builtins.coordcore_losses() if component.name == "text_ce"]
    term = text_ce.build(text_ce.config(coord_positions=True), None)  # type: ignore[arg-type]  # which it does not look at
    objective = Objective([("proof", term)], vocab)
    is_there = (device is None or weight.device.type == device.type) and not is_parted(weight)
    probe = _of_model(model, vocab) if is_there else _of_head(model, vocab)
    own = [parameter for surgery in surgeries.values() for parameter in _parameters(surgery, model)]
    with moved(own), _training(model):
        through = _through_objective(model, probe, surgeries, objective)
        if through is None:
            return "the forward does not call the output head exactly once; the first step says why"
        with _same_random_state(model):
            loss = objective(probe.run(), CallableHead(_as_it_is), probe.targets).loss
        reference = _measure(model, probe, loss)
    _compare(through, reference, model, surgeries)
    where = "in parts (ZeRO-3)" if is_parted(weight) else f"not on {device} yet"
    return None if is_there else f"the model is {where}; its output head alone was compared"


@torch.no_grad()
def _require_same_rows_served(model: nn.Module, surgeries: Mapping[str, ModelSurgery]) -> None:
    """Raise RunError for rows that are others in training than when the model is served, as with dropout in them."""
    for path, surgery in surgeries.items():
        if not isinstance(surgery, LiveRows):
            continue
        with moved(_parameters(surgery, model)), _training(model):
            trained = _rows(surgery, model)
            model.eval()
            served = _rows(surgery, model)
        for role, rows in trained.items():
            if role not in served or not torch.equal(served[role], rows):
                raise RunError(
                    f"{path}: the rows it adds to the {role} are others in training than in eval mode, so that another "
                    "model would be trained than is served; compute them alike in both"
                )


def _rows(surgery: LiveRows, model: nn.Module) -> dict[str, Tensor]:
    """A copy of the rows that a surgery adds to each matrix, as the model stands."""
    added = {"head": surgery.head_offset(model), "embedding": surgery.embedding_offset(model)}
    return {role: rows.rows.detach().clone() for role, rows in added.items() if rows is not None}


def _require_gradients(model: nn.Module, surgeries: Mapping[str, ModelSurgery]) -> None:
    for path, surgery in surgeries.items():
        rows = {"head": surgery.head_offset(model)}
        if isinstance(surgery, LiveRows):
            rows["embedding"] = surgery.embedding_offset(model)
        for role, added in rows.items():
            if added is not None and not added.rows.requires_grad and _parameters(surgery, model):
                raise RunError(
                    f"{path}: the rows it adds to the {role} carry no gradient, so that they would never train; "
                    "compute them from the live parameters, without detach() or no_grad()"
                )


def _through_objective(
    model: nn.Module, probe: _Probe, surgeries: Mapping[str, ModelSurgery], objective: Objective
) -> _Measured | None:
    """The probe with the loss in place of the logits, as training has it; None when the head is not called once."""
    who = ", ".join(surgeries) or "the model"
    with (
        _same_random_state(model),
        loss_in_forward(model, objective, probe.targets, surgeries=list(surgeries.values())) as outputs,
    ):
        try:
            returned = probe.run()
        except Exception as error:
            if isinstance(error, RunError) or not outputs:  # not after the loss, so no hook's doing
                raise
            raise RunError(
                f"{who}: with the loss in place of its logits the model fails ({type(error).__name__}: {error}); "
                f"{_RETURN}"
            ) from error
    if len(outputs) != 1:
        return None
    loss, seen = float(outputs[0].loss.detach()), float(returned.detach().sum())
    if not math.isfinite(loss):  # no hook's doing, which the comparison would name
        raise RunError(
            f"{who}: the loss of a few tokens is {loss} before the first step: the base's weights, or the rows that a "
            "surgery adds, hold NaN or infinity; download or save the base again"
        )
    if not abs(seen - loss) <= 1e-6 * abs(loss) or returned.requires_grad != outputs[0].loss.requires_grad:
        raise RunError(
            f"{who}: the objective's loss is {loss:.6g}, but the model's forward returns {seen:.6g}"
            f"{'' if returned.requires_grad else ' without a gradient'}; {_RETURN}"
        )
    return _measure(model, probe, returned.sum())


_RETURN = (
    "a hook on the output head must return its output unchanged where that is the loss (its last dimension is not the "
    "vocabulary)"
)


def _measure(model: nn.Module, probe: _Probe, loss: Tensor) -> _Measured:
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    inputs: dict[str, Tensor] = dict(trained)
    if probe.hidden is not None:
        inputs[""] = probe.hidden
    if not inputs:  # nothing trains
        return _Measured(loss=float(loss.detach()), gradients={})
    gradients = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    return _Measured(loss=float(loss.detach()), gradients=dict(zip(inputs, gradients, strict=True)))


def _compare(through: _Measured, reference: _Measured, model: nn.Module, surgeries: Mapping[str, ModelSurgery]) -> None:
    weight = next(model.get_output_embeddings().parameters())  # type: ignore[operator]  # of nn.Module's __getattr__
    for_loss, for_gradients = _TOLERANCE.get(weight.dtype, _TOLERANCE[torch.bfloat16])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own = {
        path: [names[id(item)] for item in _parameters(surgery, model) if item.requires_grad]
        for path, surgery in surgeries.items()
    }
    for path, members in own.items():
        dead = [name for name in members if reference.gradients[name] is None and through.gradients[name] is None]
        if dead and isinstance(surgeries[path], LiveRows) and "" not in reference.gradients:
            raise RunError(
                f"{path}: its parameter {dead[0]} gets no gradient, so that it would never train; compute the rows "
                "from it, or remove it"
            )
    rest = [name for name in reference.gradients if not any(name in members for members in own.values())]
    loss = abs(through.loss - reference.loss) / abs(reference.loss)
    difference = _difference(through, reference, rest)
    if not (loss <= for_loss and difference <= for_gradients):
        raise RunError(
            f"{', '.join(surgeries) or 'the model'}: the loss of the model's own logits is {reference.loss:.6g}, the "
            f"objective's {through.loss:.6g}, and the gradients differ by {difference:.3g} of their size: "
            f"{_UNDECLARED if surgeries else _BEHIND}; the run would train another model than it serves"
        )
    for path, members in own.items():
        difference = _difference(through, reference, members)
        if not difference <= for_gradients:
            raise RunError(
                f"{path}: the gradient of its parameters through the objective differs from that of the model's own "
                f"logits by {difference:.3g} of its size; head_offset must give the live rows that its hook adds, "
                "without detach(): the run would train another model than it serves"
            )


_UNDECLARED = (
    "something changes the output head that no surgery declares with head_offset (declare it, or write the surgery as "
    "a RowSurgery)"
)
_BEHIND = (
    "the model changes its logits behind the output head, or not by its weight alone (call Objective yourself, with a "
    "CallableHead that does the same)"
)


def _difference(through: _Measured, reference: _Measured, names: Sequence[str]) -> float:
    """The norm of the difference of some gradients, taken together, by the norm of the reference's.

    Together, because one that is nothing but rounding (of a bias before a softmax) has no scale of its own.
    """
    gap = scale = 0.0
    for name in names:
        actual, expected = through.gradients[name], reference.gradients[name]
        present = actual if actual is not None else expected
        if present is None:
            continue
        zero = torch.zeros_like(present)
        first, other = zero if actual is None else actual, zero if expected is None else expected
        gap += float((first.float() - other.float()).square().sum())
        scale += float(other.float().square().sum())
    if gap == 0:
        return 0.0
    return (gap / scale) ** 0.5 if scale else math.inf


def _of_model(model: Any, vocab: CoordVocab | None) -> _Probe:
    """A row of text with coord tokens in it, when there are any."""
    ids, targets = _row(model, vocab)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inspect.signature(unwrapped(model).forward).parameters:
        inputs["mm_token_type_ids"] = torch.zeros_like(ids)  # ms-swift's forward under DeepSpeed does not go without
    return _Probe(run=lambda: model(**inputs, use_cache=False).logits, targets=targets)


def _of_head(model: Any, vocab: CoordVocab | None) -> _Probe:
    """Random hidden states at the positions of such a row."""
    head: nn.Module = model.get_output_embeddings()
    weight = next(head.parameters())
    _, targets = _row(model, vocab)
    hidden = torch.randn(1, _TOKENS, weight.shape[-1], generator=torch.Generator().manual_seed(0))
    hidden = hidden.to(weight.device, weight.dtype).requires_grad_()
    cap = soft_cap_of(model)  # what the model does behind the head, and the objective as part of it

    def run() -> Tensor:
        logits: Tensor = head(hidden)
        is_loss = logits.shape[-1] != weight.shape[0]
        return logits if cap is None or is_loss else cap * torch.tanh(logits / cap)

    return _Probe(run=run, targets=targets, hidden=hidden)


def _row(model: Any, vocab: CoordVocab | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Token ids [1, _TOKENS] on the model's device, and the targets of every position but the last."""
    device, rows = model.get_input_embeddings().weight.device, len(next(model.get_output_embeddings().parameters()))
    ids = torch.arange(_TOKENS)[None] % min(rows, 100)
    if vocab is not None:
        ids[0, 3::2] = torch.tensor(vocab.ids)[torch.linspace(0, len(vocab.ids) - 1, len(ids[0, 3::2])).long()]
    targets = make_targets(ids, vocab)
    return ids.to(device), {key: tensor.to(device) for key, tensor in targets.items()}


def _as_it_is(logits: Tensor) -> Tensor:
    """The head of a model whose hidden states are its logits already."""
    return logits


def _parameters(surgery: ModelSurgery, model: nn.Module) -> Sequence[nn.Parameter]:
    return [parameter for parameters in surgery.parameters(model).values() for parameter in parameters]


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in training mode, and autograd is on."""
    kept = [(module, module.training) for module in model.modules()]
    try:
        with torch.enable_grad():
            model.train()
            yield
    finally:
        for module, training in kept:
            module.training = training


@contextmanager
def _same_random_state(model: nn.Module) -> Iterator[None]:
    """Within this context dropout draws what it draws in the next; afterwards as if nothing had been drawn."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        yield
