"""A tiny BERT with words of its own, for which a hat is a helmet; and scenes of one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import VERSION, Box, Header, Row

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "hard", "hat", "helmet", "traffic", "light", "stop", "a", "dog")
BOX = (10.0, 10.0, 50.0, 50.0)
SIZE = 100

Labelled = Sequence[tuple[str, tuple[float, float, float, float]]]


def tiny_bert(folder: Path, *, seed: int = 0) -> Path:
    """One layer, random weights; "hat" has the vector of "helmet"."""
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    bert = BertModel(config)
    rows = bert.get_input_embeddings().weight.detach()
    rows[WORDS.index("hat")] = rows[WORDS.index("helmet")]
    bert.save_pretrained(folder)
    return folder


def alone(folder: Path, text: str, *, first: bool = False) -> np.ndarray:
    """The embedding of a text that nothing is padded beside."""
    ids = [2, *(WORDS.index(word) for word in text.split()), 3]
    with torch.inference_mode():
        states = BertModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0].double()
    vector = (states[0] if first else states.mean(0)).numpy()
    return vector / np.linalg.norm(vector)


def changed(model: Path, folder: Path, name: str, **values: object) -> Path:
    """A copy of the model, with other values in one of its JSON files."""
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))
    return folder


def header() -> Header:
    return Header(
        predictions=VERSION,
        checkpoint="model",
        quantisation=DEFAULT_QUANTISATION.as_dict(),
        decoding={"coordinates": "argmax"},
        score="min",
    )


def truth(key: str, boxes: Labelled, **changes: Any) -> TruthImage:
    values: dict[str, Any] = {
        "key": key,
        "width": SIZE,
        "height": SIZE,
        "labels": tuple(label for label, _ in boxes),
        "boxes": np.array([box for _, box in boxes], dtype=np.float64).reshape(-1, 4),
        "crowd": np.zeros(len(boxes), dtype=bool),
        "open": lambda: Image.new("RGB", (SIZE, SIZE)),
    }
    return TruthImage(**values | changes)


def row(key: str, boxes: Labelled, *, size: int = SIZE) -> Row:
    made = [Box(label=label, box=box, bins=(0, 0, 0, 0), score=0.5) for label, box in boxes]
    return Row(image=key, width=size, height=size, text="", boxes=made)
