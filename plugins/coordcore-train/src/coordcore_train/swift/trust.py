"""Whether ms-swift may run Python that lies in a model folder: left alone, it always does. Imports ms-swift."""

from __future__ import annotations

from typing import Any

from swift.model import model_meta
from swift.model.register import ModelLoader
from transformers import AutoConfig


def let_code_run(*, trusted: bool) -> None:
    """Set it for this process. ms-swift has two ways in: its loaders, and its look at a folder's config before them."""
    ModelLoader.default_trust_remote_code = trusted
    model_meta.AutoConfig = AutoConfig if trusted else _DistrustingConfig


class _DistrustingConfig:
    """Stands in for `AutoConfig` where ms-swift says `trust_remote_code = True` itself."""

    @staticmethod
    def from_pretrained(folder: Any, **settings: Any) -> Any:
        return AutoConfig.from_pretrained(folder, **{**settings, "trust_remote_code": False})
