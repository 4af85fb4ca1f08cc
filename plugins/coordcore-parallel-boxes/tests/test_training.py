"""Training: the places that are looked at, what is learned, and that the model stays as it is."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from boxes_support import checkpoint, example, model_of, untold

from coordcore.coords import CoordVocab
from coordcore.errors import InputError
from coordcore.records.example import Example, Geometry
from coordcore_parallel_boxes.heads import Heads, coord_rows, fingerprint, layers_of
from coordcore_parallel_boxes.training import BOXES, KEPT, Seen, drawn, look, step, train

torch.set_num_threads(1)

Asked = tuple[Any, Any, CoordVocab]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return model_of(checkpoint(tmp_path_factory.mktemp("base")))


def looked(asked: Asked, examples: list[Example]) -> Seen | None:
    model, processor, vocab = asked
    return look(model, processor, vocab.ids_tensor(), layers_of(model), examples, None)


def trained(asked: Asked, source: Any, **changes: Any) -> Any:
    model, processor, vocab = asked
    settings: dict[str, Any] = {"examples": 60, "batch_size": 10, "rank": 8, "seed": 0, "max_pixels": None} | changes
    return train(model, processor, vocab, source, told=untold, **settings)


# --- what is looked at ----------------------------------------------------------------------------------------------


def test_the_states_at_the_places_that_predict_a_corner(asked: Asked) -> None:
    """Against one example alone, its places found by their tokens."""
    model, processor, vocab = asked
    examples = [example(0, 1), example(1, 3)]
    found = looked(asked, examples)
    assert found is not None
    assert found.hidden.shape == (4, 3, len(layers_of(model)), 32)

    from coordcore_train.chat import question_text

    item = examples[1]
    text = question_text(processor, item.messages[:-1]) + item.messages[-1]["content"]
    inputs = processor(text=[text], images=[list(item.images)], return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    places = torch.isin(inputs["input_ids"][0], vocab.ids_tensor()).nonzero()[:, 0]
    assert len(places) == 12
    second = places[4:8]  # of the second box
    states = [output.hidden_states[layer][0, second[:3] - 1] for layer in layers_of(model)]
    torch.testing.assert_close(found.hidden[2], torch.stack(states, 1), rtol=1e-4, atol=1e-4)
    says = output.logits[0, second[1:] - 1][:, vocab.ids_tensor()].softmax(-1)
    torch.testing.assert_close(found.said[2], says, rtol=1e-3, atol=1e-5)


def test_boxes_are_told_from_other_geometries(asked: Asked) -> None:
    item = example(0, 2)
    point = Geometry(kind="point", values=item.geometries[0].values[:2])
    other = Geometry(kind="point", values=item.geometries[0].values[2:])
    found = looked(asked, [attrs.evolve(item, geometries=(point, other, item.geometries[1]))])
    both = looked(asked, [item])
    assert found is not None
    assert both is not None
    assert torch.equal(found.hidden, both.hidden[1:])


def test_examples_without_boxes_or_with_coordinates_in_the_question_are_passed_over(asked: Asked) -> None:
    item = example(0)
    messages = [{"role": "user", "content": "<image>What is at <|coord_5|>?"}, item.messages[-1]]
    assert looked(asked, [attrs.evolve(item, geometries=())]) is None
    assert looked(asked, [attrs.evolve(item, messages=messages)]) is None
    assert looked(asked, [attrs.evolve(item, messages=item.messages[:1])]) is None


def test_an_image_that_the_processor_refuses_is_passed_over(asked: Asked) -> None:
    from PIL import Image

    narrow = attrs.evolve(example(1), images=(Image.new("RGB", (1, 5000)),))
    found, alone = looked(asked, [example(0), narrow]), looked(asked, [example(0)])
    assert found is not None
    assert alone is not None
    assert torch.equal(found.hidden, alone.hidden)
    assert looked(asked, [narrow]) is None


def test_images_are_reduced_as_in_training(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    from coordcore_parallel_boxes import training

    seen: list[int | None] = []
    monkeypatch.setattr(training, "reduced", lambda image, limit: seen.append(limit) or image)
    model, processor, vocab = asked
    limited = attrs.evolve(example(1), max_pixels=700)
    look(model, processor, vocab.ids_tensor(), (0,), [example(0), limited], 900)
    look(model, processor, vocab.ids_tensor(), (0,), [example(0), limited], None)
    assert seen == [900, 700, None, 700]


# --- what is learned ------------------------------------------------------------------------------------------------


def test_a_step_is_the_cross_entropy_of_the_corners_not_written_yet() -> None:
    torch.manual_seed(0)
    heads = Heads((0,), 6, 4, torch.randn(10, 6))
    seen = Seen(hidden=torch.randn(5, 3, 1, 6), said=torch.randn(5, 3, 10).softmax(-1))
    expected = []
    for box in range(5):
        for corner in range(3):
            log_p = heads.logits(seen.hidden[box, corner][None])[0].log_softmax(-1)
            expected += [-(seen.said[box, other] * log_p[other]).sum() for other in range(corner, 3)]
    loss = step(heads, torch.optim.AdamW(heads.parameters()), 0.0, seen)
    assert loss == pytest.approx(float(torch.stack(expected).mean().detach()), rel=1e-5)


def test_heads_learn_what_can_be_seen() -> None:
    """Corners that stand in the hidden state are proposed exactly."""
    torch.manual_seed(0)
    bins = torch.randint(0, 20, (64, 3))
    hidden = torch.nn.functional.one_hot(bins, 20).float().flatten(1)[:, None, None].expand(-1, 3, 1, -1)
    heads = Heads((0,), 60, 32, torch.randn(20, 60))
    optimizer = torch.optim.AdamW(heads.parameters(), lr=0.0)
    said = torch.nn.functional.one_hot(bins, 20).float()
    for _ in range(300):
        step(heads, optimizer, 3e-3, Seen(hidden=hidden, said=said))
    assert (heads(hidden[:, 0]) == bins).float().mean() > 0.95


def test_a_draw_is_of_the_latest() -> None:
    generator = torch.Generator().manual_seed(0)
    latest = [
        Seen(hidden=torch.full((50, 3, 1, 2), float(number)), said=torch.full((50, 3, 4), float(number)))
        for number in range(3)
    ]
    found = drawn(latest, generator)
    assert len(found) == BOXES
    assert torch.equal(found.hidden[:, 0, 0, 0], found.said[:, 0, 0])
    assert len(set(found.said[:, 0, 0].tolist())) == 3
    assert 2 * BOXES <= KEPT


def test_training_leaves_the_model_alone_and_comes_to_the_same_again(asked: Asked) -> None:
    before = fingerprint(asked[0])
    source = [example(seed) for seed in range(40)]
    state = torch.random.get_rng_state()
    heads, report = trained(asked, source, examples=33)
    again, _ = trained(asked, source, examples=33)
    other, _ = trained(asked, source, examples=33, seed=1)
    weights = [list(item.state_dict().values()) for item in (heads, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))
    assert (report.examples, report.boxes) == (33, 66)
    assert fingerprint(asked[0]) == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_example_once_at_most(asked: Asked) -> None:
    asked_for: list[int] = []

    class Source:
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Example:
            asked_for.append(index)
            return example(index)

    trained(asked, Source(), examples=100, batch_size=3)
    assert sorted(asked_for) == list(range(40))


def test_examples_without_boxes_or_with_too_few_train_nothing(asked: Asked) -> None:
    source = [attrs.evolve(example(0), geometries=())] * 3
    with pytest.raises(InputError, match=r"3 examples hold no boxes in coord tokens that heads could learn from$"):
        trained(asked, source)
    with pytest.raises(InputError, match=r"4 examples hold 8 boxes .*; give more with --examples"):
        trained(asked, [example(seed) for seed in range(4)])


def test_memory_of_a_large_model_stays_small() -> None:
    """Of a model with 4,096 hidden numbers: weights, gradients, AdamW's two moments, and the boxes that are kept."""
    heads = Heads((18, 27, 36), 4096, 128, torch.empty(1, 4096))
    kept = KEPT * 3 * (3 * 4096 * 2 + 1000 * 4)
    assert 16 * sum(weight.numel() for weight in heads.parameters()) + kept <= 64 * 2**20


def test_the_rows_of_the_bins_are_the_models(asked: Asked) -> None:
    model, _, vocab = asked
    assert torch.equal(coord_rows(model, vocab), model.get_output_embeddings().weight[list(vocab.ids)])
