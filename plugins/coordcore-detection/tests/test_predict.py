"""Asking a model: a tiny Qwen3-VL that talks at random, its recorded probabilities checked by a second look."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from prediction_support import checkpoint, image, images, strict

from coordcore import InputError, RunError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore.records.answers import COORDJSON, Format, Located, answer_text
from coordcore.records.answers.format import Coords, Label
from coordcore.records.geometry import bounds
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import asking
from coordcore_detection.predict.ahead import NotAheadError
from coordcore_detection.predict.asking import Loaded, PredictSettings, header, load, predict
from coordcore_detection.predict.predictions import Row
from coordcore_detection.predict.recording import LOOP_TOKENS, loops
from coordcore_detection.predict.scores import SCORES
from coordcore_detection.predict.settings import PredictSettings as Settings
from coordcore_train.chat import chat

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder, "cpu")


def ask(loaded: Loaded, asked: Any, **settings: Any) -> list[Row]:
    chosen = {"max_new_tokens": 90, "batch_size": 4} | settings
    return list(
        predict(
            loaded.model,
            loaded.processor,
            asked,
            PredictSettings(**chosen),
            vocab=loaded.vocab,
            quantisation=loaded.quantisation,
            form=loaded.format,
        )
    )


# --- rows -----------------------------------------------------------------------------------------------------------


def test_one_row_for_each_image_in_order(loaded: Loaded) -> None:
    asked = images(6)
    rows = ask(loaded, iter(asked))
    assert [(row.image, row.width, row.height) for row in rows] == [
        (item.key, item.width, item.height) for item in asked
    ]


def test_every_constrained_answer_parses(loaded: Loaded) -> None:
    for row in ask(loaded, images(8), max_new_tokens=150):
        assert (row.unread, len(row.boxes)) == ([], len(strict(row.text)))


def test_a_batch_says_what_each_image_alone_would_get(loaded: Loaded) -> None:
    """Left padding: the images differ in size."""
    together = ask(loaded, images(5), batch_size=5)
    alone = ask(loaded, images(5), batch_size=1)
    assert [row.text for row in together] == [row.text for row in alone]
    assert len({row.text for row in alone}) > 1


def test_a_free_model_is_read_with_reasons(loaded: Loaded) -> None:
    rows = ask(loaded, images(4), constrained=False)
    assert all(not row.boxes and row.unread[0].reason.startswith("no list of objects") for row in rows)
    assert {row.stopped for row in rows} == {"length"}


def test_argmax_decodes_the_written_bins(loaded: Loaded) -> None:
    boxes = [
        (row, box) for row in ask(loaded, images(8), coordinates="argmax", geometry=["bbox_2d"]) for box in row.boxes
    ]
    assert len(boxes) > 3
    for row, box in boxes:
        x1, y1, x2, y2 = (bin_ / 999 for bin_ in box.bins)
        expected = (x1 * row.width, y1 * row.height, x2 * row.width, y2 * row.height)
        assert box.box == pytest.approx(expected, abs=1e-5)


def test_a_poly_counts_as_its_bounding_box(loaded: Loaded) -> None:
    rows = ask(loaded, images(8), coordinates="argmax", geometry=["poly"])
    found = [(box, item) for row in rows for box, item in zip(row.boxes, strict(row.text), strict=True)]
    assert len(found) > 3
    for box, item in found:
        x, y = item["poly"][::2], item["poly"][1::2]
        assert box.bins == (min(x), min(y), max(x), max(y))


def test_expected_corners_are_never_the_wrong_way_round(loaded: Loaded) -> None:
    boxes = [box.box for row in ask(loaded, images(8), window=None) for box in row.boxes]
    assert len(boxes) > 3
    assert all(x1 <= x2 and y1 <= y2 for x1, y1, x2, y2 in boxes)


def test_scores_are_probabilities_and_the_chosen_one_is_the_score(loaded: Loaded) -> None:
    for row in ask(loaded, images(4), score="min"):
        for box in row.boxes:
            assert box.score == box.scores["min"]
            assert all(0 <= score <= 1 for score in box.scores.values())


# --- what was recorded ----------------------------------------------------------------------------------------------


def again(loaded: Loaded, truth: TruthImage, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """One forward pass over question and answer: the answer's ids [T], and the logits [T, V] that predicted them."""
    inputs = loaded.processor(
        text=[loaded.processor.apply_chat_template(chat(truth.messages), add_generation_prompt=True)],
        images=[truth.open()],
        return_tensors="pt",
    )
    prompt = inputs["input_ids"]
    answer = torch.tensor([loaded.processor.tokenizer(row.text)["input_ids"]])
    ids = torch.cat([prompt, answer], dim=1)
    types = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(answer)], dim=1)
    with torch.no_grad():
        logits = loaded.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=types,
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
        ).logits[0, prompt.shape[1] - 1 : -1]
    return answer[0], logits.double()


