"""A real but tiny Qwen3-VL checkpoint for tests and demos, written in under a second and loaded offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordcore.coords import DEFAULT_COORDS, CoordFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen's special tokens, in the order of its vocabulary."""

PLAIN_ADDED_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
"""Qwen's added tokens that are not special, in the order of its vocabulary."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part['type'] == 'video' -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def tiny_qwen3vl(
    folder: Path,
    *,
    tie_word_embeddings: bool = True,
    coord_tokens: bool = True,
    padding_rows: int = 0,
    merges: Sequence[str] = (),
    hidden_size: int = 32,
    layers: int = 2,
    heads: int = 2,
    kv_heads: int = 1,
    head_dim: int = 32,
    ffn_size: int | None = None,
    rope_theta: float = 1000.0,
    mrope_section: Sequence[int] | None = None,
    initializer_range: float = 0.05,
    vision_hidden_size: int = 32,
    vision_layers: int = 2,
    vision_heads: int = 2,
    vision_ffn_size: int | None = None,
    deepstack: Sequence[int] = (0,),
    position_grid: int = 8,
    max_pixels: int = 64 * 64,
    max_position_embeddings: int = 4096,
    max_shard_size: int | str | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> Path:
    """Write a randomly initialised Qwen3-VL checkpoint to `folder` and return `folder`.

    It holds what a published one holds: config, safetensors, byte-level BPE tokenizer with Qwen's added tokens and a
    chat template, image, video and processor settings (patch 8, merge 2, two frames per patch), generation config.

    coord_tokens: add the coord tokens, the default ones or those given, not special, behind Qwen's tokens.
    padding_rows: embedding rows beyond the tokenizer's entries (the real Qwen3-VL has 267).
    merges: BPE merges, "a b" each, in the byte-level alphabet; plain bytes when empty.
    ffn_size, vision_ffn_size: 3 and 2 times the hidden size when None.
    mrope_section: rotary pairs for time, height and width; half and two quarters of `head_dim / 2` when None.
    position_grid: side of the vision tower's learned position grid, in patches.
    max_pixels: the image processor reduces larger images to this.
    max_shard_size: as in transformers' `save_pretrained`; one file when None.
    The global random state is left alone. `folder` may exist; files of these names in it are replaced.
    """
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    folder = Path(folder)
    tokenizer = _tokenizer(merges, coord_tokens)
    quarter = head_dim // 8
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in _NAMED}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + padding_rows,
            "hidden_size": hidden_size,
            "intermediate_size": ffn_size or 3 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "initializer_range": initializer_range,
            "max_position_embeddings": max_position_embeddings,
            "tie_word_embeddings": tie_word_embeddings,
            "bos_token_id": ids["endoftext"],
            "eos_token_id": ids["im_end"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": rope_theta,
                "mrope_interleaved": True,
                "mrope_section": list(mrope_section or (head_dim // 2 - 2 * quarter, quarter, quarter)),
            },
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_hidden_size,
            "intermediate_size": vision_ffn_size or 2 * vision_hidden_size,
            "num_heads": vision_heads,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": hidden_size,
            "num_position_embeddings": position_grid**2,
            "deepstack_visual_indexes": list(deepstack),
            "initializer_range": initializer_range,
        },
        tie_word_embeddings=tie_word_embeddings,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config).to(getattr(torch, dtype))
    generation: Any = model.generation_config
    generation.eos_token_id = [ids["im_end"], ids["endoftext"]]
    generation.pad_token_id = ids["endoftext"]
    model.save_pretrained(folder, **({} if max_shard_size is None else {"max_shard_size": max_shard_size}))
    _processor(tokenizer, max_pixels).save_pretrained(folder)
    return folder


_NAMED = ("endoftext", "im_end", "image_pad", "video_pad", "vision_start", "vision_end")


def _tokenizer(merges: Sequence[str], given: bool | CoordFormat) -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    pieces = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[tuple(merge.split(" ")) for merge in merges],
        extra_special_tokens=list(SPECIAL_TOKENS),
        chat_template=CHAT_TEMPLATE,
    )
    # Not an argument above: transformers would number it before <|endoftext|>, against Qwen's order.
    tokenizer.eos_token = "<|im_end|>"
    coords = DEFAULT_COORDS if given is True else given
    added = [*PLAIN_ADDED_TOKENS, *(coords.written if coords else ())]
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return tokenizer


def _processor(tokenizer: PreTrainedTokenizerFast, max_pixels: int) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    patches = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    shared = {**patches, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    size = {"shortest_edge": 16 * 16, "longest_edge": max_pixels}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared, size=size),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**shared, size={**size, "longest_edge": 8 * max_pixels}),
        chat_template=tokenizer.chat_template,
    )
