"""The sections of a manifest that belong to the core, as frozen attrs classes. Torch-free."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, in_, le, lt, min_len, optional
from packaging.requirements import Requirement

from coordcore.components import Selected, option
from coordcore.coords import DEFAULT_COORDS, PATTERN, PRESETS, CoordFormat, Order
from coordcore.errors import InputError, did_you_mean
from coordcore.quantisation import QUANTISATIONS, quantisation

MANIFEST_VERSION = 1

PACKAGE = "package:"
"""What `[model] base` begins with for a checkpoint that lies in an installed package."""


def is_hub_id(base: str) -> bool:
    """Whether `base` has the form of a hub id, OWNER/NAME."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", base) is not None


_MANY = 10**9
"""More steps, tokens or pixels than that are a slip of the keyboard, and overflow what reads them."""


def _up_to(most: float) -> Any:
    """A number above 0, at most `most`."""
    return and_(gt(0), le(most))


def _count_or_none(help: str, most: int = _MANY) -> Any:  # noqa: A002 - as in `option`
    """A key that holds a number above 0, or is absent."""
    return option(default=None, validator=optional(_up_to(most)), help=help)


def _is_text(_instance: Any, attribute: attrs.Attribute[Any], text: str) -> None:
    if not text.isprintable():
        raise ValueError(f"{attribute.name} must not hold control characters")


def _is_address(_instance: Any, _attribute: Any, address: str) -> None:
    """A host name or an IP address."""
    label = r"(?![\d.]*$)[A-Za-z0-9](?:[\w-]{0,61}[A-Za-z0-9])?"  # of four numbers none is a name
    if not re.fullmatch(rf"{label}(?:\.{label})*", address, re.ASCII):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError("must be a host name or an IP address") from None


def _auto(text: str) -> Any:
    return option(default="auto", before="auto", validator=[min_len(1), _is_text], help=text)


@attrs.frozen(kw_only=True)
class Model:
    """`[model]`: what is trained."""

    base: str = option(
        validator=[min_len(1), _is_text],
        help="checkpoint folder (relative to this file), 'package:NAME/FOLDER' for one shipped in an installed "
        "package, or a hub id",
    )
    type: str = _auto("ms-swift's model type; auto reads it off the checkpoint")
    template: str = _auto("ms-swift's template; auto takes that of the type")
    dtype: Literal["float32", "bfloat16", "float16"] = option(default="bfloat16", help="dtype of the base weights")
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = option(
        default="auto", help="attention implementation; auto lets transformers choose"
    )
    trust_remote_code: bool = option(default=False, help="run Python that lies in the base, which `auto_map` names")


@attrs.frozen(kw_only=True)
class Vocab:
    """`[vocab]`: expand a base that lacks the coord tokens before training. Leave the section out to forbid it."""

    initialiser: Literal["mean", "digits", "smooth"] = option(
        default="digits", help="how the new rows start; see coordcore expand --help"
    )
    seed: int = option(default=0, validator=[ge(0), lt(2**32)], help="seed of the initialiser's small noise")


def _writes_tokens(_instance: Any, _attribute: Any, tokens: str) -> None:
    if tokens not in PRESETS and not re.fullmatch(PATTERN, tokens):
        raise ValueError(f"must be a pattern like <|coord_{{}}|> or <loc{{:04}}>, or {' or '.join(PRESETS)}")


_BINS = attrs.Factory(lambda self: self.preset[0].bins, takes_self=True)
_TOKENS = DEFAULT_COORDS.tokens
_QUANTISATION = attrs.Factory(lambda self: self.preset[1].format(last=self.bins - 1), takes_self=True)


@attrs.frozen(kw_only=True)
class Coords:
    """`[coords]`: how coordinates are written. Data, checkpoint and predictions must agree on it."""

    tokens: str = option(
        default=_TOKENS,
        before=_TOKENS,
        validator=_writes_tokens,
        help=f"the token of each bin, or {' or '.join(PRESETS)}",
    )
    bins: int = option(
        default=_BINS, validator=[ge(2), lt(2**15)], help="bins of a coordinate; 1000, or the preset's", before=1000
    )
    quantisation: str = option(default=_QUANTISATION, help="encode and decode convention; nearest_999, or the preset's")
    order: Order | None = option(default=None, help="of x and y in a point; xy, or the preset's", before="xy")

    @property
    def preset(self) -> tuple[CoordFormat, str]:
        """What `tokens` names, with the name of its quantisation; the default where it is a pattern."""
        return PRESETS.get(self.tokens, (DEFAULT_COORDS, "nearest_{last}"))

    @property
    def format(self) -> CoordFormat:
        """How coordinates are written."""
        tokens = self.preset[0].tokens if self.tokens in PRESETS else self.tokens
        return attrs.evolve(self.preset[0], tokens=tokens, bins=self.bins, order=self.order or self.preset[0].order)

    def fault(self) -> str | None:
        """What is wrong with the quantisation."""
        try:
            bins = quantisation(self.quantisation).bins
        except InputError:
            return f"unknown quantisation {self.quantisation!r}; {did_you_mean(self.quantisation, QUANTISATIONS)}"
        return None if bins == self.bins else f"{self.quantisation!r} has {bins} bins, and coords.bins is {self.bins}"


