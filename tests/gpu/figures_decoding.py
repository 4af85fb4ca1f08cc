"""Greedy decoding: steps a second of transformers' own loop, of a recorded one, and of one held to the grammar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from models import wide_qwen2
from reference import BINS
from setting import Setting, timed

from coordcore.coords import CoordVocab, ints_to_tokens

PLAIN, RECORDED, GRAMMAR = "generate", "recorded", "with the grammar"


def decoding(setting: Setting) -> dict[str, Any]:
    """16 answers at a time of a text model of 12 layers, H = 2048, V = 152,670, bfloat16."""
    from coordcore_detection.decode.grammar import DeviceGrammar, bins_of_tokens, compile_grammar
    from coordcore_detection.decode.tokens import TokenBytes

    size, rows, steps = setting.size(152_670, 1800), setting.size(16, 2), setting.size(128, 16)
    first = size - BINS - 1
    vocab, end = CoordVocab(ids=range(first, first + BINS)), size - 1
    tokens = TokenBytes(
        text=tuple(bytes([number]) for number in range(256)) + (None,) * (size - 256),
        added={**{first + k: token for k, token in enumerate(ints_to_tokens(range(BINS)))}, end: "<|im_end|>"},
    )
    grammar = compile_grammar(tokens, vocab, size=size, end_tokens=[end], geometry=("bbox_2d", "poly"), fields="any")
    device_grammar = DeviceGrammar(grammar, torch.device(setting.device))
    model = _model(setting, size)
    prompt = torch.randint(256, (rows, setting.size(64, 8)), generator=setting.generator(2), device=setting.device)
    counted: dict[str, int] = {}

    def variant(name: str) -> Callable[[], None]:
        def run() -> None:
            from transformers import GenerationConfig, LogitsProcessorList

            from coordcore_detection.decode.grammar import Constraint
            from coordcore_detection.predict.recording import Recorder

            constraint = None
            if name == GRAMMAR:
                constraint = Constraint(device_grammar, rows, budget=steps, max_objects=100, ordered=True)
            recorder = Recorder(
                vocab.ids_tensor(setting.device),
                bins_of_tokens(vocab, size),
                np.array([end]),
                rows=rows,
                prompt=prompt.shape[1],
                repeats=4,
                max_objects=100,
                read=lambda _tokens: [],
                constraint=constraint,
            )
            config = GenerationConfig(
                do_sample=False,
                max_new_tokens=steps,
                # Without the grammar nothing but the length ends an answer, or chance would decide the figure.
                eos_token_id=[end] if name == GRAMMAR else None,
                pad_token_id=end,
            )
            with torch.inference_mode():
                sequences = model.generate(
                    input_ids=prompt,
                    attention_mask=torch.ones_like(prompt),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([] if name == PLAIN else [recorder]),
                )
            if name != PLAIN:
                recorder.finish(sequences)
            counted[name] = sequences.shape[1] - prompt.shape[1]

        return run

    found: dict[str, dict[str, Any]] = {}
    for name in (PLAIN, RECORDED, GRAMMAR):
        measured = timed(variant(name), setting, 3, warm=1)
        found[name] = {**measured, "steps": counted[name], "steps_per_second": counted[name] / measured["ms"] * 1e3}
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {
        "title": f"greedy decoding, {rows} answers at a time, {weights / 1e9:.2f} GB of weights, V = {size:,}",
        "variants": found,
        # Of one step: the weights are read once.
        "floor": {"flops": 0, "bytes": weights},
        "dtype": "bfloat16",
    }


def _model(setting: Setting, size: int) -> Any:
    width = setting.size(2048, 32)
    model = wide_qwen2(width=width, vocabulary=size, layers=setting.size(12, 1), device=setting.device)
    return model.to(torch.bfloat16 if setting.cuda else torch.float32).eval()