@pytest.fixture(scope="module")
def one_box(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, TruthImage, Row]:
    """An answer of one box from a model without merges, so that its text has one way to be tokenised."""
    loaded = load(checkpoint(tmp_path_factory.mktemp("plain"), merges=(), initializer_range=0.2), "cpu")
    settings = {"max_new_tokens": 80, "max_objects": 1, "geometry": ["bbox_2d"], "window": None, "fields": "desc_first"}
    for truth in images(8):
        (row,) = ask(loaded, [truth], **settings)
        ids = loaded.processor.tokenizer(row.text)["input_ids"]
        if row.boxes and loaded.processor.tokenizer.decode(ids) == row.text:
            return loaded, truth, row
    raise AssertionError("the tiny model named no object; choose another seed")


def test_probabilities_are_those_before_the_constraint(one_box: tuple[Loaded, TruthImage, Row]) -> None:
    loaded, truth, row = one_box
    ids, logits = again(loaded, truth, row)
    log_p = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0].tolist()
    label = strict(row.text)[0]["desc"]
    start = len('{"objects": [{"desc": "')
    places = list(range(start, start + len(label.encode())))  # up to there, each byte is a token
    places += [place for place, token in enumerate(ids.tolist()) if token in set(loaded.vocab.ids)]
    assert len(places) == len(label.encode()) + 4
    found = row.boxes[0].scores
    assert found["min"] == pytest.approx(math.exp(min(log_p[place] for place in places)), rel=1e-3)
    mean = math.exp(sum(log_p[place] for place in places) / len(places))
    assert found["geometric_mean"] == pytest.approx(mean, rel=1e-3)


def test_coordinates_are_those_of_the_distribution(one_box: tuple[Loaded, TruthImage, Row]) -> None:
    loaded, truth, row = one_box
    ids, logits = again(loaded, truth, row)
    coord_ids = torch.tensor(loaded.vocab.ids)
    p = logits[torch.isin(ids, coord_ids)][:, coord_ids].softmax(-1)
    bins = torch.arange(1000, dtype=torch.float64)
    x1, y1, x2, y2 = (p @ bins).tolist()
    expected = np.array([x1, y1, max(x1, x2), max(y1, y2)]) / 999 * ([truth.width, truth.height] * 2)
    assert row.boxes[0].box == pytest.approx(expected.tolist(), rel=1e-4)
    spread = ((p * (bins - (p @ bins)[:, None]) ** 2).sum(-1)).sqrt()
    assert row.boxes[0].spread == pytest.approx(spread.tolist(), rel=1e-3)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_objects_are_limited(loaded: Loaded) -> None:
    rows = ask(loaded, images(8), max_new_tokens=300, max_objects=2)
    assert max(len(row.boxes) for row in rows) == 2


def test_the_smallest_budget_is_named(loaded: Loaded) -> None:
    with pytest.raises(InputError, match=r"max_new_tokens must be at least .* for an empty answer, got 3"):
        ask(loaded, images(1), max_new_tokens=3)


