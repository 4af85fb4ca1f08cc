"""Asks a model about images, batch by batch: one row with text, boxes and scores per image. Needs torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from transformers import GenerationConfig

from coordcore.coords import DEFAULT_COORDS, CoordVocab
from coordcore.errors import InputError, RunError
from coordcore.quantisation import Quantisation
from coordcore.records.answers import COORDJSON, Format, Located, answer_text, parse_answer
from coordcore.records.geometry import COUNTS
from coordcore_detection.decode.decoding import read_coords
from coordcore_detection.decode.grammar import Constraint, DeviceGrammar, bins_of_tokens, compile_grammar
from coordcore_detection.decode.tokens import token_bytes
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.ahead import Guesses, NotAheadError, only, write_ahead
from coordcore_detection.predict.boxes import not_shown, read_row, with_question
from coordcore_detection.predict.corners import Corners, Proposer, Together
from coordcore_detection.predict.loading import Loaded, load, question_of, weights_digest
from coordcore_detection.predict.numbers import row_of_text
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import VERSION, Header, Row
from coordcore_detection.predict.recording import Journal, Recorder, Recording, StopLoops, StopRepeats
from coordcore_detection.predict.settings import PredictSettings
from coordcore_train.chat import question_text, thought_end
from coordcore_train.checkpoint.image_size import reduced

__all__ = ["Loaded", "PredictSettings", "header", "load", "predict", "question_of"]


def header(
    path: Path, loaded: Loaded, settings: PredictSettings, question: str | None = None, system: str | None = None
) -> Header:
    """The contract of predictions by `loaded`, which was loaded from `path`.

    question, system: what the model is asked, where all images share it.
    """
    numbers = loaded.format.numbers
    decoding = {**(settings.of_numbers() if numbers else settings.decoding())}
    decoding |= {"dtype": str(loaded.model.dtype).removeprefix("torch.")}
    digest = loaded.proposer.digest if loaded.proposer is not None and settings.tolerance else ""
    decoding |= {"heads": digest} if digest else {}
    decoding |= {} if question is None else {"question": question, "system": system}
    packages = ("coordcore", "coordcore-detection", "torch", "transformers")
    return Header(
        predictions=VERSION,
        checkpoint=str(path),
        weights=weights_digest(path),
        quantisation=loaded.quantisation.as_dict(),
        coords=None if loaded.coords == DEFAULT_COORDS else attrs.asdict(loaded.coords),
        answers=None if loaded.format is COORDJSON else loaded.format.as_dict(),
        decoding=decoding,
        score="none" if numbers else settings.score,
        calibration=settings.calibration.as_dict() if settings.calibration else None,
        versions={name: version(name) for name in packages},
    )


def predict(
    model: Any,
    processor: Any,
    images: Iterable[TruthImage],
    settings: PredictSettings,
    *,
    vocab: CoordVocab | None,
    quantisation: Quantisation,
    max_pixels: int | None = None,
    form: Format = COORDJSON,
    log: Callable[[str], None] | None = None,
    watch: Callable[[Row, Recording, int], None] | None = None,
    proposer: Proposer | Together | None = None,
) -> Iterator[Row]:
    """Ask `model` about each image, in order, `settings.batch_size` at a time. The images' boxes are not looked at.

    model, processor, vocab, max_pixels, form: as `load` gives them. proposer: of corners of boxes, asked where the
    settings have a tolerance. log: told about images that could not be shown to the model; their rows hold no boxes and
    say why in `unread`, at "image"; and once where no corners can be proposed. watch: called with each other row of a
    model that writes coord tokens, the recording of its batch and its place there (`distributions.Distributions`).
    Raises InputError for a tokenizer or a budget the answer format does not fit, RunError when the model's logits are
    NaN and when a batch does not fit the GPU's memory.
    """
    asker = _Asker(model, processor, settings, vocab, quantisation, max_pixels, form, watch, log, proposer)
    images = iter(images)
    while batch := list(itertools.islice(images, settings.batch_size)):
        for row in asker.rows(batch):
            if log is not None and row.unread and row.unread[0].at == NO_IMAGE:
                log(f"{row.image}: {row.unread[0].reason}")
            yield row


class _Asker:
    """One model with everything that is the same for every batch."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        settings: PredictSettings,
        vocab: CoordVocab | None,
        quantisation: Quantisation,
        max_pixels: int | None,
        form: Format,
        watch: Callable[[Row, Recording, int], None] | None,
        log: Callable[[str], None] | None,
        proposer: Proposer | Together | None,
    ) -> None:
        self.watch = watch
        self.log = log
        self.proposer = None if settings.tolerance is None else proposer
        self.model = model
        self.processor = processor
        self.settings = settings
        self.quantisation = quantisation
        self.form = form
        self.max_pixels = max_pixels
        self.tokens = token_bytes(processor.tokenizer)
        self.end_tokens = _end_tokens(model, processor.tokenizer)
        self.grammar: DeviceGrammar | None = None
        self._prompts: dict[str, str] = {}
        self.vocab = vocab
        if vocab is None:
            return
        self.coord_ids = vocab.ids_tensor(model.device)
        size = model.config.get_text_config().vocab_size
        self.bin_of = bins_of_tokens(vocab, size)
        self.guesses: Guesses | None = None
        if settings.constrained:
            kinds = tuple(kind for kind in settings.geometry if kind in form.places)
            if not kinds:
                asked, can = ", ".join(settings.geometry), ", ".join(form.places)
                raise InputError(f"the model answers in the format {form.name}, which says {can}; {asked} is asked for")
            try:
                grammar = compile_grammar(
                    self.tokens,
                    vocab,
                    size=size,
                    end_tokens=self.end_tokens,
                    geometry=kinds,
                    fields=settings.fields,
                    form=form,
                )
            except ValueError as error:
                raise InputError(f"the format {form.name}: {error}; ask for free decoding") from error
            self.grammar = DeviceGrammar(grammar, model.device)
            self.guesses = Guesses(grammar, self._some_answer(vocab))

    def _some_answer(self, vocab: CoordVocab) -> list[int]:
        """The tokens of an answer with two objects, as the tokenizer makes them of its text."""
        kind = "bbox_2d" if "bbox_2d" in self.form.places else next(iter(self.form.places))
        item = Located(desc="a", kind=kind, bins=(0, 0, 1, 0, 1, 1, 0, 1)[: COUNTS[kind] or 6])
        text = answer_text([item, item], form=self.form, coords=vocab.format)
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.end_tokens[0]]

    def rows(self, batch: Sequence[TruthImage]) -> list[Row]:
        """The rows of a batch, in order."""
        rows: dict[int, Row] = {}
        shown: list[tuple[int, Any]] = []
        for index, truth in enumerate(batch):
            try:
                shown.append((index, reduced(truth.open(), truth.least_pixels(self.max_pixels))))
            except InputError as error:
                rows[index] = not_shown(truth, str(error))
        for in_text in (False, True):  # the grammar knows answers with places alone
            part = [(index, image) for index, image in shown if batch[index].is_text is in_text]
            if part:
                asked = [batch[index] for index, _ in part]
                rows |= zip((index for index, _ in part), self._ask(asked, [image for _, image in part]), strict=True)
        return [with_question(rows[index], truth) for index, truth in enumerate(batch)]

    def _ask(self, asked: Sequence[TruthImage], images: Sequence[Any]) -> list[Row]:
        prompts = [self._prompt(truth) for truth in asked]
        end = self._thought_end(asked[0]) if self.settings.thinking else None
        try:
            if end is not None:
                prompts = self._think(prompts, images, *end)
            inputs = self._inputs(prompts, images)
        except ValueError as error:  # an image that is no picture to the processor, such as one of 1 x 5000 pixels
            if len(asked) == 1:
                return [not_shown(asked[0], f"the processor refuses the image: {error}")]
            return [row for item, image in zip(asked, images, strict=True) for row in self._ask([item], [image])]
        if self.vocab is None or asked[0].is_text:
            return self._free_rows(asked, inputs)
        recording = self._generate(inputs)
        coords = read_coords(
            recording.logits,
            recording.log_sum,
            recording.bins,
            coordinates=self.settings.coordinates,
            window=self.settings.window,
        )
        rows = [
            read_row(
                truth,
                recording,
                index,
                coords,
                tokens=self.tokens,
                end_tokens=self.end_tokens,
                settings=self.settings,
                quantisation=self.quantisation,
                coord_format=self.vocab.format,
                form=self.form,
            )
            for index, truth in enumerate(asked)
        ]
        if self.watch is not None:
            for index, row in enumerate(rows):
                self.watch(row, recording, index)
        return rows

    def _free_rows(self, asked: Sequence[TruthImage], inputs: Any) -> list[Row]:
        """Answers in plain numbers or in text, which the model writes freely."""
        rows, prompt = inputs["input_ids"].shape
        stop = StopRepeats(prompt, self.settings.repeats, rows)
        with _inference(rows):
            written = self._generated(inputs, stopping=[stop])[:, prompt:].tolist()
        found = []
        for truth, tokens, looped in zip(asked, written, stop.looped.tolist(), strict=True):
            said = list(takewhile(lambda token: token not in self.end_tokens, tokens))
            is_whole = len(said) < len(tokens)
            stopped = "repetition" if looped and not is_whole else "end" if is_whole else "length"
            text, _ = self.tokens.read(said)
            form = None if truth.is_text else self.form
            found.append(row_of_text(truth, text, stopped, form=form, quantisation=self.quantisation))
        return found

    def _inputs(self, prompts: Sequence[str], images: Sequence[Any]) -> Any:
        inputs = self.processor(
            text=list(prompts), images=list(images), padding=True, padding_side="left", return_tensors="pt"
        )
        return inputs.to(self.model.device)

    def _thought_end(self, truth: TruthImage) -> tuple[int, str]:
        """Raises InputError for a model whose chat template cannot switch thinking."""
        end = thought_end(self.processor, truth.messages)
        if end is None:
            raise InputError(
                "thinking: the chat template of this model has no switch for it (enable_thinking); leave it out"
            )
        return end

    def _think(self, prompts: Sequence[str], images: Sequence[Any], token: int, closing: str) -> list[str]:
        """The prompts with a thought behind each, ended where the model ends it, or by the settings' limit.

        token: that ends a thought. closing: the text that follows, itself included.
        """
        inputs = self._inputs(prompts, images)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.settings.thinking,
            eos_token_id=[token, *self.end_tokens],
            pad_token_id=self.end_tokens[0],
        )
        with torch.inference_mode(), only(self.model, config):
            sequences = self.model.generate(**inputs, generation_config=config)
        written = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        stops = {token, *self.end_tokens}
        thoughts = [self.tokens.read(takewhile(lambda item: item not in stops, row))[0] for row in written]
        return [prompt + thought + closing for prompt, thought in zip(prompts, thoughts, strict=True)]

    def _generate(self, inputs: Any) -> Recording:
        rows = len(inputs["input_ids"])
        with _inference(rows):
            if self.guesses is not None:
                try:
                    return self._write_ahead(inputs, rows, self.guesses)
                except NotAheadError as reason:
                    self.guesses = None  # nor will it for the next batch
                    if self.proposer is not None and self.log is not None:
                        self.log(f"tokens come one at a time, and no corners are proposed: {reason}")
            return self._write(inputs, rows)

    def _constraint(self, rows: int) -> Constraint | None:
        settings = self.settings
        if self.grammar is None:
            return None
        return Constraint(
            self.grammar,
            rows,
            budget=settings.max_new_tokens,
            max_objects=settings.max_objects,
            ordered=settings.ordered,
        )

    def _write_ahead(self, inputs: Any, rows: int, guesses: Guesses) -> Recording:
        """Several tokens a pass, where they can be guessed."""
        constraint = self._constraint(rows)
        assert constraint is not None  # there are guesses where there is a grammar
        journal = Journal(self.coord_ids, self.bin_of, rows, self.settings.repeats, self.end_tokens[0])
        tolerance = self.settings.tolerance or 0
        assert self.vocab is not None  # nor is there a grammar without coord tokens
        corners = Corners(self.vocab, self.coord_ids, self.bin_of, rows, self.proposer, tolerance)
        # What a batch has learned stays in it: in the last digits an answer depends on what was guessed. Where a guess
        # may stand that was not right, it depends on it altogether, and a row learns from itself alone.
        learned = [guesses.copy()] * rows if corners.exact else [guesses.copy() for _ in range(rows)]
        return write_ahead(self.model, inputs, constraint, learned, journal, self.end_tokens, corners)

    def _write(self, inputs: Any, rows: int) -> Recording:
        """A token a pass."""
        settings, constraint = self.settings, self._constraint(rows)
        prompt = inputs["input_ids"].shape[1]
        recorder = Recorder(
            self.coord_ids,
            self.bin_of,
            np.array(self.end_tokens),
            rows=rows,
            prompt=prompt,
            repeats=settings.repeats,
            max_objects=settings.max_objects,
            read=self._coordinates,
            constraint=constraint,
        )
        stopping = [] if constraint else [StopLoops(recorder)]
        return recorder.finish(self._generated(inputs, processors=[recorder], stopping=stopping))

    def _coordinates(self, tokens: list[int]) -> list[int]:
        """How many coordinates each object has in an answer that begins so."""
        assert self.vocab is not None  # what holds no coord tokens is not recorded
        objects = parse_answer(self.tokens.read(tokens)[0], self.form, coords=self.vocab.format).objects
        counts = [len(item.bins) for item in objects]
        if counts and objects[-1].kind == "poly":
            counts[-1] += 1  # it may go on, and be in the middle of a point
        return counts

    def _generated(self, inputs: Any, *, processors: Sequence[Any] = (), stopping: Sequence[Any] = ()) -> torch.Tensor:
        """[B, prompt + T]: the prompts with their answers, a token a pass."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.settings.max_new_tokens,
            eos_token_id=self.end_tokens,
            pad_token_id=self.end_tokens[0],
        )
        with only(self.model, config):
            sequences: torch.Tensor = self.model.generate(
                **inputs,
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList(stopping),
            )
        return sequences

    def _prompt(self, truth: TruthImage) -> str:
        key = repr(truth.messages)
        if key not in self._prompts:
            count = sum(message["content"].count("<image>") for message in truth.messages)
            if count != 1:
                raise InputError(f"{truth.key}: a question holds <image> once, this one {count} times")
            thinking = bool(self.settings.thinking)
            self._prompts[key] = question_text(self.processor, truth.messages, thinking=thinking)
        return self._prompts[key]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    given = model.generation_config.eos_token_id
    ids = [*(given if isinstance(given, list) else [given]), tokenizer.eos_token_id]
    return list(dict.fromkeys(id_ for id_ in ids if id_ is not None))


@contextmanager
def _inference(rows: int) -> Iterator[None]:
    """Within this context the model answers `rows` prompts. Raises RunError for a batch that does not fit."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"{rows} images at a time do not fit the GPU's memory ({str(error).splitlines()[0]}); lower --batch-size"
        ) from error
