"""What texts of the manifest must be. Torch-free."""

from __future__ import annotations

from typing import Any


def is_plain_text(_instance: Any, _attribute: Any, text: str) -> None:
    """An attrs validator: raise ValueError for text that a tokenizer or template reads as control tokens."""
    from coordcore.records.answers import reserved

    found = reserved(text)
    if found:
        raise ValueError(
            f"contains {found!r}, which the model's template reads as a control token; "
            "write plain text (the image is put before the prompt by itself)"
        )
