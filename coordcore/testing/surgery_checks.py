"""Checks of model surgeries, on tiny Qwen3-VL checkpoints with a tied and with an untied head, under LoRA."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.components import Component
from coordcore.coords import CoordVocab
from coordcore.protocols import ModelSurgery, RowSurgery
from coordcore.testing.building import build
from coordcore_train.checkpoint.folder import read_vocab
from coordcore_train.run.quiet import quiet_transformers
from coordcore_train.testing.tiny import tiny_qwen3vl

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, that counts as rounding."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="coordcore-testing-")  # removed at exit


@functools.cache
def tiny_base(*, tied: bool) -> Path:
    """A tiny checkpoint with coord tokens, written once per process and removed at its end."""
    return tiny_qwen3vl(Path(_folder().name) / ("tied" if tied else "untied"), tie_word_embeddings=tied)


def load_plain(folder: Path) -> Any:
    """A checkpoint as plain transformers loads it, in eval mode."""
    from transformers import AutoModelForImageTextToText

    quiet_transformers()
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@attrs.frozen(kw_only=True)
class Subject:
    """A surgery installed in a fresh tiny model. inputs: some text and some coord tokens. base: logits before."""

    surgery: ModelSurgery
    model: Any
    vocab: CoordVocab
    inputs: dict[str, Tensor]
    base: Tensor
    tied: bool

    def wrapped(self) -> Any:
        """The model as LoRA leaves it, with the surgery bound to it."""
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=2, target_modules=["q_proj", "v_proj"], modules_to_save=list(self.surgery.modules_to_save) or None
        )
        model = get_peft_model(self.model, lora).eval()
        self.surgery.rebind(model)
        return model

    def logits(self, model: Any) -> Tensor:
        """[1, T, V] without a graph."""
        import torch

        with torch.no_grad():
            logits: Tensor = model(**self.inputs).logits
        return logits


def subjects(component: Component, config: Any) -> Iterator[Subject]:
    """The surgery in a tied and in an untied model, installed and not yet wrapped."""
    import torch

    for tied in (True, False):
        folder = tiny_base(tied=tied)
        vocab = read_vocab(folder)
        model = load_plain(folder)
        ids = torch.arange(40, 64)[None]
        ids[0, 4:20] = torch.tensor(vocab.ids)[::63]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            base = model(**inputs).logits
        surgery = build(component, config, vocab=vocab)
        surgery.install(model, vocab)
        yield Subject(surgery=surgery, model=model, vocab=vocab, inputs=inputs, base=base, tied=tied)


def _difference(first: Tensor, second: Tensor) -> float:
    """Largest difference relative to the largest logit; infinite when one of them is NaN."""
    difference = float((first - second).abs().max() / second.abs().max())
    return difference if difference == difference else float("inf")


def _own(surgery: ModelSurgery, model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameters in surgery.parameters(model).values() for parameter in parameters]


def _move(surgery: ModelSurgery, model: nn.Module) -> None:
    """Change what the surgery trains, as training would: at its start it changes no logit."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in _own(surgery, model):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter))


def check_surgery_protocol(component: Component, config: Any = None) -> None:
    """It builds a ModelSurgery, and installs every module it wants to be saved."""
    for one in subjects(component, config):
        assert isinstance(one.surgery, ModelSurgery), f"{one.surgery!r} lacks a member of ModelSurgery"
        present = dict(one.model.named_children())
        missing = [name for name in one.surgery.modules_to_save if name not in present]
        assert not missing, f"modules_to_save names {missing}, but install put no such module at the model's top level"


def check_surgery_identity_at_start(component: Component, config: Any = None) -> None:
    """Installed, and wrapped, it changes no logit."""
    for one in subjects(component, config):
        for step, model in (("install", one.model), ("rebind", one.wrapped())):
            difference = _difference(one.logits(model), one.base)
            assert difference <= TOLERANCE, (
                f"after {step} the logits differ from the base's by {difference:.3g} (tied={one.tied}); "
                "start from a change of zero"
            )


def check_surgery_only_its_parameters_train(component: Component, config: Any = None) -> None:
    """Under LoRA, what trains is LoRA's own and what `parameters` declares, all of it."""
    for one in subjects(component, config):
        model = one.wrapped()
        own = {id(parameter) for parameter in _own(one.surgery, model)}
        trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        frozen = len(own - trainable.keys())
        assert not frozen, f"{frozen} parameters that the surgery declares do not train; bind to the live module"
        strangers = [name for key, name in trainable.items() if key not in own and "lora_" not in name]
        assert not strangers, f"{', '.join(strangers)} train although `parameters` does not declare them"


def check_surgery_verify(component: Component, config: Any = None) -> None:
    """`verify` accepts a bound model, and raises RuntimeError for one that the surgery does not act on."""
    for one in subjects(component, config):
        one.surgery.verify(one.wrapped())
        untouched = load_plain(tiny_base(tied=one.tied))
        try:
            one.surgery.verify(untouched)
        except RuntimeError:
            continue
        raise AssertionError("verify accepts a model in which the surgery was never installed; raise RuntimeError")


