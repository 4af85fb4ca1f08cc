"""A row surgery in a live model: installed, bound, verified and merged, as the free form would be. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.guard import told
from coordcore.protocols import RESERVED_TAGS, AddedRows, ModelFacts, ModelSurgery, RowSurgery
from coordcore_train.surgery.hooks import bind_hooks, live_module, rows_by_role, rows_of
from coordcore_train.surgery.matrices import (
    ROLES,
    Matrices,
    Role,
    embedding_scale,
    matrices_of,
    require_fitting,
    unwrapped,
)
from coordcore_train.surgery.saving import guard_saving, merge_rows


def as_model_surgery(built: object, *, seed: int = 0) -> ModelSurgery:
    """What a surgery component built, in the form that the engine calls.

    seed: of the run, for the random numbers that a row surgery's module starts with.
    Raises InputError for what is neither form.
    """
    if isinstance(built, RowSurgery):
        _require_names(built)
        return LiveRows(built, seed=seed)
    if isinstance(built, ModelSurgery):
        return built
    raise InputError(
        f"build gave a {type(built).__name__}, which is neither a coordcore.protocols.RowSurgery nor a ModelSurgery; "
        "see docs/how-to/write-a-surgery.md"
    )


def _require_names(surgery: RowSurgery) -> None:
    name = surgery.name
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(
            f"the surgery's name must be a Python name, which the model holds its module under; got {name!r}"
        )
    require_tag(surgery.tag)


def require_tag(tag: object) -> None:
    """Raise InputError for a tag that names no parameters of a surgery's own."""
    if not isinstance(tag, str) or not tag:
        raise InputError(f"the tag must name the surgery's parameters, as in 'offset'; got {tag!r}")
    if tag in RESERVED_TAGS:
        raise InputError(f"the tag {tag!r} is a part of the model's own; give the surgery's another name")


