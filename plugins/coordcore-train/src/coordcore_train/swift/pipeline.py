"""ms-swift's supervised fine-tuning pipeline over a run's examples, and one training of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy
import torch
from swift.pipelines.train.sft import SwiftSft
from torch import distributed
from torch.utils.data import DataLoader, Subset
from transformers import TrainerCallback

from coordcore import COORD_SUPERVISION, kinds
from coordcore.errors import InputError, RunError
from coordcore.protocols import DataBuilder
from coordcore.records.example import Example
from coordcore_train.chat import Question, question_in
from coordcore_train.hidden import Hiding
from coordcore_train.run.folder import RunDir
from coordcore_train.run.given import require_boxes, require_unplaced, require_written, spread
from coordcore_train.run.plan import Plan
from coordcore_train.swift.arguments import swift_arguments
from coordcore_train.swift.encode import image_tokens
from coordcore_train.swift.register import enter
from coordcore_train.swift.rows import Rows, Said
from coordcore_train.swift.sharded import sharing
from coordcore_train.swift.trackers import keep_here

_LOOKED_AT = 256  # examples, before it is said that nothing is charged in them


class CoordSft(SwiftSft):
    """Feeds a run's data builder to ms-swift. callbacks: told of the training, beside ms-swift's own silent ones."""

    def __init__(self, arguments: Any, plan: Plan, callbacks: Sequence[TrainerCallback] = ()) -> None:
        self.plan = plan
        self.callbacks = callbacks
        super().__init__(arguments)

    @classmethod
    def prepare_model(cls, args: Any, model: Any, **kwargs: Any) -> Any:
        try:
            return super().prepare_model(args, model, **kwargs)
        except (InputError, RunError):
            raise
        except Exception as error:  # whatever PEFT makes of an adapter that is not this model's
            if args.resume_from_checkpoint is None:
                raise
            why = " ".join(str(error).split())
            raise InputError(
                f"{args.resume_from_checkpoint}: its adapter cannot be loaded: {type(error).__name__}: {why}; copy the "
                "checkpoint anew, or remove it to go on from the one before"
            ) from error

    def _prepare_template(self) -> None:
        super()._prepare_template()
        # Not by its argument, which ms-swift takes with flash attention alone.
        self.template.padding_free = self.template.padding_free or self.plan.manifest.train.packing

    def _get_dataset(self) -> tuple[Any, Any]:
        train, validation = self.plan.training, self.plan.validation
        require_same_counts(len(train), 0 if self.plan.validation is None else len(self.plan.validation))
        if len(train) == 0:
            raise InputError("the data builder gave no training example; look at the [data] section")
        ranks = max(1, self.args.global_world_size)
        batch = self.args.per_device_eval_batch_size * ranks
        groups, giver = self.plan.groups, self.plan.who(kinds.DATA)
        held_out = None if validation is None else Rows(validation, batch, groups, giver)
        settings = self.plan.manifest.train
        hiding = Hiding(settings.parallel_boxes, settings.seed) if settings.parallel_boxes else None
        return Rows(train, ranks, groups, giver, hiding), held_out

    def _show_dataset(self, train_dataset: Any, val_dataset: Any) -> None:
        """ms-swift prints a sample here. Raises as `run.given`'s `require_` functions and `require_charged`."""
        rows, workers = train_dataset.dataset, self.args.dataloader_num_workers
        with _same_random_state():
            sample = partial(sampled, rows, workers)
            require_written(rows.giver, sample, self.plan.format, self.plan.coords)
            if COORD_SUPERVISION not in self.plan.manifest.capabilities():
                require_unplaced(rows.giver, sample)
            if rows.hiding is not None:
                require_boxes(rows.giver, sample)
        require_charged(self.plan, train_dataset, self.template.data_collator, workers=workers)

    def train(self, trainer: Any) -> Any:
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ in ("PrinterCallbackNew", "ProgressCallbackNew", "PrinterCallback"):
                trainer.remove_callback(callback)
        for callback in self.callbacks:
            trainer.add_callback(callback)
        limits = image_tokens(self.processor)
        if trainer.is_world_process_zero():
            with _same_random_state():
                question = question_of_run(self.plan.data)
                held_out = self.plan.validation
                examples = {"training": len(self.plan.training), "held out": len(held_out or ())}
            RunDir(self.plan.run_dir).write_state(
                image_tokens=None if limits is None else attrs.asdict(limits),
                question=None if question is None else question.as_dict(),
                examples=examples,
            )
        return super().train(trainer)


