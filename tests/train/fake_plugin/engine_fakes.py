"""A plugin of small components for the tests of the engine, found through its own entry point. Torch-free to import."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs

from coordcore import (
    COORD_SUPERVISION,
    COORD_TOKENS,
    BuildContext,
    Component,
    Example,
    FunctionTerm,
    Geometry,
    hookimpl,
    option,
)
from coordcore.components import LENGTHS
from coordcore.errors import RunError
from coordcore.protocols import EvaluationResult

Fault = Literal["none", "long", "missing", "corrupt", "geometry", "pixels", "narrow"]


# --- data: boxes of any bin, answers of unequal length, every fourth without a box ------------------------------------


@attrs.frozen(kw_only=True)
class BoxesConfig:
    train: int = option(default=48, help="training examples")
    validation: int = option(default=0, help="validation examples")
    boxes_until: int = option(default=10**6, help="the training example from which on none has a box")
    fault: Fault = option(default="none", help="what is wrong with example 3")


def numbers(index: int) -> list[list[int]]:
    """The boxes of an example: none, one or two."""
    count = 0 if index % 4 == 3 else 1 + index % 2
    return [[index * 37 % 500, index * 91 % 500, 500 + index * 13 % 499, 500 + n] for n in range(count)]


@attrs.frozen(kw_only=True)
class Boxes:
    name: str
    count: int
    fault: Fault
    boxes_until: int = 10**6

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        from PIL import Image

        boxes = numbers(index + (100 if self.name == "validation" else 0)) if index < self.boxes_until else []
        written = ["[" + ", ".join(f"<|coord_{k}|>" for k in box) + "]" for box in boxes]
        answer = f"{{{', '.join(written)}}}" + "x" * (index % 5)
        images: list[Any] = [Image.new("RGB", (32, 32), (index * 5 % 255, 40, 90))]
        geometries = [Geometry(kind="bbox_2d", values=tuple(k + 0.25 for k in box)) for box in boxes]
        if index == 3 and self.fault == "long":
            answer += "long " * 2000
        if index == 3 and self.fault == "missing":
            images = [Path("/nowhere/image.png")]
        if index == 3 and self.fault == "corrupt":
            images = [b"no image at all"]
        if index == 3 and self.fault == "pixels":  # of an image twice as wide as high, nothing is left
            images = [Image.new("RGB", (64, 32))]
        if index == 3 and self.fault == "narrow":  # nothing of its height, though there are pixels enough
            images = [Image.new("RGB", (3000, 2))]
        if index == 3 and self.fault == "geometry":
            geometries = [Geometry(kind="bbox_2d", values=(1.0, 2.0, 3.0, 4.0))]
        limits = {"pixels": 1, "narrow": 1024}
        return Example(
            messages=[{"role": "user", "content": "<image>find"}, {"role": "assistant", "content": answer}],
            images=images,
            geometries=tuple(geometries),
            source=f"{self.name}.jsonl:{index + 1}",
            image_size=(32, 32) if index % 3 else None,
            group="small" if self.fault in limits else "",
            max_pixels=limits.get(self.fault) if index == 3 else None,
        )

    def length(self, epoch: int, index: int) -> tuple[int, list[tuple[int, int]]]:
        return 20 * len(numbers(index)) + index % 5, [(32, 32)]


@attrs.frozen
class BoxesBuilder:
    config: BoxesConfig

    def train(self) -> Boxes:
        config = self.config
        return Boxes(name="train", count=config.train, fault=config.fault, boxes_until=config.boxes_until)

    def validation(self) -> Boxes | None:
        count = self.config.validation
        return Boxes(name="validation", count=count, fault="none") if count else None


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name="fake_boxes",
            config=BoxesConfig,
            build=lambda config, _context: BoxesBuilder(config),
            summary="boxes that follow from the index",
            provides=lambda _config: [COORD_TOKENS, LENGTHS],
            requires=lambda _config: [COORD_SUPERVISION],
        )
    ]


# --- loss: one term over coord positions, one over boxes --------------------------------------------------------------


@attrs.frozen(kw_only=True)
class BinsConfig:
    nan_from: int = option(default=0, help="the training micro-batch from which the box part is NaN; 0 for never")


class BinTerm:
    """Cross-entropy over the bins, and a diagnostic."""

    scope: Literal["coord"] = "coord"
    weights: Mapping[str, float] = {"ce": 1.0, "miss": 0.0}
    needs = frozenset({"full_lse"})

    def __call__(self, positions: Any) -> Mapping[str, Any]:
        from torch.nn import functional

        return {
            "ce": functional.cross_entropy(positions.logits, positions.bins, reduction="none"),
            "miss": (positions.logits.argmax(-1) - positions.values).abs(),
        }


class CornerTerm:
    """Distance of the expected corners from the real-valued ones."""

    scope: Literal["box"] = "box"
    weights: Mapping[str, float] = {"corners": 0.01}
    needs: frozenset[Any] = frozenset()

    def __init__(self, nan_from: int) -> None:
        self.nan_from = nan_from
        self.calls = -2  # the proof at the start of a run calls it twice

    def __call__(self, positions: Any) -> Mapping[str, Any]:
        import torch

        bins = torch.arange(positions.logits.shape[-1], dtype=torch.float32)
        loss = ((positions.logits.softmax(-1) @ bins) - positions.values).abs().mean(-1)
        self.calls += torch.is_grad_enabled()
        return {"corners": loss * torch.nan if 0 < self.nan_from <= self.calls else loss}


@attrs.frozen(kw_only=True)
class WeighedConfig:
    detached: bool = option(default=False, help="whether it is cut off the graph")


def _by_example(targets: Any) -> Any:
    import torch

    return 1 / torch.bincount(targets.origin.example)[targets.origin.example]


def _small(targets: Any) -> Any:
    """Objects of less than 12 pixels' width; those of unknown size count half."""
    import torch

    width = targets.origin.object_size[:, 0]
    return torch.where(width.isnan(), 0.5, (width < 12).float())


