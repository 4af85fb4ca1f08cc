"""What augmentation cannot do with a run, and with a record. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from coordcore import Problem
from coordcore.assemble import answer_format
from coordcore.quantisation import quantisation
from coordcore.records.answers import Located
from coordcore.records.asking import ABSENT
from coordcore.records.record import Record, RecordError, labels_under
from coordcore_coord_tokens.augment.words import LeftRight, refused_words, told_left_right
from coordcore_coord_tokens.reader import written

if TYPE_CHECKING:
    from coordcore.manifest import Manifest
    from coordcore_coord_tokens.augment.config import ImageConfig
    from coordcore_coord_tokens.chat.config import ChatJsonlConfig
    from coordcore_coord_tokens.config import CoordJsonlConfig


class Augmented:
    """Looks at the records of a file that is augmented."""

    def __init__(self, config: CoordJsonlConfig) -> None:
        augment = config.augment
        assert augment is not None
        self._words = refused_words(augment)
        self._noise = augment.noise_label if augment.noise_objects else None
        self._dense = config.mode == "dense"

    def require(self, record: Record) -> None:
        """Raise RecordError for texts that a mirrored image makes wrong, and for an object called as noise is."""
        for path, text in self._texts(record):
            if self._words is not None and (word := self._words.found(text)):
                raise RecordError(path, told_left_right(text, word), reason=f"says {word!r}")
            if text == self._noise and path.endswith(".desc"):
                raise RecordError(path, f"{text!r} is what noise is called; set another noise_label")

    def _texts(self, record: Record) -> Iterator[tuple[str, str]]:
        """What a record says in questions and answers, with where it says it."""
        if not self._dense:
            yield "summary", record.summary or ""
            return
        yield from ((f"objects[{number}].desc", item.desc) for number, item in enumerate(record.objects or ()))
        yield from (("question", record.question or ""), ("answer", record.answer or ""))
        if record.task != "named":  # which alone asks for categories
            return
        listed = {"categories": record.categories or [], f"metadata.{ABSENT}": labels_under(record, ABSENT)}
        for key, labels in listed.items():
            yield from ((f"{key}[{number}]", label) for number, label in enumerate(labels))


def _needs(augment: ImageConfig, here: str) -> Iterator[Problem]:
    if (augment.moves or augment.colours) and find_spec("torchvision") is None:
        yield Problem(path=here, message="needs torchvision, which is not installed; pip install coordcore[train]")


def chat_problems(config: ChatJsonlConfig) -> Iterator[Problem]:
    """What is wrong with `[data.chat_jsonl.augment]`, whatever the rows hold."""
    augment = config.augment
    if augment is None:
        return
    yield from _needs(augment, "data.chat_jsonl.augment")
    if augment.flip > 0 and augment.left_right != "exchange":
        system = config.system or ""
        if word := LeftRight(augment.left_right_words).found(system):
            yield Problem(path="data.chat_jsonl.system", message=told_left_right(system, word))


def problems(config: CoordJsonlConfig, run: Manifest) -> Iterator[Problem]:
    """What is wrong with `[data.coord_jsonl.augment]` in this run, whatever the records hold."""
    augment, here = config.augment, "data.coord_jsonl.augment"
    if augment is None:
        return
    yield from _needs(augment, here)
    if (words := refused_words(augment)) is not None:
        texts = [("prompt", config.question), ("system", config.system or "")]
        texts += [(f"prompts.{task}", text) for task in config.prompts for text in config.prompts[task]]
        for key, text in texts:
            if word := words.found(text):
                yield Problem(path=f"data.coord_jsonl.{key}", message=told_left_right(text, word))
    if config.mode == "summary":
        if augment.crop is not None:
            message = (
                "a summary would speak of what is cut off; leave crop out, or give the summaries a source of their own"
            )
            yield Problem(path=f"{here}.crop", message=message)
        for key, given in (("noise_objects", augment.noise_objects), ("shuffle_objects", augment.shuffle_objects)):
            if given:
                yield Problem(
                    path=f"{here}.{key}", message='a summary names no objects; leave it out, or set mode = "dense"'
                )
        return
    if augment.noise_objects and not config.coord_tokens:
        message = "no loss may see the coordinates of noise, and plain numbers are seen like any text; leave it out"
        yield Problem(path=f"{here}.noise_objects", message=message)
    if augment.noise_objects and "bbox_2d" not in config.geometry:
        message = (
            f"noise is boxes, and geometry allows {', '.join(config.geometry)} alone; add bbox_2d, or leave it out"
        )
        yield Problem(path=f"{here}.noise_objects", message=message)
    elif augment.noise_objects:
        noise = Located(desc=augment.noise_label, kind="bbox_2d", bins=(0, 0, 1, 1), values=(0.0, 0.0, 1.0, 1.0))
        try:
            written([noise], config, run.coords.format, answer_format(run))
        except RecordError as error:
            yield Problem(path=f"{here}.noise_label", message=error.message)
    convention = quantisation(run.coords.quantisation)
    if augment.moves and config.space == "bin" and convention.rounding != "nearest":
        message = (
            f"bins of {convention.name} tell a place to within a bin, which rounding to one side would move again; "
            'write the records in pixels (space = "pixel"), or leave flip, crop and resize out'
        )
        yield Problem(path=here, message=message)