def require_same_counts(training: int, held_out: int) -> None:
    """Raise RunError unless the data builder of every rank gave as many examples as this one's."""
    if not distributed.is_initialized():
        return
    counts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(counts, (training, held_out))
    for rank, other in enumerate(counts):
        if other != counts[0]:
            raise RunError(
                f"rank {rank} has {other[0]} examples to train on and {other[1]} held out, rank 0 {counts[0][0]} and "
                f"{counts[0][1]}; give every rank the same files, plugins and settings"
            )


def question_of_run(data: DataBuilder) -> Question | None:
    """What the run asks: as its builder says by its `prompts`, else as its first example does."""
    first = data.train()[0]
    asked = question_in(first.messages)
    prompts: Mapping[str, str] | None = getattr(data, "prompts", None)
    if asked is None or prompts is None:
        return asked if first.task == "detect" else None
    return Question(prompts["detect"], asked.system, dict(prompts))


def sampled(rows: Rows, workers: int, most: int) -> Iterable[Example]:
    """At most so many examples from all over the data, without their images. workers: of the data loader; where it has
    some, the builder is asked in a process of its own here too: a file that it opens must not be shared with them.
    """
    places = spread(rows.real, most)
    return DataLoader(
        Subset(Said(rows), places), batch_size=None, num_workers=min(workers, 1), generator=torch.Generator()
    )


def require_charged(plan: Plan, encoded: Any, collate: Callable[[Any], Any], *, workers: int) -> None:
    """Raise InputError when the losses charge nothing in examples from all over the data.

    encoded: the run's `Rows`, as ms-swift encodes them. Ends with the first example that is charged. workers: of the
    data loader; where it has some, the builder is asked in a process of its own here too. The random state is left
    alone.
    """
    count = encoded.dataset.real
    places = spread(count, _LOOKED_AT)
    sample = DataLoader(
        Subset(encoded, places),
        collate_fn=collate,
        num_workers=min(workers, 1),
        generator=torch.Generator(),
    )
    with _same_random_state():
        if any(plan.objective.is_charged(batch["counts"]) for batch in sample):
            return
    [data] = plan.manifest.of(kinds.DATA)
    parts = ", ".join(part.name for part in plan.objective.parts if part.trains)
    raise InputError(
        f"{data.path}: {len(places)} of its {count} examples hold no position that a loss charges ({parts}), so "
        "the run would train nothing; give the examples answers, and boxes where only coord tokens are charged, or add "
        "a loss that charges what they hold"
    )


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Within this context a data builder may draw random numbers; afterwards as if none had been drawn."""
    before, of_numpy = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(before)
    numpy.random.set_state(of_numpy)


def train(plan: Plan, *, resume: Path | None, callbacks: Sequence[TrainerCallback]) -> None:
    """Train a run to its last step. See `coordcore_train.engine.TrainingEngine.train`."""
    enter(plan)
    keep_here(plan.manifest.train.report_to, RunDir(plan.run_dir).path / "logs")
    try:
        with sharing(plan.manifest):
            arguments = swift_arguments(plan, has_validation=plan.validation is not None, resume=resume)
            CoordSft(arguments, plan, callbacks).run()
    except (InputError, RunError) as error:
        # A data-loader process sends its traceback as the message; what the user should read ends it.
        text, kind = str(error), type(error)
        if not text.startswith(f"Caught {kind.__name__} in DataLoader worker"):
            raise
        raise kind(text.rpartition(f"{kind.__name__}: ")[2].strip()) from error