def _weighed_terms(config: WeighedConfig) -> list[FunctionTerm]:
    def bin_ce(positions: Any) -> Any:
        from torch.nn import functional

        loss = functional.cross_entropy(positions.logits, positions.bins, reduction="none")
        return loss.detach() if config.detached else loss

    def width_error(positions: Any) -> Any:
        """In pixels where the image's size is known, else in bins."""
        import torch

        bins = positions.logits.softmax(-1) @ torch.arange(positions.logits.shape[-1], dtype=torch.float32)
        width = positions.origin.image_size[:, 0]
        return (bins[:, 2] - positions.values[:, 2]).abs() * torch.where(width.isnan(), 1.0, width / 999)

    return [
        FunctionTerm(fn=bin_ce, weigh=_by_example, schedule=lambda step, total: step / total, name="ramp"),
        FunctionTerm(fn=width_error, scope="box", weight=0.01, weigh=_small, needs=frozenset({"origin"}), name="small"),
    ]


@hookimpl
def coordcore_losses() -> Iterable[Component]:
    return [
        Component(
            name="fake_weighed",
            config=WeighedConfig,
            build=lambda config, _context: _weighed_terms(config),
            summary="by example and by size, one of them by and by",
        ),
        Component(
            name="fake_bins",
            config=BinsConfig,
            build=lambda config, _context: [BinTerm(), CornerTerm(config.nan_from)],
            summary="bins and corners",
            provides=lambda _config: [COORD_SUPERVISION],
        ),
    ]


# --- surgery: trainable rows beside the frozen embedding and head -----------------------------------------------------


@attrs.frozen(kw_only=True)
class RowsConfig:
    own_head: bool = option(default=False, help="whether the head has rows of its own")
    free: bool = option(default=False, help="whether it is of the free form, to which the other settings belong")
    live: bool = option(default=True, help="whether verify finds the surgery alive")
    declared: bool = option(default=True, help="whether the hook on the head is declared")
    merging: Literal["whole", "nothing", "leftover"] = option(default="whole", help="what merging does")


def _row_offset(vocab: Any, hidden_size: int, own_head: bool) -> Any:
    import torch

    module = torch.nn.Module()
    for name in ("rows", "head_rows") if own_head else ("rows",):
        module.register_parameter(name, torch.nn.Parameter(torch.zeros(len(vocab.ids), hidden_size)))
    module.register_buffer("ids", torch.tensor(vocab.ids), persistent=False)
    return module


def _head_rows(table: Any) -> Any:
    return getattr(table, "head_rows", table.rows)


@attrs.frozen(kw_only=True)
class FakeRows:
    """A table that is added to the coord rows of embedding and head, or one for each."""

    own_head: bool = False
    name: str = "row_offset"
    tag: str = "rows"

    def module(self, facts: Any) -> Any:
        return _row_offset(facts.vocab, facts.hidden_size, self.own_head)

    def embedding_rows(self, module: Any) -> Any:
        from coordcore.protocols import AddedRows

        return AddedRows(ids=module.ids, rows=module.rows)

    def head_rows(self, module: Any) -> Any:
        from coordcore.protocols import AddedRows

        return AddedRows(ids=module.ids, rows=_head_rows(module))


