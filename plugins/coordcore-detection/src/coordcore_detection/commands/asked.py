"""A model as `coordcore predict` asks it: in this process, or behind a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import typer

from coordcore.coords import CoordFormat
from coordcore.errors import InputError
from coordcore.quantisation import Quantisation
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.predictions import Header, Row
from coordcore_detection.predict.settings import PredictSettings

Log = Callable[[str], None]


@attrs.frozen(kw_only=True)
class Asked:
    """header: the contract under settings. answers: the rows of images, in their order; what is to be told on the way
    goes to the log.

    numbers: whether they hold plain numbers.
    """

    header: Callable[[PredictSettings], Header]
    quantisation: Quantisation
    coords: CoordFormat
    numbers: bool = False
    answers: Callable[[Sequence[TruthImage], Log, PredictSettings], Iterator[Row]]


def here(
    checkpoint: Path,
    device: str,
    quantisation: Quantisation | None,
    coords: CoordFormat | None,
    question: str | None,
    system: str | None,
    *,
    numbers: bool = False,
    parallel: bool = False,
) -> Asked:
    """A checkpoint or a run, loaded into this process. device: "auto" takes a GPU when there is one.

    parallel: the corners of a box together. Raises InputError for one that has neither learned it nor heads.
    """
    import torch

    from coordcore_detection.predict import asking
    from coordcore_detection.predict.loading import run_and_folder
    from coordcore_detection.predict.proposing import proposer_of
    from coordcore_detection.predict.shares import Share
    from coordcore_train.run.quiet import quiet_transformers

    quiet_transformers()
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if where == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(Share.here().local % torch.cuda.device_count())  # which "cuda" then means
    loaded = asking.load(checkpoint, where, quantisation=quantisation, coords=coords, numbers=numbers)
    if parallel:
        loaded = loaded._replace(proposer=proposer_of(run_and_folder(checkpoint)[1], loaded))

    def answers(images: Sequence[TruthImage], log: Log, settings: PredictSettings) -> Iterator[Row]:
        return asking.predict(
            loaded.model,
            loaded.processor,
            images,
            settings,
            vocab=loaded.vocab,
            quantisation=loaded.quantisation,
            max_pixels=loaded.max_pixels,
            form=loaded.format,
            log=log,
            proposer=loaded.proposer,
        )

    return Asked(
        header=lambda settings: asking.header(checkpoint, loaded, settings, question, system),
        quantisation=loaded.quantisation,
        coords=loaded.coords,
        numbers=loaded.format.numbers,
        answers=answers,
    )


def on_server(
    checkpoint: Path,
    settings: PredictSettings,
    url: str,
    model: str | None,
    concurrency: int,
    question: str | None,
    system: str | None,
) -> Asked:
    """A checkpoint or a run whose merged folder a server has. Raises InputError where none answers, or not this one."""
    from coordcore_detection.predict import served
    from coordcore_detection.predict.served_checkpoint import Checkpoint
    from coordcore_detection.predict.server import ServedModel, Server, served_models

    _require_askable(settings, "a server")
    said = Checkpoint.read(checkpoint)
    server = Server(url=served.address(url), model=model or "", key=served.key_of(os.environ))
    names = served_models(server)
    if model is None and len(names) != 1:
        silent = "it does not say which it has" + (
            "" if server.url.endswith("/v1") else "; addresses mostly end in /v1"
        )
        found = f"it has {', '.join(names)}" if names else silent
        raise InputError(f"--model: say which model of {server.url}; {found}")
    if model is not None and names and model not in names:
        raise InputError(f"--model: {server.url} has no {model!r}, but {', '.join(names)}")
    server = attrs.evolve(server, model=model or next(iter(names)))
    served_model = names.get(server.model, ServedModel())
    if served_model.root:
        said.require_as(served_model.root, server.url)
    most = settings.thinking + settings.max_new_tokens
    if served_model.room is not None and most >= served_model.room:
        typer.echo(
            f"note: {server.url} has room for {served_model.room} tokens of image, question and answer together, and "
            f"is asked for {most} in the answer (--max-new-tokens): long answers are cut, or refused",
            err=True,
        )

    def answers(images: Sequence[TruthImage], log: Log, settings: PredictSettings) -> Iterator[Row]:
        ask = settings.constrained and any(not image.is_text for image in images)
        kept = served.keep(server, said, settings) if ask else None
        return served.predict(server, said, images, settings, concurrency=concurrency, kept=kept, log=log)

    return Asked(
        header=lambda settings: served.header(said, {"server_model": server.model}, settings, question, system),
        quantisation=said.quantisation,
        coords=said.coords,
        numbers=said.format.numbers,
        answers=answers,
    )


def in_vllm(
    checkpoint: Path,
    settings: PredictSettings,
    options: Sequence[str],
    question: str | None,
    system: str | None,
) -> Asked:
    """A checkpoint or a run whose merged folder vLLM loads in this process. Raises InputError as `in_vllm.start`."""
    from coordcore_detection.predict import in_vllm, judging, served
    from coordcore_detection.predict.served_checkpoint import Checkpoint

    _require_askable(settings, "vLLM")
    chosen = in_vllm.options(options)
    said = Checkpoint.read(checkpoint)
    engine = in_vllm.start(checkpoint, chosen)
    about = {"engine": "vllm", "dtype": engine.dtype}

    def answers(images: Sequence[TruthImage], log: Log, settings: PredictSettings) -> Iterator[Row]:
        ask = settings.constrained and any(not image.is_text for image in images)
        kept = in_vllm.kept_to(said, settings) if ask else None
        return judging.judged(in_vllm.predict(engine, said, images, settings, kept=kept), engine, said, log)

    return Asked(
        header=lambda settings: served.header(said, about, settings, question, system, {"vllm": engine.version}),
        quantisation=said.quantisation,
        coords=said.coords,
        numbers=said.format.numbers,
        answers=answers,
    )


def _require_askable(settings: PredictSettings, who: str) -> None:
    """Raise InputError for what those do not say who answer with text and probabilities of its tokens."""
    from coordcore_detection.predict.served import SCORES

    if settings.score not in SCORES:
        raise InputError(
            f"score: {who} says the probabilities of the tokens that it wrote, which give {' and '.join(SCORES)}, got "
            f"{settings.score!r}"
        )
    if settings.constrained and settings.thinking:
        raise InputError(f"--constrained: {who} would keep the thought to the format too; leave out --thinking")
