"""Coord tokens and the coord vocabulary."""

from __future__ import annotations

import subprocess
import sys

import attrs
import numpy as np
import pytest

from coordcore.coords import (
    CoordVocab,
    MissingCoordTokensError,
    int_to_token,
    ints_to_tokens,
    is_coord_token,
    token_to_int,
    tokens_to_ints,
)
from coordcore.errors import InputError

# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["<|coord_0|>", "<|coord_7|>", "<|coord_10|>", "<|coord_999|>"])
def test_a_bin_in_brackets_is_a_coord_token(text: str) -> None:
    assert is_coord_token(text)


@pytest.mark.parametrize(
    "text",
    [
        "<|coord_*|>",
        "<|coord_007|>",
        "<|coord_00|>",
        "<|coord_1000|>",
        "<|coord_-1|>",
        "<|coord_|>",
        "<|coord_1.5|>",
        "<|coord_\u0661|>",  # an Arabic digit one
        " <|coord_1|>",
        "<|coord_1|>\n",
        "<|coord_1|><|coord_2|>",
        "<|image_pad|>",
        "12",
    ],
)
def test_anything_else_is_none_and_the_error_names_it(text: str) -> None:
    assert not is_coord_token(text)
    with pytest.raises(InputError) as error:
        token_to_int(text)
    assert str(error.value) == (f"{text!r} is not a coord token; expected <|coord_0|> to <|coord_999|>")


@pytest.mark.parametrize("value", [5, None, 5.0, b"<|coord_5|>", ["<|coord_5|>"]])
def test_what_is_no_text_is_no_coord_token(value: object) -> None:
    assert is_coord_token(value) is False


def test_whole_numbers_are_bins_whatever_their_type() -> None:
    assert int_to_token(10.0) == int_to_token(np.float64(10)) == "<|coord_10|>"


def test_tokens_and_ints_are_inverse() -> None:
    assert tokens_to_ints(ints_to_tokens(range(1000))) == list(range(1000))


def test_numpy_integers_are_bins() -> None:
    assert ints_to_tokens(np.array([3, 14])) == ["<|coord_3|>", "<|coord_14|>"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1016, "1016 > 999: this looks like absolute pixels; encode pixels with a quantisation first"),
        (-1, "-1 is not a bin; expected an integer from 0 to 999"),
        (12.5, "12.5 is not a bin; expected an integer from 0 to 999"),
        (float("inf"), "inf is not a bin; expected an integer from 0 to 999"),
        (True, "True is not a bin; expected an integer from 0 to 999"),
        ("12", "'12' is not a bin; expected an integer from 0 to 999"),
    ],
)
def test_what_is_no_bin_gets_no_token(value: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        int_to_token(value)
    assert str(error.value) == message


# --- vocabulary -----------------------------------------------------------------------------------------------------


@attrs.frozen
class FakeTokenizer:
    """Answers as a transformers tokenizer does: what it does not know is the unknown token."""

    table: dict[str, int]
    unk_token_id: int | None = 0

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int | None]:
        return [self.table.get(token, self.unk_token_id) for token in tokens]


def table(start: int = 100) -> dict[str, int]:
    return {token: start + k for k, token in enumerate(ints_to_tokens(range(1000)))}


def test_ids_come_in_bin_order() -> None:
    scattered = {token: 5 * token_id for token, token_id in table().items()}
    assert CoordVocab.from_tokenizer(FakeTokenizer(scattered)).ids == tuple(range(500, 5500, 5))


@pytest.mark.parametrize("unknown", [0, None])
def test_no_coord_tokens_at_all(unknown: int | None) -> None:
    with pytest.raises(MissingCoordTokensError) as error:
        CoordVocab.from_tokenizer(FakeTokenizer({}, unknown))
    assert str(error.value) == (
        "the tokenizer has no coord tokens; add the 1000 tokens with `coordcore expand BASE --output DIR`"
    )


@pytest.mark.parametrize("unknown", [0, None])
def test_some_coord_tokens_missing(unknown: int | None) -> None:
    some = {token: token_id for token, token_id in table().items() if token_id >= 105}
    with pytest.raises(InputError) as error:
        CoordVocab.from_tokenizer(FakeTokenizer(some, unknown))
    assert not isinstance(error.value, MissingCoordTokensError)
    assert str(error.value) == (
        "the tokenizer lacks 5 of the 1000 coord tokens (missing or unknown): <|coord_0|>, "
        "<|coord_1|>, <|coord_2|>, and 2 more; add the 1000 tokens with `coordcore expand BASE --output DIR`, from a "
        "base that has none of them"
    )


def test_shared_ids() -> None:
    shared = {**table(), "<|coord_9|>": 103}
    with pytest.raises(InputError) as error:
        CoordVocab.from_tokenizer(FakeTokenizer(shared))
    assert str(error.value).startswith(
        "the tokenizer gives several coord tokens one id: <|coord_9|> = <|coord_3|> = 103; add the 1000 tokens with"
    )


def test_ids_outside_the_embedding_matrix() -> None:
    with pytest.raises(InputError) as error:
        CoordVocab.from_tokenizer(FakeTokenizer(table()), embedding_rows=1098, config_vocab_size=5000)
    assert str(error.value).startswith(
        "the tokenizer has coord token ids outside the 1098 rows of the embedding matrix: <|coord_998|> = 1098, "
        "<|coord_999|> = 1099; tokenizer and weights do not belong together"
    )


def test_ids_outside_the_configured_vocabulary() -> None:
    with pytest.raises(InputError, match=r"outside the 1099 config.vocab_size: <\|coord_999\|> = 1099; "):
        CoordVocab.from_tokenizer(FakeTokenizer(table()), embedding_rows=5000, config_vocab_size=1099)


def test_a_vocabulary_has_a_thousand_distinct_ids() -> None:
    with pytest.raises(InputError, match="has 1000 distinct ids, got 3, 2 of them distinct"):
        CoordVocab(ids=(1, 1, 2))


def test_bins_and_mask_of_an_array() -> None:
    vocab = CoordVocab(ids=tuple(reversed(range(100, 1100))))
    ids = np.array([[99, 100], [1099, 1100]])
    assert vocab.bins(ids).tolist() == [[-1, 999], [0, -1]]
    assert vocab.mask(ids).tolist() == [[False, True], [True, False]]


def test_bins_of_a_list() -> None:
    assert CoordVocab(ids=tuple(range(100, 1100))).bins([100, -100, 105]).tolist() == [0, -1, 5]


def test_importing_coords_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, coordcore.coords; print(sorted({'torch', 'numpy', 'msgspec'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