@pytest.mark.parametrize("constrained", [True, False])
def test_an_answer_that_repeats_itself_is_ended(folder: Path, constrained: bool) -> None:
    loaded = load(folder, "cpu")
    tokenizer = loaded.processor.tokenizer
    loaded.model.lm_head = Babble(loaded.model.lm_head.weight.shape[0], tokenizer.encode("a"))
    rows = ask(loaded, images(3), max_new_tokens=400, constrained=constrained)
    assert {row.stopped for row in rows} == {"repetition"}
    assert all(LOOP_TOKENS <= row.text.count("a") < 2 * LOOP_TOKENS for row in rows)


class Babble(torch.nn.Module):
    """An output head that says one thing, and begins objects where it cannot."""

    def __init__(self, size: int, tokens: list[int]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.linspace(1.0, 0.0, size), requires_grad=False)
        self.logits[tokens] = 9.0
        self.logits[ord("{") - ord("!")] = 5.0  # the byte-level alphabet begins with "!"

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*hidden.shape[:-1], -1)


class Recite(torch.nn.Module):
    """An output head that says given tokens, each with a probability of its own."""

    def __init__(self, size: int, tokens: list[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size, 1), requires_grad=False)
        self.left = [*tokens]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], len(self.weight))
        logits[..., self.left.pop(0)] = 9.0 + len(self.left) / 1000
        return logits


SHAPES = {
    "bbox_2d": (1, 2, 300, 400),
    "point": (12, 999),
    "quad": (20, 10, 60, 30, 50, 50, 10, 30),
    "poly": tuple(range(100, 150)),
}
LINES = attrs.evolve(
    COORDJSON, name="lines", opening="", before="", label=(Label(without="<|"),), amid="", after="", between="\n",
    nothing="none", closing="", json=False,
    places={kind: (mark, Coords(kind, between="")) for kind, mark in zip(SHAPES, ("", "|.", "|#", "|"), strict=True)},
)  # fmt: skip
GROUPS = attrs.evolve(LINES, name="groups", again="")


def recited(folder: Path, objects: list[Located], form: Format, **settings: Any) -> tuple[Row, str]:
    """The row of a model that answers so, freely, and what it would say."""
    loaded = load(folder, "cpu")
    tokenizer = loaded.processor.tokenizer
    text = answer_text(objects, form=form)
    said = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    loaded.model.lm_head = Recite(loaded.model.lm_head.weight.shape[0], said)
    [row] = ask(loaded._replace(format=form), images(1), max_new_tokens=len(said), constrained=False, **settings)
    return row, text


