"""How a conversation is put to a model by plain transformers and servers: through its processor's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs.validators import deep_mapping, instance_of, optional


@attrs.frozen
class Question:
    """What a model is asked about every image alike: the text without `<image>`, and the system message, if any.

    prompts: of a model that was trained on records with tasks, by task; `text` is that of a record without one.
    """

    text: str = attrs.field(validator=instance_of(str))
    system: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    prompts: Mapping[str, str] | None = attrs.field(
        default=None, validator=optional(deep_mapping(instance_of(str), instance_of(str), instance_of(dict)))
    )

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it; without prompts where there are none."""
        held: dict[str, Any] = attrs.asdict(self, filter=lambda field, value: field.name != "prompts" or value)
        return held


def question_in(messages: Sequence[Mapping[str, Any]]) -> Question | None:
    """The question of an example, None where it is no single one on one image."""
    roles = [message["role"] for message in messages]
    content = [str(message["content"]) for message in messages]
    if roles[-2:] != ["user", "assistant"] or roles[:-2] not in ([], ["system"]) or content[-2].count("<image>") != 1:
        return None
    return Question(content[-2].replace("<image>", ""), content[0] if roles[0] == "system" else None)


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


def question_text(processor: Any, messages: Sequence[Mapping[str, Any]], *, thinking: bool = False) -> str:
    """The text that asks `messages`, images as the processor's placeholders, up to where the answer begins.

    thinking: on or off, where the template can switch it; other templates do not know the word.
    """
    text: str = processor.apply_chat_template(
        chat(messages), tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    return text


def thought_end(processor: Any, messages: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """The token that ends a thought, and the text from it to the answer; None where thinking cannot be switched.

    Read off the empty thought that the template writes where thinking is off.
    """
    off = question_text(processor, messages)
    if off == question_text(processor, messages, thinking=True):
        return None
    for token in ("</think>", "<channel|>"):
        _, found, rest = off.rpartition(token)
        if found:
            return processor.tokenizer.convert_tokens_to_ids(token), token + rest
    return None
