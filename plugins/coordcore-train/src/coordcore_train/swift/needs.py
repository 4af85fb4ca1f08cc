"""THE table of what a model family needs beyond ms-swift's registry. Torch-free; a peculiarity is a row."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen
class Named:
    """Where the id of a media token is told. config: keys of `config.json`, the first that is there counts.

    texts: what published tokenizers call it.
    """

    config: tuple[str, ...]
    texts: tuple[str, ...]


MEDIA_TOKENS: Mapping[str, Named] = {
    "image_token_id": Named(
        ("image_token_id", "image_token_index"), ("<|image_pad|>", "<|IMAGE_PLACEHOLDER|>", "<|image|>", "<image>")
    ),
    "video_token_id": Named(("video_token_id", "video_token_index"), ("<|video_pad|>", "<|video|>", "<video>")),
    "image_token": Named(("image_token_id", "image_token_index"), ("[IMG]",)),
    "begin_of_image_token": Named(("image_start_token_id",), ("<|begin_of_image|>",)),
    "end_of_image_token": Named(("image_end_token_id",), ("<|end_of_image|>",)),
    "begin_of_video_token": Named(("video_start_token_id",), ("<|begin_of_video|>",)),
    "end_of_video_token": Named(("video_end_token_id",), ("<|end_of_video|>",)),
    "boi_token_id": Named(("boi_token_index", "boi_token_id"), ("<start_of_image>", "<|image>")),
    "boa_token_id": Named(("boa_token_id", "boa_token_index"), ("<start_of_audio>", "<|audio>")),
}
"""Attribute that ms-swift's template classes hold as a number -> where a checkpoint says it."""

STOCK_FORWARD = ("gemma4", "gemma4_unified")
"""Types whose forward ms-swift 4.6 replaces by one that takes image features in one tensor; transformers 5.19 gives one
per image. transformers' own forward is put back."""

PACKED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Types whose examples can stand in one row: their models take positions of the text beside those of pictures, by which
transformers keeps examples apart under every attention. Each is tested to let nothing through."""

OPTIONAL = ("decord", "av", "moviepy", "soundfile", "librosa", "torchaudio", "torchcodec")
"""Packages in ms-swift's requirements of a type that read video and sound, and that images do without."""

NOT_TRAINED: Mapping[str, str] = {
    "florence": "it is an encoder-decoder, whose two embeddings coord rows would not both reach",
    "diffusion_gemma": "it fills a canvas in, and predicts no next token",
    **dict.fromkeys(
        ("qwen3_vl_emb", "qwen3_vl_reranker", "qwen3_5_emb", "wemm_embedding", "qwen2_gme", "jina_reranker_m0"),
        "it gives a vector or a score, and writes no answer",
    ),
}
"""Type -> why no answer with boxes can be trained into it."""
