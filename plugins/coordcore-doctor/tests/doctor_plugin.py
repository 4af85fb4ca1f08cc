"""A plugin of small components for the tests of the doctor, each with a fault to ask for. Torch-free to import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    InputError,
    hookimpl,
    option,
)
from coordcore.coords import ints_to_tokens
from coordcore.quantisation import Quantisation, encode_boxes, quantisation

# --- data -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class BoxesConfig:
    count: int = option(default=12, help="examples")
    limit: int | None = option(default=None, help="of them")
    width: int = option(default=64, help="of the pictures")
    height: int = option(default=64, help="of the pictures")
    side: int = option(default=24, help="of the boxes, in pixels")
    fractions: bool = option(default=False, help="boxes are fractions of the pictures, read as pixels")
    max_pixels: int | None = option(default=None, help="of the pictures in training")
    convention: str = option(default="", help="another than the run's")
    fault: Literal["", "unread", "uncounted", "own format", "decomposed", "special tokens"] = option(
        default="", help="what is wrong with example 3"
    )


@attrs.frozen(kw_only=True)
class Boxes:
    config: BoxesConfig
    spec: Quantisation

    def __len__(self) -> int:
        return min(self.config.count, self.config.limit or self.config.count)

    def __getitem__(self, index: int, /) -> Example:
        from PIL import Image

        config, fault = self.config, self.config.fault if index == 3 else ""
        if fault == "unread":
            raise InputError("boxes.jsonl:4: objects[0]: no box")
        left, top = 1.37 + index, 2.71 + index
        box = (left, top, left + config.side, top + config.side)
        if config.fractions:
            box = (left / config.width, top / config.height, box[2] / config.width, box[3] / config.height)
        encoded = encode_boxes([box], config.width, config.height, quantisation=self.spec)
        written = encoded
        if config.convention:
            other = quantisation(config.convention)
            written = encode_boxes([box], config.width, config.height, quantisation=other)
        bins = ", ".join(ints_to_tokens(written.bins[0].tolist()))
        answer = f'{{"objects": [{{"desc": "box", "bbox_2d": [{bins}]}}]}}'
        if fault == "decomposed":
            answer = answer.replace('box"', 'cafe\u0301"')
        if fault == "own format":
            answer = f"box at {bins}"
        if fault == "special tokens":
            answer = f"<|box_start|>{answer}<|box_end|>"
        values = tuple(encoded.values[0].tolist())
        return Example(
            messages=({"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": answer}),
            images=(Image.new("RGB", (config.width, config.height), (index * 9, 40, 90)),),
            geometries=() if fault == "uncounted" else (Geometry(kind="bbox_2d", values=values),),
            source=f"boxes.jsonl:{index + 1}",
            max_pixels=config.max_pixels,
        )


@attrs.frozen(kw_only=True)
class Builder:
    source: Boxes

    def train(self) -> Boxes:
        return self.source

    def validation(self) -> None:
        return None


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name="doctor_boxes",
            config=BoxesConfig,
            build=lambda config, context: Builder(source=Boxes(config=config, spec=context.quantisation)),
            summary="a box on a picture",
            provides=lambda _config: [COORD_TOKENS],
            requires=lambda _config: [COORD_SUPERVISION],
        )
    ]


# --- template -------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TemplateConfig:
    fault: Literal["", "other ids", "no end", "other text"] = option(default="", help="what is wrong with it")


@attrs.frozen(kw_only=True)
class Template:
    fault: str

    def apply(self, template: Any) -> None:
        if self.fault:
            encode = template._encode
            template._encode = lambda inputs: self._spoilt(encode(inputs), template)

    def _spoilt(self, encoded: dict[str, Any], template: Any) -> dict[str, Any]:
        ids, labels = list(encoded["input_ids"]), list(encoded["labels"])
        first = next(place for place, label in enumerate(labels) if label >= 0)
        coord = template.tokenizer.convert_tokens_to_ids("<|coord_0|>")
        if self.fault == "other ids":
            ids = [ids[first] if label >= coord else id_ for id_, label in zip(ids, labels, strict=True)]
        if self.fault == "no end":
            labels = [-100 if label == template.tokenizer.eos_token_id else label for label in labels]
        if self.fault == "other text":
            ids[first] = labels[first] = ids[first + 1]
        return {**encoded, "input_ids": ids, "labels": labels}


@hookimpl
def coordcore_template_adapters() -> Iterable[Component]:
    return [
        Component(
            name="doctor_template",
            config=TemplateConfig,
            build=lambda config, _context: Template(fault=config.fault),
            summary="the model's own, spoilt if asked",
        )
    ]


# --- loss -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class LossConfig:
    weight: float = option(default=1.0, help="of the cross-entropy over the bins")


def _over_bins(positions: Any) -> Any:
    from torch.nn import functional

    return functional.cross_entropy(positions.logits, positions.bins, reduction="none")


@hookimpl
def coordcore_losses() -> Iterable[Component]:
    return [
        Component(
            name="doctor_ce",
            config=LossConfig,
            build=lambda config, _context: FunctionTerm(fn=_over_bins, weight=config.weight),
            summary="cross-entropy over the bins",
            provides=lambda _config: [COORD_SUPERVISION],
        )
    ]


# --- surgery: trainable rows on the output head ---------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class RowsConfig:
    declared: bool = option(default=True, help="whether the hook on the head is declared")
    idle: bool = option(default=False, help="whether it has a parameter that nothing uses")


class Rows:
    modules_to_save: Sequence[str] = ("doctor_rows",)
    frozen: Sequence[str] = ()

    def __init__(self, config: RowsConfig) -> None:
        self.config = config
        self.handle: Any = None

    def live(self, model: Any) -> Any:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        module = base.doctor_rows
        return module.modules_to_save["default"] if hasattr(module, "modules_to_save") else module

    def install(self, model: Any, vocab: Any) -> None:
        import torch

        table = torch.nn.Module()
        hidden = model.get_input_embeddings().weight.shape[1]
        table.register_parameter("rows", torch.nn.Parameter(torch.zeros(len(vocab.ids), hidden)))
        if self.config.idle:
            table.register_parameter("idle", torch.nn.Parameter(torch.zeros(3)))
        table.register_buffer("ids", vocab.ids_tensor(), persistent=False)
        model.add_module("doctor_rows", table)
        self.rebind(model)

    def rebind(self, model: Any) -> None:
        table = self.live(model)

        def head(module: Any, args: Any, output: Any) -> Any:
            if output.shape[-1] != module.weight.shape[0]:  # the objective stands in for the head
                return output
            return output.index_add(-1, table.ids, (args[0].float() @ table.rows.T).to(output.dtype))

        if self.handle is not None:
            self.handle.remove()
        self.handle = model.get_output_embeddings().register_forward_hook(head)

    def verify(self, model: Any) -> None:
        """Nothing to see: the core compares the head itself."""

    def head_offset(self, model: Any) -> Any:
        from coordcore.protocols import AddedRows

        table = self.live(model)
        return AddedRows(ids=table.ids, rows=table.rows) if self.config.declared else None

    def parameters(self, model: Any) -> Mapping[str, Sequence[Any]]:
        return {"rows": list(self.live(model).parameters())}

    def merge(self, model: Any) -> None:
        raise NotImplementedError  # the doctor never merges


@hookimpl
def coordcore_surgeries() -> Iterable[Component]:
    def build(config: RowsConfig, _context: BuildContext) -> Rows:
        return Rows(config)

    return [Component(name="doctor_rows", config=RowsConfig, build=build, summary="rows on the output head")]


# --- optimizer ------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class OptimizerConfig:
    fault: Literal["forgets", "idle"] = option(help="what is wrong with its groups")


def _factory(config: OptimizerConfig, _context: BuildContext) -> Any:
    def create(parameters: Sequence[Any], settings: Any) -> Any:
        members = [entry.parameter for entry in parameters]
        if config.fault == "forgets":
            return settings.create([{"name": "all", "params": members[:-1]}])
        return settings.create([{"name": "idle", "params": members, "lr": 0.0}])

    return create


@hookimpl
def coordcore_optimizers() -> Iterable[Component]:
    return [Component(name="doctor_optimizer", config=OptimizerConfig, build=_factory, summary="faulty groups")]
