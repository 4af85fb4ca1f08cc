"""The ms-swift model loader of a run: the stock loader, then the run's surgeries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swift.model.models.qwen import Qwen3VLLoader

from coordcore_train.surgery.saved import install
from coordcore_train.swift.active import active_plan


class CoordQwen3VLLoader(Qwen3VLLoader):  # type: ignore[misc]
    """Loads Qwen3-VL, checks the coord ids against it, and installs the surgeries of the active run."""

    def load(self) -> tuple[Any, Any]:
        model, processor = super().load()
        if model is not None and not self.return_dummy_model:
            install(model, processor, active_plan(), Path(self.model_info.model_dir))
        return model, processor
