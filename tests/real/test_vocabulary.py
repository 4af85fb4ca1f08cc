"""What is special about the published tokenizer: padding rows, digits, merges over the answer format, lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published import ENTRIES, IMAGE, ROWS, VIDEO, VISION_END, VISION_START, narrow_qwen3vl
from safetensors import safe_open
from transformers import AutoTokenizer

from coordcore.records.answers.write import Located, answer_text, reserved
from coordcore_coord_tokens.formats import COMPACT, GROUPED, QWEN, TAGGED
from coordcore_detection.decode.grammar import Grammar, compile_grammar
from coordcore_detection.decode.tokens import TokenBytes, token_bytes
from coordcore_train.checkpoint.expand import expand
from coordcore_train.checkpoint.folder import read_vocab

EMBEDDING = "model.language_model.embed_tokens.weight"


@pytest.fixture(scope="module")
def tokenizer(expanded: Path) -> Any:
    return AutoTokenizer.from_pretrained(expanded)


def rows_of(folder: Path, name: str = EMBEDDING) -> torch.Tensor:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return file.get_tensor(name)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


# --- placing ----------------------------------------------------------------------------------------------------------


def test_the_base_has_the_published_ids(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    assert [config[name] for name in names] == [IMAGE, VIDEO, VISION_START, VISION_END]
    assert config["text_config"]["vocab_size"] == ROWS
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokens = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    assert tokenizer.convert_tokens_to_ids(tokens) == [IMAGE, VIDEO, VISION_START, VISION_END]
    assert len(tokenizer) == ENTRIES


def test_the_tokens_follow_the_last_entry_and_go_over_the_padding_rows(base: Path, expanded: Path) -> None:
    assert read_vocab(expanded).ids == tuple(range(ENTRIES, ENTRIES + 1000))
    before, after = rows_of(base), rows_of(expanded)
    assert after.shape[0] == 152_704  # 152,669 entries, a multiple of 64
    assert torch.equal(after[:ENTRIES], before[:ENTRIES])
    assert not (after[ENTRIES:ROWS] == before[ENTRIES:]).all(1).any()
    assert len(torch.unique(after[ENTRIES : ENTRIES + 1000], dim=0)) == 1000


def test_padding_rows_do_not_count_into_what_new_rows_become(base: Path, expanded: Path) -> None:
    mean = rows_of(base)[:ENTRIES].double().mean(0).float()
    behind = rows_of(expanded)[ENTRIES + 1000 :]
    torch.testing.assert_close(behind, mean.expand_as(behind), rtol=1e-4, atol=1e-7)


def test_the_wildcard_that_some_checkpoints_carry_is_no_coordinate(source: Path, tmp_path: Path) -> None:
    base = narrow_qwen3vl(tmp_path / "base", source, wildcard=True)
    report = expand(base, tmp_path / "expanded")
    assert AutoTokenizer.from_pretrained(report.output).convert_tokens_to_ids("<|coord_*|>") == 151_669
    assert report.vocab.ids == tuple(range(151_670, 152_670))
    assert (report.rows_before, report.rows_after) == (ROWS, 152_704)


def test_a_bin_starts_at_its_digits(tokenizer: Any, base: Path, expanded: Path) -> None:
    digits = tokenizer.convert_tokens_to_ids(list("407"))
    assert digits == [19, 15, 22]
    before = rows_of(base)
    wanted = (4 * before[19] + 2 * before[15] + before[22]) / 7
    torch.testing.assert_close(rows_of(expanded)[ENTRIES + 407], wanted)


# --- text -------------------------------------------------------------------------------------------------------------


def boxes(count: int, label: str = "person") -> list[Located]:
    return [Located(desc=label, kind="bbox_2d", bins=(10 + k, 20 + k, 100 + k, 200 + k)) for k in range(count)]


def test_coord_tokens_stay_whole_and_visible(tokenizer: Any) -> None:
    text = answer_text(boxes(20))
    ids = ids_of(tokenizer, text)
    assert sum(id_ >= ENTRIES for id_ in ids) == 80
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def _numbers() -> str:
    rows = [f'{{"bbox_2d": [{", ".join(map(str, box.bins))}], "label": "person"}}' for box in boxes(20)]
    return f"[{', '.join(rows)}]"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (answer_text(boxes(20)), 24.2),
        (answer_text(boxes(20), form=QWEN), 24.1),
        (_numbers(), 30.1),
        (answer_text(boxes(20), form=COMPACT), 5.95),
        (answer_text(boxes(20), form=GROUPED), 4.05),
        (answer_text(boxes(20), form=TAGGED), 5.2),
    ],
    ids=["coordjson", "qwen", "qwen-with-numbers", "compact", "grouped", "grouped-tags"],
)
def test_tokens_of_a_box(tokenizer: Any, text: str, tokens: float) -> None:
    """Length of an answer of 20 boxes, which training, generation and serving are paid by."""
    assert len(ids_of(tokenizer, text)) / 20 == tokens


def test_no_label_may_hold_one_of_the_added_tokens(pieces: TokenBytes) -> None:
    assert [text for text in pieces.added.values() if reserved(f"a {text}") != text] == []


# --- grammar ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces(tokenizer: Any) -> TokenBytes:
    return token_bytes(tokenizer)


@pytest.fixture(scope="module")
def grammar(pieces: TokenBytes, expanded: Path) -> Grammar:
    return compile_grammar(pieces, read_vocab(expanded), size=152_704, end_tokens=[151_645])


def walk(grammar: Grammar, ids: list[int]) -> int:
    """The state behind `ids`, -1 where one of them may not stand."""
    state = 0
    for token in ids:
        state = int(grammar.table[state, token])
        if state < 0:
            break
    return state


LABELS = [
    "person", "traffic light", 'a "quoted" word', "back\\slash", "tab\tand\nline", "]}]}", '"}, {"', "{[(",
    "3.5mm jack", "猫", "黄色い車", "Straße", "naïve café", "🙂 face", "👩\u200d👩\u200d👧", "קטן", "  spaces  ",
    "a, b", "x: [y", "<b>bold</b>", "\u200b",
]  # fmt: skip


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("geometry_first", [False, True])
def test_the_grammar_takes_answers_as_the_tokenizer_writes_them(
    tokenizer: Any, pieces: TokenBytes, grammar: Grammar, label: str, geometry_first: bool
) -> None:
    poly = Located(desc=label, kind="poly", bins=(1, 2, 3, 4, 5, 6))
    text = answer_text([*boxes(2, label), poly], geometry_first=geometry_first)
    ids = ids_of(tokenizer, text)
    assert walk(grammar, [*ids, 151_645]) == len(grammar.slot) - 1
    assert pieces.read(ids)[0] == text


@pytest.mark.parametrize("text", ['{"objects": []}', '{"objects": [{"desc": "a", "bbox_2d": ['])
def test_the_tokenizer_merges_over_the_borders_of_the_format(tokenizer: Any, text: str) -> None:
    """So that the test above is about tokens of several symbols: `{"`, ` [{"`, `":`, ` []}`."""
    assert len(ids_of(tokenizer, text)) < len(text) / 2


def test_every_token_of_the_vocabulary_writes_its_bytes(tokenizer: Any, pieces: TokenBytes) -> None:
    assert sum(text is None for text in pieces.text) == 26 + 1000
    for token in range(0, 151_643, 97):
        data = pieces.of(token)
        assert data
        assert data.decode("utf-8", "replace") == tokenizer.decode([token], clean_up_tokenization_spaces=False)
