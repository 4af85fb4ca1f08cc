"""What the tests of prediction share: a small vocabulary with tokens that span the format, images, answers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coordcore.coords import CoordVocab, ints_to_tokens
from coordcore_detection.decode.tokens import TokenBytes
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_train.testing.tiny import tiny_qwen3vl

# In the byte-level alphabet, Ġ is the space and Ã © the two bytes of é.
MERGES = (
    *('" ,', '", Ġ', '",Ġ "', "d e", "s c", "de sc", "] }", "]} ,", "]}, Ġ", "]},Ġ {", '{ "'),
    *("Ã ©", "Ġ Ã", '" :', '": Ġ', '":Ġ [', '":Ġ "', 'Ġ "', ", Ġ", "] ,", "], Ġ", '],Ġ "', "} ]", "} ,"),
)

WORDS = [
    *(bytes([byte]) for byte in range(256)),
    *(b'", "', b'"bbox_2d": [', b'": [', b"]}, {", b'{"', b"desc", b", ", b'"}]}', b"]}]}", b'": "', b'"}, {"'),
    *(" \xe9".encode(), "\xe9".encode()[1:] + b'"', b"red", b'poly": ['),
]
"""Token 0 .. 255 are the bytes; the others span symbols of the format, or end within a character."""

FIRST_COORD = len(WORDS)
END = FIRST_COORD + 1000
SIZE = END + 3  # two rows without a token behind the end token

TOKENS = TokenBytes(
    text=tuple(WORDS) + (None,) * 1001,
    added={**{FIRST_COORD + k: token for k, token in enumerate(ints_to_tokens(range(1000)))}, END: "<|im_end|>"},
)
VOCAB = CoordVocab(ids=range(FIRST_COORD, END))


def coords(*bins: int) -> str:
    return "[" + ", ".join(ints_to_tokens(bins)) + "]"


def strict(text: str) -> list[dict[str, Any]]:
    """The objects of an answer, by a JSON reader that forgives nothing. The bins are plain numbers."""
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', lambda string: "0" * len(string[0]), text)
    spans = [hit.span() for hit in re.finditer(r"<\|coord_(\d+)\|>", outside)]
    for start, end in reversed(spans):
        text = text[:start] + text[start + len("<|coord_") : end - len("|>")] + text[end:]
    answer = json.loads(text)
    assert list(answer) == ["objects"]
    return list(answer["objects"])


def image(key: str, *, size: tuple[int, int] = (48, 32), question: str = "<image>Find.", seed: int = 0) -> TruthImage:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return TruthImage(
        key=key,
        width=size[0],
        height=size[1],
        labels=(),
        boxes=np.zeros((0, 4)),
        crowd=np.zeros(0, dtype=bool),
        open=lambda: Image.fromarray(pixels),
        messages=({"role": "user", "content": question},),
    )


def images(count: int) -> Sequence[TruthImage]:
    """Pictures of different sizes."""
    return [image(f"{k}.png", size=(32 + 7 * k, 60 - 5 * k), seed=k) for k in range(count)]


def checkpoint(folder: Path, **changes: Any) -> Path:
    """A tiny Qwen3-VL that talks at random, with rows behind its last token."""
    return tiny_qwen3vl(folder, **{"merges": MERGES, "padding_rows": 40, "initializer_range": 0.3} | changes)
