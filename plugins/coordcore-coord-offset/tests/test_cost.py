"""What the adapter makes: no copy of a matrix, no second tensor of logits, nothing the host has to wait for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText, AutoTokenizer

from coordcore.builtins import FunctionTerm
from coordcore.coords import CoordVocab
from coordcore_coord_offset import CoordOffsetSurgery, install_coord_offset_adapter
from coordcore_train.objective import Objective, loss_in_forward, make_targets
from coordcore_train.surgery.rows import LiveRows
from coordcore_train.testing.tiny import tiny_qwen3vl

Work = Callable[[Any, list[LiveRows]], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3vl(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def vocab(folder: Path) -> CoordVocab:
    return CoordVocab.from_tokenizer(AutoTokenizer.from_pretrained(folder))


def _frozen(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The tiny Qwen3-VL, nothing of it trainable; the gradient flows back to its embeddings, as under LoRA."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).requires_grad_(False)
    model.enable_input_require_grads()
    return model


class _Fresh(TorchDispatchMode):
    """Counts freshly allocated tensors by their number of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[int] = Counter()
        # Kept alive, so that a freed address is not taken for one that was seen.
        self._seen: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._is_new(leaf)
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if self._is_new(leaf):
                self.elements[leaf.untyped_storage().nbytes() // leaf.element_size()] += 1
        return output

    def _is_new(self, item: Any) -> bool:
        if not isinstance(item, Tensor):
            return False
        address = item.untyped_storage().data_ptr()
        new = address not in self._seen
        self._seen.setdefault(address, item)
        return new


TOKENS = 7


def _tokens(vocab: CoordVocab) -> Tensor:
    return torch.tensor([[8, vocab.ids[0], vocab.ids[999], 5, vocab.ids[500], vocab.ids[500], 9]])


def _training(model: Any, vocab: CoordVocab, _surgeries: list[LiveRows]) -> None:
    logits = model(input_ids=_tokens(vocab), use_cache=False).logits
    logits.backward(torch.ones(logits.shape))


def _objective(model: Any, vocab: CoordVocab, surgeries: list[LiveRows]) -> None:
    tokens = _tokens(vocab)
    gate = FunctionTerm(fn=lambda positions: positions.full_lse - positions.logits.logsumexp(-1), needs={"full_lse"})
    # In blocks of the vocabulary, so that nothing of its whole length is the objective's own either.
    objective = Objective([("gate", gate)], vocab, chunk_columns=100)
    with loss_in_forward(model, objective, make_targets(tokens, vocab), surgeries=surgeries) as outputs:
        model(input_ids=tokens, use_cache=False)
    outputs[0].loss.backward()


@torch.no_grad()
def _evaluation(model: Any, vocab: CoordVocab, _surgeries: list[LiveRows]) -> None:
    model.eval()(input_ids=_tokens(vocab))


def _generation(model: Any, vocab: CoordVocab, _surgeries: list[LiveRows]) -> None:
    tokens = _tokens(vocab)
    model.eval().generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), min_new_tokens=4, max_new_tokens=4, do_sample=False
    )


@pytest.mark.parametrize("tie_head", [True, False])
@pytest.mark.parametrize("work", [_training, _objective, _evaluation, _generation])
def test_no_second_matrix_and_no_second_logits(folder: Path, vocab: CoordVocab, work: Any, tie_head: bool) -> None:
    surgery, adapted = LiveRows(CoordOffsetSurgery(tie_head=tie_head)), _frozen(folder)
    surgery.install(adapted, vocab)
    made = []
    for model, surgeries in ((_frozen(folder), []), (adapted, [surgery])):
        with _Fresh() as fresh:
            work(model, vocab, surgeries)
        made.append(fresh.elements)
    frozen, ours = made
    rows, width = adapted.get_output_embeddings().weight.shape
    assert ours[rows * width] == 0
    of_logits = [length * rows for length in range(1, TOKENS + 4)]
    assert {size: ours[size] for size in of_logits} == {size: frozen[size] for size in of_logits}
    assert max(ours - frozen) <= max(1000 * width, TOKENS * 1000)


def test_what_a_backward_pass_makes_is_counted() -> None:
    """Without it the test above would see half of what it should."""
    weight, upstream = torch.ones(3, 5, requires_grad=True), torch.ones(3)
    product = weight @ torch.ones(5)
    with _Fresh() as fresh:
        product.backward(upstream)
    assert fresh.elements[15] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_waits_for_a_value(folder: Path, vocab: CoordVocab, dtype: torch.dtype) -> None:
    """A meta tensor has shapes and no values: whatever asks one for its values, or for their number, raises."""
    model = _frozen(folder, dtype)
    adapter = install_coord_offset_adapter(model, vocab.ids)
    model.to("meta")
    hidden = model.get_input_embeddings()(_tokens(vocab).to("meta"))
    model.get_output_embeddings()(hidden).sum().backward()
    assert adapter.embed_offset.grad is not None
    assert adapter.embed_offset.grad.shape == (1000, hidden.shape[-1])


@pytest.mark.parametrize("tie_head", [True, False])
def test_generate_gives_the_tokens_of_the_merged_model(
    folder: Path, vocab: CoordVocab, randomise: Callable[[nn.Module], None], tie_head: bool
) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    surgery = LiveRows(CoordOffsetSurgery(tie_head=tie_head))
    surgery.install(model, vocab)
    randomise(model)
    prompts = _tokens(vocab).repeat(2, 1)
    prompts[1, 0] = vocab.ids[3]

    def answers() -> Any:
        return model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            min_new_tokens=16,
            max_new_tokens=16,
            do_sample=False,
            no_repeat_ngram_size=1,  # so that many rows take part
        ).tolist()

    live = answers()
    surgery.merge(model)
    assert answers() == live
    # The offsets decide what is said, and what was said is read with them.
    assert sum(token in vocab.ids for token in live[0][TOKENS:]) > 8
