"""Checks of surgeries of both forms, on tiny Qwen3-VL checkpoints with a tied and with an untied head, under LoRA."""

from __future__ import annotations

import copy
import functools
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from coordcore.components import Component
from coordcore.coords import CoordVocab
from coordcore.errors import InputError, RunError
from coordcore.protocols import ModelSurgery
from coordcore.testing.building import build

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
    from coordcore_train.testing.tiny import tiny_qwen3vl

    return tiny_qwen3vl(Path(_folder().name) / ("tied" if tied else "untied"), tie_word_embeddings=tied)


def load_plain(folder: Path) -> Any:
    """A checkpoint as plain transformers loads it, in eval mode."""
    from transformers import AutoModelForImageTextToText

    from coordcore_train.run.quiet import quiet_transformers

    quiet_transformers()
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@attrs.frozen(kw_only=True)
class Subject:
    """A surgery installed in a fresh tiny model, a row surgery as the engine does it.

    inputs: some text and some coord tokens. base, hooks: logits, and hooks by module, before.
    """

    surgery: ModelSurgery
    model: Any
    vocab: CoordVocab
    inputs: dict[str, Tensor]
    base: Tensor
    hooks: dict[str, int]
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

    from coordcore_train.checkpoint.folder import read_vocab

    for tied in (True, False):
        folder = tiny_base(tied=tied)
        vocab = read_vocab(folder)
        model = load_plain(folder)
        ids = torch.arange(40, 64)[None]
        ids[0, 4:20] = torch.tensor(vocab.ids)[::63]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            base = model(**inputs).logits
        hooks = _hooks(model)
        surgery = _installed(component, config, vocab, model)
        yield Subject(surgery=surgery, model=model, vocab=vocab, inputs=inputs, base=base, hooks=hooks, tied=tied)


def _installed(component: Component, config: Any, vocab: CoordVocab, model: Any) -> ModelSurgery:
    from coordcore_train.surgery.rows import as_model_surgery

    try:
        surgery = as_model_surgery(build(component, config, vocab=vocab))
        surgery.install(model, vocab)
    except InputError as error:
        raise AssertionError(f"a run would refuse it: {error}") from error
    return surgery


def _hooks(model: nn.Module) -> dict[str, int]:
    """Path of a module -> how many hooks it has, and whether its forward was replaced; where there is any."""
    found = {}
    for path, module in model.named_modules():
        kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if count := sum(map(len, kinds)) + ("forward" in module.__dict__):
            found[path] = count
    return found


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Within this context Python, NumPy and torch draw from `seed`; afterwards as if nothing had been drawn."""
    import numpy
    import torch

    kept = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            numpy.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(kept[0])
        numpy.random.set_state(kept[1])


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
    """It builds a RowSurgery or a ModelSurgery, and every module that it wants to be saved is there when installed."""
    for subject in subjects(component, config):
        present = dict(subject.model.named_children())
        missing = [name for name in subject.surgery.modules_to_save if name not in present]
        assert not missing, f"modules_to_save names {missing}, but install put no such module at the model's top level"


def check_surgery_starts_the_same(component: Component, config: Any = None) -> None:
    """Installed under other random seeds it starts with the same values: every rank, and a run that continues."""
    import torch

    from coordcore_train.checkpoint.folder import read_vocab

    folder = tiny_base(tied=True)
    vocab, states = read_vocab(folder), []
    for seed in (1, 2):
        model = load_plain(folder)
        with _random_state(seed):
            _installed(component, config, vocab, model)
        states.append(model.state_dict())
    first, second = states
    assert first.keys() == second.keys(), "it installs other tensors the second time"
    other = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert not other, (
        f"it starts with other values of {', '.join(other)} under another random seed; draw them from a "
        "torch.Generator of your own (context.seed)"
    )


def check_surgery_identity_at_start(component: Component, config: Any = None) -> None:
    """Installed, and wrapped, it changes no logit."""
    for subject in subjects(component, config):
        for step, model in (("install", subject.model), ("rebind", subject.wrapped())):
            difference = _difference(subject.logits(model), subject.base)
            assert difference <= TOLERANCE, (
                f"after {step} the logits differ from the base's by {difference:.3g} (tied={subject.tied}); "
                "start from a change of zero"
            )


def check_surgery_only_its_parameters_train(component: Component, config: Any = None) -> None:
    """Under LoRA, what trains is LoRA's own and what `parameters` declares, all of it."""
    for subject in subjects(component, config):
        model = subject.wrapped()
        own = {id(parameter) for parameter in _own(subject.surgery, model)}
        trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        frozen = len(own - trainable.keys())
        assert not frozen, f"{frozen} parameters that the surgery declares do not train; bind to the live module"
        strangers = [name for key, name in trainable.items() if key not in own and "lora_" not in name]
        assert not strangers, f"{', '.join(strangers)} train although `parameters` does not declare them"


