"""How a conversation is put to a model by plain transformers and servers: through its processor's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def chat(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A conversation as transformers' chat templates want it: `<image>` in a text becomes an image part."""
    found = []
    for message in messages:
        parts: list[dict[str, str]] = []
        for index, text in enumerate(message["content"].split("<image>")):
            parts += [{"type": "image"}] if index else []
            parts += [{"type": "text", "text": text}] if text else []
        plain = len(parts) == 1 and parts[0]["type"] == "text"
        found.append({"role": message["role"], "content": parts[0]["text"] if plain else parts})
    return found


def question_text(processor: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """The text that asks `messages`, images as the processor's placeholders, up to where the answer begins.

    Thinking is off where the template can switch it; other templates do not know the word.
    """
    text: str = processor.apply_chat_template(
        chat(messages), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return text
