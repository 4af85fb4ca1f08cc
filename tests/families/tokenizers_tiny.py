"""Tokenizers of the shapes that model families have, with a few hundred entries: byte-level BPE and byte fallback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEXT = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"-_/()[]{}<>|\n"


def byte_level(
    special: Sequence[str],
    plain: Sequence[str] = (),
    *,
    at: Mapping[str, int] | None = None,
    digits_alone: bool = True,
    **settings: Any,
) -> PreTrainedTokenizerFast:
    """As Qwen, GLM, InternVL and Mistral have: 256 letters for the bytes, then the added tokens.

    at: added token -> the id that it has in the published vocabulary, for templates of ms-swift that have it written
    down in a function; the entries before it are filled up. settings: of transformers' tokenizer.
    """
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    added = sorted((index, text) for text, index in (at or {}).items())
    tokenizer = Tokenizer(models.BPE(vocab=_filled(vocabulary, added), merges=[]))
    split = r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+" if digits_alone else r"\s?\S+|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _with_added(tokenizer, [*(text for _, text in added), *special], plain, settings)


def byte_fallback(
    special: Sequence[str], plain: Sequence[str] = (), *, padded: bool = False, **settings: Any
) -> PreTrainedTokenizerFast:
    """As Gemma and Llama 2 have: pieces of text with `▁` for a space, and a token for each byte that is in none.

    padded: as Llama 2, with a space before a text and behind each added token; decoding takes the first off.
    """
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(letter for letter in TEXT if letter != " ")]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, fuse_unk=True, unk_token=settings["unk_token"])
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    if padded:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), tokenizer.normalizer])
    stripped = [decoders.Strip(" ", 1, 0)] if padded else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    return _with_added(tokenizer, special, plain, settings)


def _filled(vocabulary: dict[str, int], added: Sequence[tuple[int, str]]) -> dict[str, int]:
    for index, text in added:
        vocabulary |= {f"filler{place}": place for place in range(len(vocabulary), index)}
        vocabulary[text] = index
    return vocabulary


def _with_added(
    tokenizer: Tokenizer, special: Sequence[str], plain: Sequence[str], settings: Mapping[str, Any]
) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **settings)