@pytest.mark.parametrize("form", [COORDJSON, LINES, GROUPS], ids=lambda form: form.name)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_free_answer_of_any_kind_of_geometry_is_read_whole(folder: Path, kind: str, form: Format) -> None:
    """As many objects as are allowed, however many coordinates they have, and where they are and with what scores."""
    objects = [Located(desc=f"a {k}", kind=kind, bins=tuple(b + k for b in SHAPES[kind])) for k in range(3)]
    if kind == "point":
        objects = [attrs.evolve(item, bins=(item.bins[0], 900)) for item in objects]
    row, text = recited(folder, objects, form, max_objects=3, coordinates="argmax")
    assert (row.text, row.stopped, row.unread) == (text, "end", [])
    assert [box.label for box in row.boxes] == [item.desc for item in objects]
    for box, item in zip(row.boxes, objects, strict=True):
        assert box.bins == bounds(item.bins)
        assert 0 < box.score < 1
        assert set(box.scores) == set(SCORES)
        if kind != "bbox_2d":
            size = (row.width, row.height) * (len(item.bins) // 2)
            assert (box.kind, box.points) == (
                kind,
                pytest.approx(DEFAULT_QUANTISATION.decode(item.bins, size), abs=1e-5),
            )


@pytest.mark.parametrize("form", [COORDJSON, LINES, GROUPS], ids=lambda form: form.name)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_free_answer_ends_where_one_object_too_many_begins(folder: Path, kind: str, form: Format) -> None:
    objects = [Located(desc="cup", kind=kind, bins=tuple(min(b + k, 999) for b in SHAPES[kind])) for k in range(9)]
    row, text = recited(folder, objects, form, max_objects=4)
    assert (len(row.boxes), row.stopped) == (4, "length")
    assert text.startswith(row.text)
    coordinates = sum(len(item.bins) for item in objects[:4])
    assert coordinates < row.text.count("<|coord_") <= coordinates + 3  # what was chosen is known a step later


@pytest.mark.parametrize(
    ("chunk", "times", "expected"),
    [([7], 60, True), ([7], 30, False), ([1, 2, 3], 16, True), (list(range(40)), 4, True), (list(range(40)), 3, False)],
)
def test_loops(chunk: list[int], times: int, expected: bool) -> None:
    looped = [9, 8, *(chunk * times)]
    tokens = np.stack([looped, np.arange(len(looped)) + 1000], axis=1)
    assert loops(tokens, 4).tolist() == [expected, False]


# --- what goes wrong ------------------------------------------------------------------------------------------------


def broken(key: str) -> TruthImage:
    def missing() -> Any:
        raise InputError("no image file at broken.png")

    return attrs.evolve(image(key), open=missing)


def test_an_image_that_cannot_be_opened_has_a_row_that_says_so(loaded: Loaded) -> None:
    told: list[str] = []
    rows = list(
        predict(
            loaded.model,
            loaded.processor,
            [image("a.png"), broken("b.png"), image("c.png")],
            PredictSettings(max_new_tokens=30),
            vocab=loaded.vocab,
            quantisation=loaded.quantisation,
            log=told.append,
        )
    )
    assert [(row.image, [item.at for item in row.unread]) for row in rows] == [
        ("a.png", []),
        ("b.png", ["image"]),
        ("c.png", []),
    ]
    assert told == ["b.png: no image file at broken.png"]


def test_an_image_that_the_processor_refuses_has_a_row_that_says_so(loaded: Loaded) -> None:
    rows = ask(loaded, [image("a.png"), image("line.png", size=(1, 900)), image("c.png")], max_new_tokens=30)
    assert [row.unread[0].reason[:30] if row.unread else "" for row in rows] == [
        "",
        "the processor refuses the imag",
        "",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("constrained", [True, False])
def test_broken_weights_stop_the_run(folder: Path, value: float, constrained: bool) -> None:
    loaded = load(folder, "cpu")
    loaded.model.lm_head.weight = torch.nn.Parameter(torch.full_like(loaded.model.lm_head.weight, value))
    with pytest.raises(RunError, match=r"0\.png: the model's logits are NaN or infinite"):
        ask(loaded, images(1), constrained=constrained, max_new_tokens=20)


@pytest.mark.parametrize(("question", "times"), [("Find.", 0), ("<image><image>Find.", 2)])
def test_a_question_needs_one_image(loaded: Loaded, question: str, times: int) -> None:
    with pytest.raises(InputError, match=f"a question holds <image> once, this one {times} times"):
        ask(loaded, [image("a.png", question=question)])


def test_the_models_own_generation_settings_play_no_part(folder: Path) -> None:
    loaded = load(folder, "cpu")
    plain = ask(loaded, images(2))
    own = loaded.model.generation_config
    own.repetition_penalty, own.do_sample, own.temperature, own.min_new_tokens = 5.0, True, 9.0, 80
    assert ask(loaded, images(2)) == plain
    assert loaded.model.generation_config is own


def test_a_system_message_stays_text() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>Find."}]
    assert chat(messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Find."}]},
    ]


# --- settings and header --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"window": -1}, {"score": "best"}, {"max_objects": 0}, {"geometry": []}, {"repeats": 1}, {"fields": "desc"}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


def test_the_header_holds_what_changes_an_answer(folder: Path, loaded: Loaded) -> None:
    found = header(folder, loaded, PredictSettings(coordinates="argmax", constrained=False), "Find.", None)
    assert found.decoding == {
        "coordinates": "argmax",
        "constrained": False,
        "max_new_tokens": 2048,
        "max_objects": 100,
        "repeats": 4,
        "dtype": "float32",
        "question": "Find.",
        "system": None,
    }
    assert (found.quantisation, len(found.weights)) == (loaded.quantisation.as_dict(), 16)


# --- thinking ---------------------------------------------------------------------------------------------------------

SWITCH = (
    "{% if add_generation_prompt %}<think>\n"
    "{% if enable_thinking is defined and not enable_thinking %}\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.fixture
def thinker(tmp_path: Path) -> Loaded:
    """The model with a chat template that can switch thinking."""
    folder = checkpoint(tmp_path / "thinker")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + SWITCH)
    return load(folder, "cpu")


def asked_with(loaded: Loaded, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[list[Row], list[str]]:
    """The rows, and every text that the processor was given."""
    texts: list[str] = []
    process = type(loaded.processor).__call__

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        texts.extend(kwargs["text"])
        return process(self, *args, **kwargs)

    monkeypatch.setattr(type(loaded.processor), "__call__", watched)
    return ask(loaded, images(2), **settings), texts


def test_thinking_is_off_unless_it_is_asked_for(thinker: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    _, texts = asked_with(thinker, monkeypatch)

    assert len(texts) == 2
    assert all(text.endswith("assistant\n<think>\n</think>\n\n") for text in texts)


def test_a_thought_comes_before_the_answer_and_is_none_of_it(thinker: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, texts = asked_with(thinker, monkeypatch, thinking=6, max_new_tokens=150)

    without, with_thought = texts[:2], texts[2:]
    assert all(text.endswith("assistant\n<think>\n") for text in without)
    for before, after in zip(without, with_thought, strict=True):
        assert after.startswith(before)
        assert len(after) > len(before) + len("</think>\n\n")
        assert after.endswith("</think>\n\n")
    for row in rows:
        assert (row.unread, len(row.boxes)) == ([], len(strict(row.text)))


def test_a_model_that_cannot_switch_thinking_says_so(loaded: Loaded) -> None:
    with pytest.raises(InputError, match="thinking: the chat template of this model has no switch for it"):
        ask(loaded, images(1), thinking=6)


def test_thinking_is_part_of_what_was_asked_only_where_it_is_on() -> None:
    assert "thinking" not in Settings().decoding()
    assert Settings(thinking=6).decoding()["thinking"] == 6


# --- several tokens a pass ------------------------------------------------------------------------------------------


def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_args: Any) -> Any:
        raise NotAheadError

    monkeypatch.setattr(asking, "write_ahead", refuses)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_new_tokens": 30},
        {"max_new_tokens": 150, "max_objects": 2},
        {"batch_size": 1},
        {"batch_size": 4, "ordered": False, "fields": "geometry_first"},
        {"geometry": ("poly",), "repeats": 2, "max_new_tokens": 300},
    ],
)
def test_what_is_guessed_changes_no_token(
    loaded: Loaded, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_new_tokens": 150, **settings}
    ahead = ask(loaded, images(7), **settings)
    one_at_a_time(monkeypatch)
    alone = ask(loaded, images(7), **settings)
    assert [(row.text, row.stopped) for row in ahead] == [(row.text, row.stopped) for row in alone]
    for row, other in zip(ahead, alone, strict=True):
        assert [box.bins for box in row.boxes] == [box.bins for box in other.boxes]
        for box, its in zip(row.boxes, other.boxes, strict=True):
            assert box.box == pytest.approx(its.box, abs=1e-4)
            assert box.scores == pytest.approx(its.scores, rel=1e-4)
            assert box.spread == pytest.approx(its.spread, rel=1e-3)


def test_the_format_costs_few_passes(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def passes() -> int:
        count = 0

        def counts(*_args: Any) -> None:
            nonlocal count
            count += 1

        hook = loaded.model.register_forward_pre_hook(counts)
        ask(loaded, images(3), max_new_tokens=150)
        hook.remove()
        return count

    ahead = passes()
    one_at_a_time(monkeypatch)
    assert ahead < 0.9 * passes()
