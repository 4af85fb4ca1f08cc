"""The bytes that each token of a tokenizer writes. Torch-free."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import attrs

from coordcore.errors import InputError

Padded = Literal["never", "first", "always"]


@attrs.frozen(kw_only=True, eq=False)
class TokenBytes:
    """What the tokens of a tokenizer write.

    text: id -> bytes of an ordinary token, None for an added token and for an id without a token.
    added: id -> the text of an added token, such as `<|im_end|>` or `<|coord_5|>`.
    first: id -> what a token writes as the first of a text, for those that write something else there: the decoder
    takes off the space that the encoder puts before a text (Llama 2).
    padded: where the encoder puts such a space: at the beginning, or also behind each added token.
    """

    text: tuple[bytes | None, ...]
    added: dict[int, str]
    first: Mapping[int, bytes] = attrs.field(factory=dict)
    padded: Padded = "never"

    def of(self, token: int) -> bytes:
        """What `token` writes; nothing for an id without a token."""
        if token in self.added:
            return self.added[token].encode()
        return (self.text[token] if token < len(self.text) else None) or b""

    def read(self, tokens: Iterable[int]) -> tuple[str, list[int]]:
        """The text of `tokens`, and for each token how many characters are complete behind it.

        The text is what the tokenizer decodes them to, as the whole of an answer. A character may be spread over
        several tokens, and belongs to the last of them. Bytes that are no UTF-8 become U+FFFD.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces, ends, length = [], [], 0
        for index, token in enumerate(tokens):
            piece = decoder.decode(self.first[token] if index == 0 and token in self.first else self.of(token))
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
    each byte that is in none (Gemma, Llama 2). Raises InputError for one whose tokens do not stand for bytes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str())["decoder"] if backend is not None else None
    steps = {step["type"]: step for step in (decoder or {}).get("decoders", [decoder]) if step}
    read: Callable[[str], bytes | None]
    if "ByteLevel" in steps:
        read, space = _byte_letters, "\u0120"
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
    text = tuple(None if index in added or token is None else read(token) for index, token in enumerate(tokens))
    first: dict[int, bytes] = {}
    if backend is not None and steps.keys() & {"Strip", "Metaspace"}:
        for index, (token, written) in enumerate(zip(tokens, text, strict=True)):
            if token is not None and written is not None and written.startswith(b" "):
                alone = backend.decoder.decode([token]).encode()
                first |= {} if alone == written else {index: alone}
    return TokenBytes(text=text, added=added, first=first, padded=_padded(backend, added.values(), space))


def _padded(backend: Any, added: Iterable[str], space: str) -> Padded:
    """Where the encoder puts a space of its own, by what it makes of a letter."""
    if not any(token.startswith(space) for token in backend.encode("a", add_special_tokens=False).tokens):
        return "never"
    for text in added:
        tokens = backend.encode(f"{text}a", add_special_tokens=False).tokens
        if tokens[0] == text:  # it stands for itself, and there is no space before it
            return "always" if any(token.startswith(space) for token in tokens[1:]) else "first"
    return "first"


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
