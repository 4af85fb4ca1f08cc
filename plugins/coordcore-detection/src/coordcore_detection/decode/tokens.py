"""The bytes that each token of a tokenizer writes. Torch-free."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import attrs

from coordcore.errors import InputError


@attrs.frozen(kw_only=True, eq=False)
class TokenBytes:
    """What the tokens of a tokenizer write.

    text: id -> bytes of an ordinary token, None for an added token and for an id without a token.
    added: id -> the text of an added token, such as `<|im_end|>` or `<|coord_5|>`.
    """

    text: tuple[bytes | None, ...]
    added: dict[int, str]

    def of(self, token: int) -> bytes:
        """What `token` writes; nothing for an id without a token."""
        if token in self.added:
            return self.added[token].encode()
        return (self.text[token] if token < len(self.text) else None) or b""

    def read(self, tokens: Iterable[int]) -> tuple[str, list[int]]:
        """The text of `tokens`, and for each token how many characters are complete behind it.

        A character may be spread over several tokens, and belongs to the last of them. Bytes that are no UTF-8 become
        U+FFFD.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces, ends, length = [], [], 0
        for token in tokens:
            piece = decoder.decode(self.of(token))
            pieces.append(piece)
            length += len(piece)
            ends.append(length)
        rest = decoder.decode(b"", final=True)
        if rest:
            pieces.append(rest)
            ends[-1] += len(rest)
        return "".join(pieces), ends


def token_bytes(tokenizer: Any) -> TokenBytes:
    """Read a transformers tokenizer: byte-level BPE (Qwen, GLM, InternVL, Mistral), or pieces of text with a token for
    each byte that is in none (Gemma). One that puts a space before its first token and takes it off again (Llama 2) is
    read with that space. Raises InputError for one whose tokens do not stand for bytes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str())["decoder"] if backend is not None else None
    steps = {step["type"]: step for step in (decoder or {}).get("decoders", [decoder]) if step}
    read: Callable[[str], bytes | None]
    if "ByteLevel" in steps:
        read = _byte_letters
    elif steps.keys() & {"ByteFallback", "Metaspace"}:
        replaced = steps.get("Replace", {}).get("pattern", {}).get("String", "\u2581")
        space = steps.get("Metaspace", {}).get("replacement", replaced)
        read = partial(_piece, space=space)
    else:
        raise InputError(
            f"the tokens of {type(tokenizer).__name__} (decoder {', '.join(steps) or 'none'}) do not stand for bytes, "
            "as those of byte-level BPE and of byte fallback do; predictions need to know which bytes a token writes"
        )
    added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
    last = max(tokenizer.get_vocab().values(), default=-1)  # a vocabulary may have holes
    tokens: Sequence[str | None] = tokenizer.convert_ids_to_tokens(list(range(last + 1)))
    return TokenBytes(
        text=tuple(None if index in added or token is None else read(token) for index, token in enumerate(tokens)),
        added=added,
    )


def _byte_letters(token: str) -> bytes | None:
    table = _byte_of_letter()
    if any(letter not in table for letter in token):
        return None
    return bytes([table[letter] for letter in token])


def _piece(token: str, *, space: str) -> bytes:
    """`<0x0A>` is a byte, everything else text, in which `space` stands for a space."""
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(space, " ").encode()


@lru_cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for the 256 bytes: printable ones stand for themselves, the others for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}