@attrs.frozen(kw_only=True)
class Tuner:
    """`[tuner]`: which parameters of the base are trained."""

    type: Literal["lora", "full"] = option(default="lora", help="LoRA adapters, or the language model's own weights")
    rank: int = option(default=16, validator=_up_to(2**16), help="LoRA rank")
    alpha: float = option(default=32.0, validator=_up_to(1e6), help="LoRA alpha")
    dropout: float = option(default=0.0, validator=[ge(0), lt(1)], help="LoRA dropout")
    target_modules: tuple[str, ...] = option(
        default=("all-linear",),
        validator=[min_len(1), deep_iterable(_is_text)],
        help="modules LoRA adapts; all-linear for every linear layer",
    )
    freeze_vision: bool = option(default=True, help="keep the vision tower as it is")
    freeze_aligner: bool = option(default=True, help="keep the vision-to-language projector as it is")


@attrs.frozen(kw_only=True)
class Train:
    """`[train]`: how long and how."""

    steps: int | None = _count_or_none("optimizer steps; overrides epochs")
    epochs: float = option(default=1.0, validator=_up_to(1e6), help="passes over the training examples")
    batch_size: int = option(default=1, validator=_up_to(2**16), help="examples per rank and micro-batch")
    packing: bool = option(
        default=False, before=False, help="the examples of a micro-batch in one row, side by side, without padding"
    )
    group_by_length: bool = option(
        default=False, before=False, help="steps of examples that are about as long as each other"
    )
    parallel_boxes: float = option(
        default=0.0,
        before=0.0,
        validator=[ge(0), lt(1)],
        help="share of boxes whose corners are hidden in training, to be said at once; try 0.5",
    )
    accumulation: int = option(default=1, validator=_up_to(2**20), help="micro-batches per optimizer step")
    eval_batch_size: int | None = _count_or_none("examples per rank in evaluation; batch_size when absent", 2**16)
    learning_rate: float = option(default=1e-4, validator=[ge(1e-12), le(100)], help="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = option(default="cosine", help="learning-rate schedule")
    warmup: float = option(default=0.03, validator=[ge(0), lt(1)], help="share of the steps spent warming up")
    weight_decay: float = option(default=0.0, validator=[ge(0), le(100)], help="decoupled weight decay on matrices")
    betas: tuple[float, float] = option(
        default=(0.9, 0.999), validator=deep_iterable(and_(ge(0), lt(1))), help="Adam's betas"
    )
    max_grad_norm: float = option(default=1.0, validator=[ge(1e-9), le(1e9)], help="gradient norm is clipped to this")
    optim: str = option(default="adamw_torch_fused", validator=_is_text, help="transformers' optimizer name")
    max_length: int = option(
        default=2048, validator=_up_to(_MANY), help="tokens per example; a longer one stops the run"
    )
    max_pixels: int | None = _count_or_none("images are reduced to at most this many pixels")
    gradient_checkpointing: bool = option(default=False, help="trade time for memory")
    seed: int = option(default=42, validator=[ge(0), lt(2**32)], help="seed of weights, shuffling and dropout")
    workers: int = option(default=0, validator=[ge(0), le(1024)], help="data-loader processes per rank")
    threads: int | None = _count_or_none(
        "CPU threads per rank; when absent torch's choice, or 1 if there are several", 4096
    )
    device: Literal["auto", "cpu", "cuda"] = option(default="auto", help="auto takes a GPU when there is one")
    log_every: int = option(default=10, validator=_up_to(_MANY), help="steps between logged metrics")
    save_every: int | None = _count_or_none("steps between checkpoints; only the last step when absent")
    eval_every: int | None = _count_or_none("steps between evaluations; only at the end when absent")
    evaluate_checkpoints: bool = option(
        default=False, help="call the [eval] evaluators on every checkpoint when it is saved, and not only at the end"
    )
    keep: int = option(default=2, validator=_up_to(_MANY), help="checkpoints kept; the newest ones")
    report_to: tuple[str, ...] = option(default=(), help="trackers of metrics: tensorboard, wandb, swanlab, mlflow ...")
    swift: dict[str, Any] = option(factory=dict, help="any other ms-swift argument, passed through by its own name")


@attrs.frozen(kw_only=True)
class Launch:
    """`[launch]`: several processes. `coordcore run` starts torchrun itself unless it already runs under one."""

    nproc_per_node: int = option(default=1, validator=_up_to(1024), help="processes (GPUs) on this node")
    nnodes: int = option(default=1, validator=_up_to(2**16), help="nodes")
    node_rank: int = option(default=0, validator=ge(0), help="rank of this node, 0 .. nnodes-1")
    master_addr: str = option(default="127.0.0.1", validator=_is_address, help="address of node 0")
    master_port: int | None = option(
        default=None, validator=optional(in_(range(1, 65536))), help="port on node 0; a free one when absent"
    )
    timeout: int = option(default=7200, validator=_up_to(_MANY), help="seconds that a training rank waits for others")
    deepspeed: str | None = option(
        default=None, help="ms-swift's DeepSpeed setting: zero0 to zero3, zero2_offload, zero3_offload or a file"
    )
    fsdp: str | None = option(default=None, help="ms-swift's FSDP setting: fsdp2 or a file")

    def __attrs_post_init__(self) -> None:
        if self.node_rank >= self.nnodes:
            raise ValueError(f"node_rank must be below nnodes ({self.nnodes}), got {self.node_rank}")
        if self.nnodes > 1 and self.master_port is None:
            raise ValueError("master_port is needed with several nodes: each would choose another free one")
        if self.nnodes > 1 and (self.master_addr == "localhost" or self.master_addr.startswith("127.")):
            raise ValueError(f"master_addr must be node 0's address with several nodes, got {self.master_addr!r}")
        if self.deepspeed and self.fsdp:
            raise ValueError("deepspeed and fsdp exclude each other; keep one")


@attrs.frozen(kw_only=True)
class Output:
    """`[output]`: where results go."""

    dir: Path | None = option(default=None, help="run folder; runs/<name> in the working directory when absent")
    merge: bool = option(default=True, help="write the merged checkpoint to <dir>/merged at the end")


@attrs.frozen(kw_only=True)
class PluginsSection:
    """`[plugins]`: which installed plugins are not loaded."""

    block: tuple[str, ...] = option(default=(), help="distribution names to leave out")


def _is_folder_name(_instance: Manifest, _attribute: Any, name: str) -> None:
    if not name.isprintable() or not name or name[0] in ".-" or set(name) & set("/\\") or len(name.encode()) > 200:
        raise ValueError("must be usable as a folder name")


@attrs.frozen(kw_only=True)
class Manifest:
    """A whole manifest, structured. `selected` holds the component sections in manifest order, by kind."""

    manifest_version: int = option(default=MANIFEST_VERSION, help="version of this format")
    name: str = option(validator=_is_folder_name, help="names the run; the file's stem when absent")
    requires: tuple[str, ...] = option(default=(), help='distributions the run needs: "coordcore-soft-ce-w1>=0.1"')
    model: Model
    vocab: Vocab | None = None
    coords: Coords = attrs.field(factory=Coords)
    tuner: Tuner = attrs.field(factory=Tuner)
    train: Train = attrs.field(factory=Train)
    launch: Launch = attrs.field(factory=Launch)
    output: Output = attrs.field(factory=Output)
    plugins: PluginsSection = attrs.field(factory=PluginsSection)
    selected: tuple[Selected, ...] = attrs.field(default=(), metadata={"key": False})

    def of(self, kind: str) -> tuple[Selected, ...]:
        """The selected components of one kind, in manifest order."""
        return tuple(selected for selected in self.selected if selected.kind == kind)

    def capabilities(self) -> Mapping[str, tuple[str, ...]]:
        """Capability -> the dotted paths of the selected components that provide it."""
        found: dict[str, tuple[str, ...]] = {}
        for selected in self.selected:
            for capability in selected.provides:
                found[capability] = (*found.get(capability, ()), selected.path)
        return found

    @property
    def named(self) -> list[str]:
        """The distributions this run names: those of its components, and those in `requires`."""
        required = [item.name for item in map(Requirement, self.requires) if not item.marker or item.marker.evaluate()]
        return list(dict.fromkeys([*(selected.distribution for selected in self.selected), *required]))
