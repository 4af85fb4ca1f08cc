"""The components `coord_jsonl`, `chat_jsonl` and `coord_template`, and what they check. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordcore import COORD_SUPERVISION, COORD_TOKENS, BuildContext, Component, Problem, hookimpl, kinds
from coordcore.assemble import answer_format
from coordcore.components import LENGTHS, PLAIN_NUMBERS
from coordcore.manifest import Manifest
from coordcore_coord_tokens.chat.config import ChatJsonlConfig
from coordcore_coord_tokens.config import CoordJsonlConfig, CoordTemplateConfig, LinesConfig

if TYPE_CHECKING:
    from coordcore_coord_tokens.chat.builder import ChatJsonl
    from coordcore_coord_tokens.jsonl import CoordJsonl
    from coordcore_coord_tokens.template import CoordTemplate


def _provided(config: CoordJsonlConfig) -> list[str]:
    if config.emits_coord_tokens:
        return [LENGTHS, COORD_TOKENS]
    return [LENGTHS] if config.mode == "summary" else [LENGTHS, PLAIN_NUMBERS]


def _build_jsonl(config: CoordJsonlConfig, context: BuildContext) -> CoordJsonl:
    from coordcore_coord_tokens.jsonl import CoordJsonl

    return CoordJsonl.open(config, context)


def _build_chat(config: ChatJsonlConfig, context: BuildContext) -> ChatJsonl:
    from coordcore_coord_tokens.chat.builder import ChatJsonl

    return ChatJsonl.open(config, context)


def _build_template(config: CoordTemplateConfig, context: BuildContext) -> CoordTemplate:
    from coordcore_coord_tokens.template import CoordTemplate

    return CoordTemplate(coord_tokens=config.coord_tokens, skip_bbox_norm=config.skip_bbox_norm, coords=context.coords)


@hookimpl
def coordcore_data_builders() -> Iterable[Component]:
    return [
        Component(
            name="coord_jsonl",
            config=CoordJsonlConfig,
            build=_build_jsonl,
            summary="JSONL records of boxes, polygons, quads, points or summaries, places as coord tokens or numbers",
            provides=_provided,
            requires=lambda config: [COORD_SUPERVISION] if config.emits_coord_tokens else [],
        ),
        Component(
            name="chat_jsonl",
            config=ChatJsonlConfig,
            build=_build_chat,
            summary="chat rows of ms-swift, ShareGPT or LLaVA, with the boxes of objects and texts as coord tokens",
            provides=lambda _: [LENGTHS, COORD_TOKENS],
            requires=lambda _: [COORD_SUPERVISION],
        ),
    ]


@hookimpl
def coordcore_answer_formats() -> Iterable[Component]:
    from coordcore_coord_tokens.formats import components

    return components()


@hookimpl
def coordcore_template_adapters() -> Iterable[Component]:
    return [
        Component(
            name="coord_template",
            config=CoordTemplateConfig,
            build=_build_template,
            summary="image token ids from the tokenizer, coord tokens verified, box rescaling off",
        )
    ]


@hookimpl
def coordcore_check(run: Manifest) -> Iterable[Problem]:
    data = [chosen.config for chosen in run.of(kinds.DATA) if isinstance(chosen.config, LinesConfig)]
    templates = [chosen.config for chosen in run.of(kinds.TEMPLATE) if isinstance(chosen.config, CoordTemplateConfig)]
    is_numbers = answer_format(run).numbers
    if is_numbers:
        for path in run.capabilities().get(COORD_TOKENS, ()):
            cure = "" if path == "data.chat_jsonl" else "set coord_tokens = false, or "  # which has no such key
            message = (
                f"writes coord tokens, and answers in the chosen format hold plain numbers; {cure}name another format"
            )
            yield Problem(path=path, message=message)
    for config in data:
        name = "coord_jsonl" if isinstance(config, CoordJsonlConfig) else "chat_jsonl"
        writes = config.emits_coord_tokens if isinstance(config, CoordJsonlConfig) else True
        if writes and any(not template.coord_tokens for template in templates):
            yield Problem(
                path="template.coord_template.coord_tokens",
                message=f"false, but data.{name} writes coord tokens; set both alike",
            )
        if isinstance(config, CoordJsonlConfig) and not writes and COORD_TOKENS not in run.capabilities():
            key, said, cure = (
                ("coord_tokens", "false", "true") if config.mode == "dense" else ("mode", "summary", "dense")
            )
            for needy in (chosen.path for chosen in run.selected if COORD_TOKENS in chosen.requires):
                message = (
                    f"{needy} needs coord tokens, and answers in the chosen format hold none; leave it out"
                    if is_numbers
                    else f"{said}, but {needy} needs coord tokens; set it to {cure}, or leave {needy} out"
                )
                yield Problem(path=f"data.coord_jsonl.{key}", message=message)
        if isinstance(config, CoordJsonlConfig | ChatJsonlConfig) and config.augment is not None:
            from coordcore_coord_tokens.augment import check

            if isinstance(config, ChatJsonlConfig):
                yield from check.chat_problems(config)
            else:
                yield from check.problems(config, run)
        if config.validate or config.decodes:
            yield from _row_problems(config, run)


def _row_problems(config: LinesConfig, run: Manifest) -> Iterable[Problem]:
    from coordcore.quantisation import quantisation

    how = (quantisation(run.coords.quantisation), run.coords.format, answer_format(run))
    if isinstance(config, CoordJsonlConfig):
        from coordcore_coord_tokens.jsonl import record_problems

        return record_problems(config, *how)
    if isinstance(config, ChatJsonlConfig):
        from coordcore_coord_tokens.chat.builder import row_problems

        return row_problems(config, *how)
    return ()
