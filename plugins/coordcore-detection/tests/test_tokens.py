"""The bytes of tokens."""

from __future__ import annotations

import pytest
from padded_tokenizers import PADDED, padded_tokenizer
from prediction_support import checkpoint
from transformers import PreTrainedTokenizerFast

from coordcore import InputError
from coordcore_detection.decode.tokens import TokenBytes, token_bytes


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint(tmp_path_factory.mktemp("model")))


def test_tokens_write_the_text_they_were_made_of(tokenizer: object) -> None:
    text = '{"objects": [{"desc": "é 猫\\n😀", "bbox_2d": [<|coord_7|>]}]}<|im_end|>'
    ids = tokenizer(text)["input_ids"]
    assert token_bytes(tokenizer).read(ids)[0] == text


def test_all_256_bytes_have_a_token(tokenizer: object) -> None:
    words = set(token_bytes(tokenizer).text)
    assert {bytes([byte]) for byte in range(256)} <= words


def test_a_character_belongs_to_the_token_that_completes_it() -> None:
    tokens = TokenBytes(text=(b"a", b"\xc3", b"\xa9b"), added={})
    assert tokens.read([0, 1, 2]) == ("aéb", [1, 1, 3])


def test_bytes_that_are_no_text_become_a_replacement_character() -> None:
    tokens = TokenBytes(text=(b"a", b"\xc3"), added={})
    assert tokens.read([1, 0, 1]) == ("\ufffda\ufffd", [0, 2, 3])


def test_an_id_without_a_token_writes_nothing() -> None:
    assert TokenBytes(text=(b"a",), added={}).read([0, 99]) == ("a", [1, 1])


@pytest.mark.parametrize(("decoder", "begins"), [("fallback", " "), ("metaspace", "")])
def test_pieces_with_byte_fallback_write_text_and_bytes(decoder: str, begins: str) -> None:
    """As Gemma and Llama 2 have them: U+2581 stands for a space, <0x0A> for a byte."""
    from tokenizers import Tokenizer, decoders, models

    pieces = ["<unk>", "\u2581ab", "c", "<0x0A>", "<0xC3>", "<0xA9>"]
    backend = Tokenizer(
        models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], byte_fallback=True)
    )
    backend.decoder = (
        decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
        if decoder == "fallback"
        else decoders.Metaspace()
    )
    backend.add_tokens(["<|coord_5|>"])
    tokens = token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend))
    text, complete = tokens.read([1, 2, 3, 4, 5, 6, 1])

    assert text == f"{begins}abc\n\xe9<|coord_5|> ab"
    assert [item - len(begins) for item in complete] == [2, 3, 4, 4, 5, 16, 19]


def test_another_tokenizer_is_refused() -> None:
    class Sentences:
        pass

    with pytest.raises(InputError, match=r"the tokens of Sentences \(decoder none\) do not stand for bytes"):
        token_bytes(Sentences())


@pytest.mark.parametrize("kind", PADDED)
def test_the_text_of_tokens_is_what_the_tokenizer_decodes(kind: str) -> None:
    tokenizer = padded_tokenizer(kind)
    tokens = token_bytes(tokenizer)
    for text in ('{"a": [<|coord_1|>, 7]}', " a", "  a", "<|coord_1|> a", "\n\u00e9", "a <|coord_1|>\n", ""):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for begin in range(len(ids)):  # wherever an answer begins
            assert tokens.read(ids[begin:])[0] == tokenizer.decode(ids[begin:])


@pytest.mark.parametrize(("kind", "expected"), [("first", "first"), ("always", "always"), ("prepended", "always")])
def test_it_is_told_where_a_tokenizer_puts_a_space_of_its_own(kind: str, expected: str) -> None:
    tokens = token_bytes(padded_tokenizer(kind))
    assert (tokens.padded, bool(tokens.first)) == (expected, True)


def test_the_tokenizer_of_qwen_puts_no_space_anywhere(tokenizer: object) -> None:
    tokens = token_bytes(tokenizer)
    assert (tokens.padded, dict(tokens.first)) == ("never", {})