def check_surgery_acts(component: Component, config: Any = None) -> None:
    """Every parameter it declares gets a gradient through a bound model, and changing them changes the logits."""
    for one in subjects(component, config):
        model = one.wrapped()
        model(**one.inputs).logits.float().square().sum().backward()
        for tag, parameters in one.surgery.parameters(model).items():
            dead = sum(parameter.grad is None for parameter in parameters)
            assert not dead, f"{dead} parameters tagged {tag!r} get no gradient; they are not part of the forward"
        _move(one.surgery, model)
        if _own(one.surgery, model):
            assert _difference(one.logits(model), one.base) > TOLERANCE, "changed parameters change no logit"


def check_surgery_rebinds_twice(component: Component, config: Any = None) -> None:
    """A second `rebind` changes nothing: hooks are replaced, not added."""
    for one in subjects(component, config):
        model = one.wrapped()
        _move(one.surgery, model)
        once = one.logits(model)
        one.surgery.rebind(model)
        difference = _difference(one.logits(model), once)
        assert difference <= TOLERANCE, (
            f"a second rebind changes the logits by {difference:.3g}; remove old hooks first"
        )


def check_surgery_head_offset(component: Component, config: Any = None) -> None:
    """What it says it adds to the output head is what the head adds: the objective projects by itself."""
    import torch

    from coordcore_train.objective import CallableHead, LinearHead

    for one in subjects(component, config):
        model = one.wrapped()
        _move(one.surgery, model)
        head = model.get_output_embeddings()
        offset = one.surgery.head_offset(model)
        generator = torch.Generator().manual_seed(2)
        hidden = torch.randn(4, one.model.config.get_text_config().hidden_size, generator=generator)
        plain = type(head) is torch.nn.Linear
        ours = LinearHead(head, offset) if plain else CallableHead(head.forward, offset)
        with torch.no_grad():
            difference = _difference(ours.full(hidden), head(hidden))
        assert difference <= TOLERANCE, (
            f"the head's logits differ by {difference:.3g} from its weight plus head_offset (tied={one.tied}); "
            "declare in head_offset what a hook adds, or replace the lm_head module"
        )


def check_surgery_merges_plain(component: Component, config: Any = None) -> None:
    """Merged and saved, plain transformers loads the model and computes the live model's logits."""
    for one in subjects(component, config):
        model = one.wrapped()
        _move(one.surgery, model)
        live = one.logits(model)
        merged = model.merge_and_unload()
        one.surgery.merge(merged)
        left = [name for name in one.surgery.modules_to_save if hasattr(merged, name)]
        assert not left, f"merge left {', '.join(left)} in the model"
        with tempfile.TemporaryDirectory() as folder:
            merged.save_pretrained(folder)
            difference = _difference(one.logits(load_plain(Path(folder))), live)
        assert difference <= TOLERANCE, (
            f"the merged checkpoint's logits differ from the live model's by {difference:.3g} "
            f"(tied={one.tied}); write the surgery into the weights that are saved"
        )


def check_surgery_says_its_rows(component: Component, config: Any = None) -> None:
    """A RowSurgery installs without the base's weights, and its two offsets are exactly what its merge writes."""
    import torch

    from coordcore_train.checkpoint.merge.skeleton import hollow

    for one in subjects(component, config):
        if not isinstance(one.surgery, RowSurgery):
            continue
        model = one.wrapped()
        _move(one.surgery, model)
        offsets = (one.surgery.embedding_offset(model), one.surgery.head_offset(model))
        plain, merged = load_plain(tiny_base(tied=one.tied)), model.merge_and_unload()
        one.surgery.merge(merged)
        for role, offset in zip(("input", "output"), offsets, strict=True):
            expected = getattr(plain, f"get_{role}_embeddings")().weight.detach().clone()
            if offset is not None:
                expected[offset.ids] += offset.rows.detach()
            found = getattr(merged, f"get_{role}_embeddings")().weight
            assert torch.equal(found, expected), (
                f"merge writes other {role} rows than embedding_offset and head_offset say (tied={one.tied}); "
                "give the live rows, or be no RowSurgery"
            )
        try:
            build(component, config, vocab=one.vocab).install(hollow(plain), one.vocab)
        except RuntimeError as error:
            raise AssertionError(f"install reads or writes the base's own weights: {error}") from error


CHECKS = (
    check_surgery_protocol,
    check_surgery_identity_at_start,
    check_surgery_only_its_parameters_train,
    check_surgery_verify,
    check_surgery_acts,
    check_surgery_rebinds_twice,
    check_surgery_head_offset,
    check_surgery_merges_plain,
    check_surgery_says_its_rows,
)