def check_surgery_verify(component: Component, config: Any = None) -> None:
    """`verify` accepts a bound model, and raises RuntimeError for one that the surgery does not act on."""
    for subject in subjects(component, config):
        subject.surgery.verify(subject.wrapped())
        untouched = load_plain(tiny_base(tied=subject.tied))
        try:
            subject.surgery.verify(untouched)
        except RuntimeError:
            continue
        raise AssertionError("verify accepts a model in which the surgery was never installed; raise RuntimeError")


def check_surgery_acts(component: Component, config: Any = None) -> None:
    """Every parameter it declares gets a gradient through a bound model, and changing them changes the logits."""
    for subject in subjects(component, config):
        model = subject.wrapped()
        model(**subject.inputs).logits.float().square().sum().backward()
        for tag, parameters in subject.surgery.parameters(model).items():
            dead = sum(parameter.grad is None for parameter in parameters)
            assert not dead, f"{dead} parameters tagged {tag!r} get no gradient; they are not part of the forward"
        _move(subject.surgery, model)
        if _own(subject.surgery, model):
            assert _difference(subject.logits(model), subject.base) > TOLERANCE, "changed parameters change no logit"


def check_surgery_rebinds_twice(component: Component, config: Any = None) -> None:
    """A second `rebind` changes nothing: hooks are replaced, not added."""
    for subject in subjects(component, config):
        model = subject.wrapped()
        _move(subject.surgery, model)
        once = subject.logits(model)
        subject.surgery.rebind(model)
        difference = _difference(subject.logits(model), once)
        assert difference <= TOLERANCE, (
            f"a second rebind changes the logits by {difference:.3g}; remove old hooks first"
        )


def check_surgery_objective(component: Component, config: Any = None) -> None:
    """Loss and gradients of the model's own logits are those through the objective, which projects by itself."""
    from coordcore_train.surgery.proof import prove

    for subject in subjects(component, config):
        try:
            reason = prove(subject.wrapped(), {component.name: subject.surgery}, subject.vocab)
        except RunError as error:
            raise AssertionError(f"{error} (tied={subject.tied})") from error
        assert reason is None, f"nothing could be compared: {reason}"


def check_surgery_rows_are_pure(component: Component, config: Any = None) -> None:
    """The functions of a RowSurgery give the rows of the module they are given, the same ones twice."""
    import torch

    from coordcore_train.surgery.hooks import live_module
    from coordcore_train.surgery.rows import LiveRows

    for subject in subjects(component, config):
        if not isinstance(subject.surgery, LiveRows):
            continue
        rows, module = subject.surgery.surgery, live_module(subject.model, subject.surgery.name)
        other = copy.deepcopy(module)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter))
        for function in (rows.embedding_rows, rows.head_rows):
            first, of_other, second = function(module), function(other), function(module)
            if first is None or of_other is None or second is None:
                assert first is of_other is second, (
                    f"{function.__name__} gives None for one module and rows for another"
                )
                continue
            same = torch.equal(first.ids, second.ids) and torch.equal(first.rows, second.rows)
            assert same, f"{function.__name__} gives other rows at the second call; compute them from the module alone"
            assert not torch.equal(first.rows, of_other.rows), (
                f"{function.__name__} gives the same rows for a copy of the module with other parameters; compute them "
                "from the module it is given: PEFT trains a copy"
            )


def check_surgery_merges_plain(component: Component, config: Any = None) -> None:
    """Merged, it is gone, hooks and all; saved, plain transformers loads the model and computes the live logits."""
    for subject in subjects(component, config):
        model = subject.wrapped()
        _move(subject.surgery, model)
        live = subject.logits(model)
        merged = model.merge_and_unload()
        subject.surgery.merge(merged)
        left = [name for name in subject.surgery.modules_to_save if hasattr(merged, name)]
        assert not left, f"merge left {', '.join(left)} in the model"
        left = [path for path, count in _hooks(merged).items() if count > subject.hooks.get(path, 0)]
        assert not left, f"merge left a hook on {', '.join(left)}; remove it"
        _check_ties(merged)
        with tempfile.TemporaryDirectory() as folder:
            merged.save_pretrained(folder)
            for what, plain in (("model", merged), ("checkpoint", load_plain(Path(folder)))):
                difference = _difference(subject.logits(plain), live)
                assert difference <= TOLERANCE, (
                    f"the merged {what}'s logits differ from the live model's by {difference:.3g} "
                    f"(tied={subject.tied}); write the surgery into the weights that are saved"
                )


def _check_ties(model: Any) -> None:
    """Raise AssertionError unless every config says of embedding and head what their weights are."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for config in (model.config, model.config.get_text_config()):
        if tied == config.tie_word_embeddings:
            continue
        what = "is the embedding's" if tied else "has a weight of its own"
        raise AssertionError(
            f"tie_word_embeddings of {type(config).__name__} is {config.tie_word_embeddings}, but the head {what}; set "
            f"it to {tied}, as a loader believes it"
        )


CHECKS = (
    check_surgery_protocol,
    check_surgery_starts_the_same,
    check_surgery_identity_at_start,
    check_surgery_only_its_parameters_train,
    check_surgery_verify,
    check_surgery_acts,
    check_surgery_rebinds_twice,
    check_surgery_objective,
    check_surgery_rows_are_pure,
    check_surgery_merges_plain,
)