class FreeRows:
    """The same in the free form, through hooks that `rebind` binds anew."""

    modules_to_save: Sequence[str] = ("row_offset",)
    frozen: Sequence[str] = ("embed_tokens", "lm_head")

    def __init__(self, config: RowsConfig) -> None:
        self.config = config
        self.handles: list[Any] = []

    def live(self, model: Any) -> Any:
        """The table that acts: PEFT keeps the one it was given aside, and trains a copy."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        module = base.row_offset
        return module.modules_to_save["default"] if hasattr(module, "modules_to_save") else module

    def install(self, model: Any, vocab: Any) -> None:
        for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
            matrix.weight.requires_grad_(False)
        hidden_size = model.get_input_embeddings().weight.shape[1]
        model.add_module("row_offset", _row_offset(vocab, hidden_size, self.config.own_head))
        self.rebind(model)

    def rebind(self, model: Any) -> None:
        table = self.live(model)

        def embed(_module: Any, args: Any, output: Any) -> Any:
            place = (args[0][..., None] == table.ids).float()
            return output + (place @ table.rows).to(output.dtype)

        def head(module: Any, args: Any, output: Any) -> Any:
            if output.shape[-1] != module.weight.shape[0]:  # the objective stands in for the head
                return output
            return output.index_add(-1, table.ids, (args[0].float() @ _head_rows(table).T).to(output.dtype))

        for handle in self.handles:
            handle.remove()
        self.handles = [
            model.get_input_embeddings().register_forward_hook(embed),
            model.get_output_embeddings().register_forward_hook(head),
        ]

    def verify(self, model: Any) -> None:
        if not self.config.live:
            raise RuntimeError("the rows are not bound; call rebind")

    def head_offset(self, model: Any) -> Any:
        from coordcore.protocols import AddedRows

        table = self.live(model)
        return AddedRows(ids=table.ids, rows=_head_rows(table)) if self.config.declared else None

    def parameters(self, model: Any) -> Mapping[str, Sequence[Any]]:
        return {"rows": list(self.live(model).parameters())}

    def merge(self, model: Any) -> None:
        import torch

        table, embed, head = model.row_offset, model.get_input_embeddings(), model.get_output_embeddings()
        if self.config.own_head:
            head.weight = torch.nn.Parameter(head.weight.detach().clone())
            for config in (model.config, model.config.get_text_config()):
                config.tie_word_embeddings = False
            model.all_tied_weights_keys = {}
        if self.config.merging != "nothing":
            with torch.no_grad():
                embed.weight[table.ids] += table.rows
                if head.weight is not embed.weight:
                    head.weight[table.ids] += _head_rows(table)
        for handle in self.handles:
            handle.remove()
        if self.config.merging != "leftover":
            del model.row_offset


@hookimpl
def coordcore_surgeries() -> Iterable[Component]:
    def build(config: RowsConfig, _context: BuildContext) -> FakeRows | FreeRows:
        return FreeRows(config) if config.free else FakeRows(own_head=config.own_head)

    return [Component(name="fake_rows", config=RowsConfig, build=build, summary="rows beside the matrices")]


# --- interruptions at a known step, asked for by the environment ------------------------------------------------------


@hookimpl
def coordcore_step_ended(step: int, metrics: Mapping[str, float]) -> None:
    if os.environ.get("FAKE_KILL_AT") == str(step):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("FAKE_STOP_AT") == str(step):
        raise RunError(f"stopped at step {step}")
    if os.environ.get("FAKE_FULL_DISK_AT") == str(step):
        # No file may grow beyond this: as near to a full disk as a process gets without a file system of its own.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@hookimpl
def coordcore_run_ended(error: BaseException | None) -> None:
    if "FAKE_END" in os.environ:
        raise ValueError(f"cannot say that it ended with {error}")


# --- evaluation: counts what it was given -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class CountConfig:
    fail_at: str = option(default="", help="the folder name of the evaluation that fails")


def _count(config: CountConfig, evaluation: Any) -> EvaluationResult:
    import torch

    if evaluation.output.name == config.fail_at:
        raise RunError(f"no evaluation at {config.fail_at}")
    torch.rand(3)  # as a careless evaluator might
    left = evaluation.output / "seen.txt"
    left.write_text(f"{(evaluation.checkpoint / 'config.json').is_file()} {len(evaluation.examples)}")
    return EvaluationResult(metrics={"examples": float(len(evaluation.examples))}, shown=["examples"], files=[left])


@hookimpl
def coordcore_evaluators() -> Iterable[Component]:
    return [
        Component(
            name="fake_count",
            config=CountConfig,
            build=lambda config, _context: partial(_count, config),
            summary="counts the examples",
        )
    ]