@attrs.define(eq=False)
class LiveRows:
    """A `RowSurgery` at work in a model, as the `ModelSurgery` that it stands for.

    seed: torch's random state while the module is made, on every rank and at every start of a run.
    """

    surgery: RowSurgery
    seed: int = attrs.field(default=0, kw_only=True)
    _dtypes: dict[str, torch.dtype] | None = attrs.field(default=None, init=False)

    frozen: Sequence[str] = attrs.field(default=(), init=False)
    """Nothing by name: `freeze` knows the matrices themselves."""

    @property
    def name(self) -> str:
        return self.surgery.name

    @property
    def modules_to_save(self) -> Sequence[str]:
        return (self.name,)

    def install(self, model: nn.Module, vocab: CoordVocab | None) -> None:
        """Make the surgery's module and `add` it, where the model is. The global random state is left alone."""
        embedding = matrices_of(unwrapped(model)).embedding.weight
        facts = ModelFacts(
            vocab=vocab, vocabulary_size=embedding.shape[0], hidden_size=embedding.shape[1], dtype=embedding.dtype
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            module = self._own("module", self.surgery.module, facts)
        self.add(model, module)

    def add(self, model: nn.Module, module: nn.Module) -> None:
        """Make `module` a part of the freshly loaded `model`, whose matrices it freezes and whose logits it leaves.

        Raises InputError for rows that do not fit or are not zero, and for matrices that cannot be merged into
        (quantised, wrapped by PEFT, in parts); RuntimeError when the name is taken or PEFT has wrapped the
        model. The model is then as it was.
        """
        if unwrapped(model) is not model:
            raise RuntimeError(
                f"{type(model).__name__} is already wrapped by PEFT, which would not save {self.name}; install first, "
                f"then wrap with modules_to_save=[{self.name!r}]"
            )
        if hasattr(model, self.name):
            raise RuntimeError(
                f"{type(model).__name__} already has a {self.name}; install it once per loaded model, and where the "
                "name is one of the model's own, give the surgery another"
            )
        # PEFT's `modules_to_save` means every module whose name ends so.
        if clash := next((path for path, _ in model.named_modules() if path.endswith(self.name)), None):
            raise RuntimeError(
                f"{type(model).__name__} has a module {clash}, which PEFT would train and save under the name "
                f"{self.name} too; give the surgery another"
            )
        if not isinstance(module, nn.Module):
            raise InputError(f"{self.name}: module must give a torch.nn.Module, got {type(module).__name__}")
        module.to(matrices_of(model).embedding.weight.device)
        given = {role: self._own(f"{role}_rows", partial(rows_of, self.surgery), module, role) for role in ROLES}
        found = {role: added for role, added in given.items() if added is not None}
        if not found:
            raise InputError(
                f"{self.name} adds rows to neither embedding nor head; give some from one of its functions"
            )
        for role, added in found.items():
            require_fitting(self.name, role, added, model)
        model.add_module(self.name, module)
        self._dtypes = {name: parameter.dtype for name, parameter in module.named_parameters()}
        self.freeze(model)
        self.rebind(model)

    def _own(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of the surgery gives. Raises InputError, with both names, for what it raises."""
        try:
            return function(*arguments)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self.name}: {what} raised {told(error)}") from error

    def freeze(self, model: nn.Module) -> None:
        """Freeze the matrices that rows are added to."""
        base = unwrapped(model)
        for role in self._rows(live_module(base, self.name)):
            matrices_of(base).module(role).weight.requires_grad_(False)

    def rebind(self, model: nn.Module) -> None:
        """Bind the hooks to the embedding and head that `model` uses now, and to no other module. Idempotent.

        Raises RuntimeError when the module is not installed, InputError when a matrix is wrapped or quantised.
        """
        base = unwrapped(model)
        roles = list(self._rows(live_module(base, self.name)))
        bind_hooks(base, matrices_of(base), self.surgery, roles)
        guard_saving(base, self.name)

    @torch.no_grad()
    def verify(self, model: nn.Module) -> None:
        """Prove that the rows act, once: change the module's parameters, look at a token's embedding and its logit.

        Raises RuntimeError, with what was seen and the cure, when they do not follow the rows, when a matrix is
        trainable, or when the module was cast.
        """
        base = unwrapped(model)
        module, matrices = live_module(base, self.name), matrices_of(base)
        for name, parameter in module.named_parameters():
            wanted = (self._dtypes or {}).get(name, parameter.dtype)
            if parameter.dtype != wanted:
                raise RuntimeError(
                    f"{self.name}.{name} was made in {wanted} but is {parameter.dtype}; do not cast the model after "
                    "the surgery was installed"
                )
        for role in self._rows(module):
            if matrices.module(role).weight.requires_grad:
                raise RuntimeError(
                    f"the {role}'s own weight is trainable beside the rows of {self.name}; freeze it "
                    "(requires_grad_(False))"
                )
        before = self._observe(module, matrices)
        with moved(module.parameters()):
            after = self._observe(module, matrices)
        for role, (token, rows, seen) in after.items():
            change, expected = seen - before[role][2], rows - before[role][1]
            share = float((change @ expected) / (expected @ expected))
            # Half a unit of slack is for bfloat16; a missing hook makes it 0, a doubled one 2.
            if not 0.5 < share < 1.5:
                what = {"embedding": "embedding", "head": "logit"}[role]
                raise RuntimeError(
                    f"the rows of {self.name} are not live: a change of 1 moves the {what} of token {token} by "
                    f"{share:.3g}; bind it again after the model was wrapped or its embeddings were replaced"
                )

    def _observe(self, module: nn.Module, matrices: Matrices) -> dict[Role, tuple[int, Tensor, Tensor]]:
        """For each matrix the last id, its row, and what the model makes of it: [H] float32 each.

        Of the head that is the logit of every unit vector.
        """
        found: dict[Role, tuple[int, Tensor, Tensor]] = {}
        for role, added in self._rows(module).items():
            token, row = added.ids[-1:], added.rows[-1].float().clone()
            if role == "embedding":
                seen = matrices.embedding(token)[0]
                scale = embedding_scale(matrices.embedding)
                row = row if scale is None else row * scale.float()
            else:
                weight = matrices.head.weight
                hidden = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)[:_PROBES]
                seen, row = matrices.head(hidden)[:, token[0]], row[:_PROBES]
            found[role] = (int(token), row, seen.float())
        return found

    def embedding_offset(self, model: nn.Module) -> AddedRows | None:
        """The live rows for the embedding."""
        return self.surgery.embedding_rows(live_module(model, self.name))

    def head_offset(self, model: nn.Module) -> AddedRows | None:
        """The live rows for the head. Ask inside the forward: under FSDP the parameters are whole only there."""
        return self.surgery.head_rows(live_module(model, self.name))

    def parameters(self, model: nn.Module) -> Mapping[str, Sequence[nn.Parameter]]:
        return {self.surgery.tag: list(live_module(model, self.name).parameters())}

    def merge(self, model: nn.Module) -> None:
        """Add the rows to those they belong to, and remove the module and its hooks.

        Tied matrices stay tied where both get the same rows. Otherwise the head becomes a matrix of its own, and
        `tie_word_embeddings` false in every config. The model is then one that `save_pretrained` writes whole.

        Raises RuntimeError when the module is not installed or PEFT still wraps it.
        """
        merge_rows(model, self.surgery)

    def _rows(self, module: nn.Module) -> dict[Role, AddedRows]:
        return rows_by_role(self.surgery, module)


_PROBES = 64  # unit vectors that the head is looked at with


@contextmanager
def moved(parameters: Iterator[nn.Parameter] | Sequence[nn.Parameter]) -> Iterator[None]:
    """Within this context the parameters are away from where they start, as training would leave them.

    The steps are as large as entries of a matrix of that width, and always the same.
    """
    kept = [(parameter, parameter.detach().clone()) for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter, _ in kept:
                width = parameter.shape[-1] if parameter.dim() else 1
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * max(width, 1) ** -0.5)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)
