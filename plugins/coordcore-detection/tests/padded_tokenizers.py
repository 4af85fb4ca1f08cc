"""Tokenizers that put a space of their own before a text, and take it off when they decode, as Llama 2's."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from coordcore.coords import ints_to_tokens

PADDED = ("first", "always", "prepended")
"""By a pre-tokenizer, at the beginning of a text or behind every added token too; or by a normalizer (LLaVA 1.5)."""

_SPACE = "\u2581"
_LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789{}[]":,_'
_MERGES = [(_SPACE, "{"), (f"{_SPACE}{{", '"'), (_SPACE, "["), ('"', ":"), (_SPACE, "a"), (",", _SPACE)]


def padded_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer with the coord tokens. kind: of `PADDED`."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), _SPACE, *_LETTERS]
    pieces += ["".join(merge) for merge in _MERGES]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=_MERGES, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    if kind == "prepended":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=kind, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("<s>", "</s>")])
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in ints_to_tokens(range(1000))])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )
