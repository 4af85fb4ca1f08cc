"""A tiny random checkpoint of each model family: real transformers classes, tokenizer and chat template as it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers_tiny import byte_fallback, byte_level
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

HIDDEN = 32


def chatml(*, image: str, system: str = "", thinking: str = "") -> str:
    """A chat template of ChatML's shape. system: default system message. thinking: what begins an answer without."""
    default = f"<|im_start|>system\\n{system}<|im_end|>\\n" if system else ""
    return (
        (f"{{% if messages[0]['role'] != 'system' %}}{{{{ '{default}' }}}}{{% endif %}}" if default else "")
        + "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        + _content(image)
        + "{{ '<|im_end|>\\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        + (_switch(thinking) if thinking else "")
        + "{% endif %}"
    )


def _switch(thinking: str) -> str:
    """What `enable_thinking = false` puts before an answer, and what stands there otherwise."""
    off = "{% if enable_thinking is defined and not enable_thinking %}"
    return f"{off}{{{{ '{thinking}' }}}}{{% else %}}{{{{ '<think>\\n' }}}}{{% endif %}}"


def _content(image: str) -> str:
    return (
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{{{{ '{image}' }}}}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
        "{% endfor %}{% endif %}"
    )


def _turns(
    *, before: str, user: str, assistant: str, end: str, image: str, ask: str, system: tuple[str, str] | None = None
) -> str:
    """A chat template of turns: `before` everything, `user` or `assistant` before a message, `end` after it.

    system: before and after a system message.
    """
    opens = (
        f"{{% if message['role'] == 'assistant' %}}{{{{ '{assistant}' }}}}{{% else %}}{{{{ '{user}' }}}}{{% endif %}}"
    )
    closes = f"{{{{ '{end}' }}}}"
    if system:
        is_system = "{% if message['role'] == 'system' %}"
        opens = f"{is_system}{{{{ '{system[0]}' }}}}{{% else %}}{opens}{{% endif %}}"
        closes = f"{is_system}{{{{ '{system[1]}' }}}}{{% else %}}{closes}{{% endif %}}"
    return (
        f"{{{{ '{before}' }}}}{{% for message in messages %}}{opens}{_content(image)}{closes}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '{ask}' }}}}{{% endif %}}"
    )


# --- Qwen -------------------------------------------------------------------------------------------------------------

_QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_NO_THOUGHT = "<think>\\n\\n</think>\\n\\n"


def _qwen_tokenizer(template: str) -> PreTrainedTokenizerFast:
    return byte_level(
        _QWEN_SPECIAL,
        ("<think>", "</think>"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def _qwen_processor(tokenizer: PreTrainedTokenizerFast, patch: int, kind: str) -> Any:
    patches = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 64 * (2 * patch) ** 2}
    image = transformers.Qwen2VLImageProcessor(**patches, size=size)
    video = transformers.Qwen3VLVideoProcessor if kind == "Qwen3VL" else transformers.Qwen2VLVideoProcessor
    return getattr(transformers, f"{kind}Processor")(
        image_processor=image, tokenizer=tokenizer, video_processor=video(**patches, size=size),
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {f"vision_{end}_token_id": f"vision_{end}" for end in ("start", "end")}
    return {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


def _text(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """What the language models have in common."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "initializer_range": 0.05,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def _rope(**more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **more}


def _qwen(folder: Path, config: str, *, system: str, version: int, tied: bool = True, **text: Any) -> Path:
    tokenizer = _qwen_tokenizer(chatml(image=_QWEN_IMAGE, system=system, thinking=_NO_THOUGHT if version >= 4 else ""))
    patch = 14 if version < 3 else 16
    vision: dict[str, Any] = {"depth": 2, "hidden_size": HIDDEN, "num_heads": 2, "patch_size": patch}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    if config == "Qwen2VLConfig":
        vision |= {"embed_dim": HIDDEN, "hidden_size": HIDDEN, "mlp_ratio": 2}
    else:
        vision |= {"intermediate_size": 64, "out_hidden_size": HIDDEN}
    if config == "Qwen2_5_VLConfig":
        vision |= {"window_size": 112, "fullatt_block_indexes": [1]}
    if version >= 3:
        vision |= {"num_position_embeddings": 64}
    if version == 3:
        vision |= {"deepstack_visual_indexes": [0]}
    section = {"mrope_section": [4, 2, 2]} | ({"mrope_interleaved": True} if version >= 3 else {})
    if version >= 4:
        section["mrope_section"] = [2, 1, 1]  # a quarter of the head is rotated
        section["partial_rotary_factor"] = 0.5
    text = {"rope_parameters": _rope(**section), **text}
    whole = getattr(transformers, config)(
        text_config=_text(tokenizer, tie_word_embeddings=tied, **text),
        vision_config=vision,
        tie_word_embeddings=tied,
        **_qwen_ids(tokenizer),
    )
    kind = {2: "Qwen2VL", 3: "Qwen3VL", 4: "Qwen3VL"}[version]
    kind = "Qwen2_5_VL" if config == "Qwen2_5_VLConfig" else kind
    return _write(folder, whole, _qwen_processor(tokenizer, patch, kind))


_HELPFUL = "You are a helpful assistant."
_DELTA = {
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 1, "linear_num_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SHARED_EXPERT = {**_EXPERTS, "shared_expert_intermediate_size": 32}


# --- other families ---------------------------------------------------------------------------------------------------


def _internvl(folder: Path) -> Path:
    tokenizer = byte_level(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chatml(image="<IMG_CONTEXT>\\n"),
        extra_special_tokens={
            "start_image_token": "<img>", "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
        },
    )  # fmt: skip
    config = transformers.InternVLConfig(
        text_config=transformers.Qwen3Config(**_text(tokenizer, tie_word_embeddings=False)).to_dict(),
        vision_config={
            "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "image_size": [32, 32], "patch_size": [8, 8],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    image = transformers.GotOcr2ImageProcessor(size={"height": 32, "width": 32}, min_patches=1, max_patches=4)
    video = transformers.InternVLVideoProcessor(size={"height": 32, "width": 32})
    processor = transformers.InternVLProcessor(
        image_processor=image, tokenizer=tokenizer, video_processor=video, image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip
    return _write(folder, config, processor)


def _glm4v(folder: Path) -> Path:
    special = (
        "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
        "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>",
        "<|image|>", "<|video|>",
    )  # fmt: skip
    tokenizer = byte_level(
        special,
        ("<think>", "</think>"),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=_turns(
            before="[gMASK]<sop>", user="<|user|>\\n", assistant="<|assistant|>\\n", end="",
            image="<|begin_of_image|><|image|><|end_of_image|>", ask="<|assistant|>\\n",
        ),
    )  # fmt: skip
    ids = {
        f"{kind}{name}_token_id": tokenizer.convert_tokens_to_ids(text)
        for kind in ("image", "video")
        for name, text in (
            ("", f"<|{kind}|>"), ("_start", f"<|begin_of_{kind}|>"), ("_end", f"<|end_of_{kind}|>"),
        )
    }  # fmt: skip
    config = transformers.Glm4vConfig(
        text_config=_text(
            tokenizer,
            rope_parameters=_rope(partial_rotary_factor=0.5, mrope_section=[2, 1, 1]),
            tie_word_embeddings=False,
        ),
        vision_config={
            "depth": 2, "hidden_size": HIDDEN, "num_heads": 2, "patch_size": 8, "out_hidden_size": HIDDEN,
            "intermediate_size": 64, "image_size": 64, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        tie_word_embeddings=False,
        **ids,
    )  # fmt: skip
    patches = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 16 * 16, "longest_edge": 2 * 64 * 64}
    processor = transformers.Glm4vProcessor(
        image_processor=transformers.Glm4vImageProcessor(**patches, size=size),
        tokenizer=tokenizer,
        video_processor=transformers.Glm4vVideoProcessor(**patches, size=size),
        chat_template=tokenizer.chat_template,
    )
    return _write(folder, config, processor, eos=["<|endoftext|>", "<|user|>"])


_GEMMA_TURNS = {"user": "<start_of_turn>user\\n", "assistant": "<start_of_turn>model\\n"}


def _gemma3(folder: Path) -> Path:
    special = (
        "<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
        "<image_soft_token>",
    )  # fmt: skip
    tokenizer = byte_fallback(
        special,
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        chat_template=_turns(
            before="<bos>", **_GEMMA_TURNS, end="<end_of_turn>\\n", image="<start_of_image>",
            ask="<start_of_turn>model\\n",
        ),
        extra_special_tokens={
            "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
        },
    )  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=_text(
            tokenizer, bos_token_id=tokenizer.bos_token_id, sliding_window=64, query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config={
            "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8, "vision_use_head": False,
        },
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )  # fmt: skip
    processor = transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
        image_seq_length=4,
    )
    return _write(folder, config, processor, eos=["<eos>", "<end_of_turn>"])


def _llava_onevision(folder: Path) -> Path:
    tokenizer = byte_level(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        at={"<image>": 151646, "<video>": 151647},
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chatml(image="<image>\\n"),
    )
    config = transformers.LlavaOnevisionConfig(
        text_config=transformers.Qwen2Config(**_text(tokenizer, tie_word_embeddings=False)).to_dict(),
        vision_config=transformers.SiglipVisionConfig(
            hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=8, vision_use_head=False,
        ).to_dict(),
        image_token_index=151646,
        video_token_index=151647,
        image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]],
        tie_word_embeddings=False,
    )  # fmt: skip
    image = transformers.LlavaOnevisionImageProcessor(
        size={"height": 32, "width": 32}, image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]]
    )
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=image, tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        num_image_tokens=16, vision_feature_select_strategy="full", chat_template=tokenizer.chat_template,
        vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    return _write(folder, config, processor)


def _llava(folder: Path) -> Path:
    tokenizer = byte_fallback(
        ("<unk>", "<s>", "</s>", "<pad>", "<image>"),
        padded=True,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        chat_template=_turns(
            before="<s>", user="USER: ", assistant=" ", end="\\n", image="<image>\\n", ask="ASSISTANT:",
            system=("", "\\n"),
        ),
    )  # fmt: skip
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**_text(tokenizer, tie_word_embeddings=False)).to_dict(),
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=8, projection_dim=HIDDEN,
        ).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip
    return _write(folder, config, processor)


def _mistral3(folder: Path) -> Path:
    control = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    tokenizer = byte_level(
        ("<unk>", "<s>", "</s>", "<pad>", *control),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        chat_template=_turns(
            before="<s>", user="[INST]", assistant="[/INST]", end="", image="[IMG]", ask="[/INST]",
            system=("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        ),
    )  # fmt: skip
    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**_text(tokenizer, tie_word_embeddings=False)).to_dict(),
        vision_config=transformers.PixtralVisionConfig(
            hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=64,
            patch_size=8, head_dim=16,
        ).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=8),
        tokenizer=tokenizer, patch_size=8, spatial_merge_size=2, chat_template=tokenizer.chat_template,
    )  # fmt: skip
    return _write(folder, config, processor)


def _gemma4(folder: Path) -> Path:
    special = (
        "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>", "<|audio>",
        "<audio|>", "<|audio|>", "<|video|>", "<|channel>", "<channel|>", "<|think|>", "<|tool_response>",
    )  # fmt: skip
    tokenizer = byte_fallback(
        special,
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        chat_template=_turns(
            before="<bos>", user="<|turn>user\\n", assistant="<|turn>model\\n", end="<turn|>\\n",
            image="<|image|>", ask="<|turn>model\\n",
        )
        + "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
        + "{{ '<|channel>thought\\n<channel|>' }}{% endif %}",
        extra_special_tokens={
            "boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>",
            "boa_token": "<|audio>", "eoa_token": "<audio|>", "audio_token": "<|audio|>",
        },
    )  # fmt: skip
    ids = {
        "boi_token_id": "<|image>", "eoi_token_id": "<image|>", "image_token_id": "<|image|>",
        "video_token_id": "<|video|>", "boa_token_id": "<|audio>", "eoa_token_index": "<audio|>",
        "audio_token_id": "<|audio|>",
    }  # fmt: skip
    config = transformers.Gemma4Config(
        text_config=_text(
            tokenizer, bos_token_id=tokenizer.bos_token_id, sliding_window=64, global_head_dim=16,
            layer_types=["sliding_attention", "full_attention"], final_logit_softcapping=30.0,
            hidden_size_per_layer_input=0,
        ),
        vision_config={
            "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 16, "patch_size": 8, "pooling_kernel_size": 2,
            "position_embedding_size": 64,
        },
        audio_config=None,
        **{key: tokenizer.convert_tokens_to_ids(text) for key, text in ids.items()},
    )  # fmt: skip
    images = {"patch_size": 8, "pooling_kernel_size": 2}
    processor = transformers.Gemma4Processor(
        feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
        image_processor=transformers.Gemma4ImageProcessor(**images, max_soft_tokens=70),
        video_processor=transformers.Gemma4VideoProcessor(**images, max_soft_tokens=70),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
        image_seq_length=70,
    )
    return _write(folder, config, processor, eos=["<eos>", "<turn|>"])


def _minicpm(folder: Path) -> Path:
    named = {
        "image_start_token": "<image>", "image_end_token": "</image>", "slice_start_token": "<slice>",
        "slice_end_token": "</slice>", "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>",
        "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
    }  # fmt: skip
    tokenizer = byte_level(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values()),
        ("<think>", "</think>"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chatml(image="<|image_pad|>\\n", thinking=_NO_THOUGHT),
        extra_special_tokens=named,
    )
    rope = _rope(mrope_section=[2, 1, 1], mrope_interleaved=True, partial_rotary_factor=0.5)
    config = transformers.MiniCPMV4_6Config(
        text_config=transformers.Qwen3_5TextConfig(
            **_text(tokenizer, tie_word_embeddings=True, rope_parameters=rope, **_DELTA)
        ).to_dict(),
        vision_config={
            "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 8, "insert_layer_id": 0,
        },
        insert_layer_id=0,
        image_size=64,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        tie_word_embeddings=True,
    )  # fmt: skip
    images = {"patch_size": 8, "scale_resolution": 64, "max_slice_nums": 2}
    processor = transformers.MiniCPMV4_6Processor(
        image_processor=transformers.MiniCPMV4_6ImageProcessor(**images),
        video_processor=transformers.MiniCPMV4_6VideoProcessor(**images),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )
    return _write(folder, config, processor)


_INDEXER = {
    "layer_types": ["linear_attention", "indexed_attention"], "hc_count": 2, "hc_lowrank": 8, "ple_layer_ids": [],
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}  # fmt: skip


FAMILIES: Mapping[str, Callable[[Path], Path]] = {
    "qwen2_vl": lambda folder: _qwen(folder, "Qwen2VLConfig", system=_HELPFUL, version=2),
    "qwen2_5_vl": lambda folder: _qwen(folder, "Qwen2_5_VLConfig", system=_HELPFUL, version=2, tied=False),
    "qwen3_vl": lambda folder: _qwen(folder, "Qwen3VLConfig", system="", version=3),
    "qwen3_vl_moe": lambda folder: _qwen(folder, "Qwen3VLMoeConfig", system="", version=3, tied=False, **_EXPERTS),
    "qwen3_5": lambda folder: _qwen(folder, "Qwen3_5Config", system="", version=4, **_DELTA),
    "qwen3_5_moe": lambda folder: _qwen(
        folder, "Qwen3_5MoeConfig", system="", version=4, tied=False, **_DELTA, **_SHARED_EXPERT
    ),
    "internvl": _internvl,
    "glm4v": _glm4v,
    "gemma3_vision": _gemma3,
    "llava1_5_hf": _llava,
    "llava_onevision_hf": _llava_onevision,
    "mistral3": _mistral3,
    "gemma4": _gemma4,
    "minicpmv4_6": _minicpm,
    "qwen3_8": lambda folder: _qwen(folder, "Qwen3_5Config", system="", version=4, **_DELTA),
    "qwen4_exp": lambda folder: _qwen(
        folder, "Qwen4ExpConfig", system="", version=4, tied=False, **{**_DELTA, **_SHARED_EXPERT, **_INDEXER}
    ),
}
"""ms-swift's model type, or another template that one is trained with -> what writes a checkpoint to a folder."""


def _write(folder: Path, config: Any, processor: Any, eos: list[str] | None = None) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    tokenizer = processor.tokenizer
    generation: Any = model.generation_config
    generation.eos_token_id = tokenizer.convert_tokens_to_ids(eos) if eos else [tokenizer.eos_token_id]
    generation.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


TYPES: Mapping[str, str] = {"llava1_5_hf": "llava1_5_hf"}
"""Family -> `model.type`, where several types of ms-swift load what `config.json` says."""

TEMPLATES: Mapping[str, str] = {"qwen3_8": "qwen3_8"}
"""Family -> `model.template`, where another is taken by itself."""

EXPERTS = ("qwen3_vl_moe", "qwen3_5_moe", "qwen4_exp")
"""Families whose experts lie in one tensor of a layer, which LoRA reaches through `target_parameters`."""

SYSTEM: Mapping[str, str] = {"mistral3": "You find things."}
"""Family -> the system message that is trained: ms-swift's own default for it holds the date of the day."""

DETAILS: Mapping[str, str] = {
    "qwen2_vl": "sizes by `qwen_vl_utils`",
    "qwen2_5_vl": "window attention in the tower, untied head",
    "qwen3_vl": "deepstack",
    "qwen3_vl_moe": "experts in one tensor, under LoRA (`train.swift.target_parameters`)",
    "qwen3_5": "gated delta-net, thinking",
    "qwen3_5_moe": "gated delta-net, thinking, experts under LoRA",
    "internvl": "tiles",
    "glm4v": "turns end with the next role's token",
    "gemma3_vision": "byte fallback, scaled embedding",
    "llava1_5_hf": "byte fallback with a space before a text, as Llama 2; an image is cut to a square",
    "llava_onevision_hf": "grids of tiles, image token 151646",
    "mistral3": "rows of image tokens; ms-swift's default system message holds the date: set `data.<name>.system`",
    "gemma4": "byte fallback, scaled embedding, capped logits, thinking; transformers' own forward",
    "minicpmv4_6": "slices, thinking",
    "qwen3_8": '`model.template = "qwen3_8"` of `qwen3_5`',
    "qwen4_exp": "hyper-connections, indexed attention, experts under LoRA",
}
"""Family -> what is special about it, for the page."""
