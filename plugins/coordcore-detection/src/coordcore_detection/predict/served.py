"""A model behind a server asked about images: a row for each, in their order, many at once. Torch-free."""

from __future__ import annotations

import base64
import codecs
import io
import math
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import attrs
import numpy as np

from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.errors import InputError, RunError
from coordcore.quantisation import Quantisation
from coordcore.records.answers import COORDJSON, AnswerObject, Format, parse_answer
from coordcore.records.geometry import bounds
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict.boxes import corners, four, mark_duplicates, not_shown, shaped, short, with_question
from coordcore_detection.predict.loading import manifest_of, run_and_folder, weights_digest
from coordcore_detection.predict.numbers import row_of_text
from coordcore_detection.predict.prediction_files import NO_IMAGE
from coordcore_detection.predict.predictions import VERSION, Box, Header, Row
from coordcore_detection.predict.server import RefusedError, Reply, Server
from coordcore_detection.predict.settings import PredictSettings
from coordcore_train.chat import chat
from coordcore_train.checkpoint.folder import read_checkpoint_info
from coordcore_train.checkpoint.image_size import most_pixels, reduced

Item = TypeVar("Item")
Result = TypeVar("Result")

SCORES = ("geometric_mean", "min")
"""The scores that the probabilities of an answer's own tokens give; the others want those of all bins."""

TOP = 20
"""Tokens of which a server says the probability, in each place: as many as OpenAI's protocol allows."""

LOOKED_AT = 8
"""Answers by which is judged whether the server has this model."""


@attrs.frozen(kw_only=True)
class Checkpoint:
    """What the files of the checkpoint that is served say of it.

    max_pixels: to which an image is reduced before it is sent, None where nothing limits it. switches: whether its chat
    template can switch thinking.
    """

    path: Path
    quantisation: Quantisation
    coords: CoordFormat
    format: Format
    max_pixels: int | None
    switches: bool

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """path: a merged checkpoint folder, or a run that has one. Raises InputError."""
        run, folder = run_and_folder(path)
        info = read_checkpoint_info(folder)
        if info is None:
            raise InputError(
                f"{folder}: has no coordcore.json, which says how a model answers; a server has the merged folder of a "
                "run (`coordcore merge`): name that"
            )
        limits = [most_pixels(folder)] if run is None else [most_pixels(folder), _max_pixels(run)]
        known = [limit for limit in limits if limit is not None]
        templates = [folder / "chat_template.jinja", folder / "tokenizer_config.json", folder / "processor_config.json"]
        return cls(
            path=path,
            quantisation=info.quantisation,
            coords=info.vocab.format if info.vocab else DEFAULT_COORDS,
            format=info.format,
            max_pixels=min(known, default=None),
            switches=any(
                "enable_thinking" in template.read_text("utf-8") for template in templates if template.is_file()
            ),
        )


def address(url: str) -> str:
    """The address of a server as it is used. Raises InputError for what is none."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise InputError(f"--server: {url!r} is no address of a server; write http://HOST:PORT/v1")
    return url.strip().rstrip("/")


def _max_pixels(run: Path) -> int | None:
    limit: int | None = manifest_of(run).get("train", {}).get("max_pixels")
    return limit


def header(
    checkpoint: Checkpoint, server: Server, settings: PredictSettings, question: str | None, system: str | None
) -> Header:
    """The contract of the answers of a server, wherever it runs."""
    said = settings.decoding()
    names = ("coordinates", "window", "max_new_tokens", "thinking")
    decoding = {"server_model": server.model, **{name: said[name] for name in names if name in said}}
    decoding |= {} if question is None else {"question": question, "system": system}
    return Header(
        predictions=VERSION,
        checkpoint=str(checkpoint.path),
        weights=weights_digest(checkpoint.path),
        quantisation=checkpoint.quantisation.as_dict(),
        coords=None if checkpoint.coords == DEFAULT_COORDS else attrs.asdict(checkpoint.coords),
        answers=None if checkpoint.format is COORDJSON else checkpoint.format.as_dict(),
        decoding=decoding,
        score="none" if checkpoint.format.numbers else settings.score,
        calibration=settings.calibration.as_dict() if settings.calibration else None,
        versions={name: version(name) for name in ("coordcore", "coordcore-detection")},
    )


def predict(
    server: Server,
    checkpoint: Checkpoint,
    images: Iterable[TruthImage],
    settings: PredictSettings,
    *,
    concurrency: int,
    log: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """Ask about each image, `concurrency` at a time; the rows come in the order of the images.

    log: told of images that could not be shown; their rows hold no boxes and say why in `unread`, at "image".
    Raises RunError when a request stays without an answer, after the rows of those that were under way, when the server
    refuses the first images, and when its first answers are not of this checkpoint.
    """
    first: list[Row] = []
    for row in answered(images, lambda truth: _row(server, checkpoint, truth, settings), concurrency):
        if log is not None and row.unread and row.unread[0].at == NO_IMAGE:
            log(f"{row.image}: {row.unread[0].reason}")
        yield row
        if len(first) < LOOKED_AT:
            first.append(row)
            if len(first) == LOOKED_AT:
                require_likely(first, server, checkpoint)
    if len(first) < LOOKED_AT:
        require_likely(first, server, checkpoint)


def require_likely(rows: Sequence[Row], server: Server, checkpoint: Checkpoint) -> None:
    """Raise RunError when the server took none of the requests, or none of the answers can be of the checkpoint."""
    reasons = [row.unread[0].reason for row in rows if row.unread and row.unread[0].at == NO_IMAGE]
    if rows and len(reasons) == len(rows):
        raise RunError(f"{server.url}: none of the first {len(rows)} images could be shown to the model: {reasons[0]}")
    texts = [row.text for row in rows if not row.unread or row.unread[0].at != NO_IMAGE]
    written = checkpoint.coords.bin_of
    strange = [row for row in rows if row.unread and not row.boxes and not any(token in row.text for token in written)]
    if texts and len(strange) == len(rows):
        said = "a box" if checkpoint.format.numbers else f"a coord token ({checkpoint.coords})"
        raise RunError(
            f"{server.url}: none of the first {len(rows)} answers of {server.model} holds {said}, "
            f"and none is of the format {checkpoint.format.name}, as of {texts[0][:80]!r}: "
            f"does it serve {checkpoint.path}?"
        )


def answered(items: Iterable[Item], work: Callable[[Item], Result], workers: int) -> Iterator[Result]:
    """The results of `work` on each item, in their order, of so many threads at once.

    When one fails, those that are under way are waited for, their results are given, and then its error is raised. The
    threads end with the process, whatever they wait for.
    """
    todo: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
    waiting: deque[Future[Result]] = deque()

    def run() -> None:
        while (job := todo.get()) is not None:
            item, future = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(item))
                except BaseException as error:  # whatever it is: it is raised where the result is taken
                    future.set_exception(error)

    for _ in range(workers):
        Thread(target=run, daemon=True).start()
    try:
        for item in items:
            waiting.append(Future())
            todo.put((item, waiting[-1]))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except (InputError, RunError):
        under_way = [future for future in waiting if not future.cancel()]
        yield from (future.result() for future in under_way if future.exception() is None)
        raise
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(workers):
            todo.put(None)


def _row(server: Server, checkpoint: Checkpoint, truth: TruthImage, settings: PredictSettings) -> Row:
    try:
        image = reduced(truth.open(), truth.least_pixels(checkpoint.max_pixels))
    except InputError as error:
        return not_shown(truth, str(error))
    try:
        reply = server.ask(request(truth, image, settings, switches=checkpoint.switches))
    except RefusedError as error:
        return not_shown(truth, f"the server refuses it: {error}")
    return with_question(read_reply(truth, reply, checkpoint, settings), truth)


def request(truth: TruthImage, image: Any, settings: PredictSettings, *, switches: bool) -> dict[str, Any]:
    """The body of a chat completion, without the model's name. image: a PIL image. switches: see `Checkpoint`."""
    png = io.BytesIO()
    image.save(png, "png")
    url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    messages = chat(truth.messages)
    for message in messages:
        if not isinstance(message["content"], str):
            message["content"] = [
                {"type": "image_url", "image_url": {"url": url}} if part["type"] == "image" else part
                for part in message["content"]
            ]
    body = {
        "messages": messages,
        "temperature": 0.0,
        "max_tokens": settings.thinking + settings.max_new_tokens,
        "logprobs": True,
        "top_logprobs": TOP,
    }
    return body | ({"chat_template_kwargs": {"enable_thinking": bool(settings.thinking)}} if switches else {})


# --- what is read from an answer --------------------------------------------------------------------------------------


def read_reply(truth: TruthImage, reply: Reply, checkpoint: Checkpoint, settings: PredictSettings) -> Row:
    """The row of an answer. Boxes have no score where the server does not say the probabilities of its tokens."""
    stopped = "length" if reply.is_cut else "end"
    if checkpoint.format.numbers or truth.is_text:
        form = None if truth.is_text else checkpoint.format
        return row_of_text(truth, reply.text, stopped, form=form, quantisation=checkpoint.quantisation)
    answer = parse_answer(reply.text, checkpoint.format, coords=checkpoint.coords)
    places = _Places(reply, checkpoint.coords)
    boxes = [_box(found, truth, places, checkpoint, settings) for found in answer.objects]
    mark_duplicates(boxes)
    return Row(
        image=truth.key,
        width=truth.width,
        height=truth.height,
        text=reply.text,
        boxes=boxes,
        unread=list(answer.unread),
        stopped=stopped,
    )


class _Places:
    """The tokens of an answer, and which characters of its text each wrote."""

    def __init__(self, reply: Reply, coords: CoordFormat) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(token.text) for token in reply.tokens]
        lengths = np.cumsum([0, *map(len, pieces)])
        begin = "".join(pieces).find(reply.text)  # the end token may be among them, and a thought
        self.tokens = reply.tokens if begin >= 0 else ()
        self.start, self.stop = lengths[:-1] - begin, np.maximum(lengths[1:], lengths[:-1] + 1) - begin
        self.coords = coords

    def within(self, span: tuple[int, int]) -> list[int]:
        """The tokens that wrote a part of the text."""
        if not self.tokens:
            return []
        return [int(place) for place in np.flatnonzero((self.start < span[1]) & (self.stop > span[0]))]

    def expected(self, place: int, written: int, window: int | None) -> float:
        """The expectation of a coordinate over those bins that are among the likely tokens in its place."""
        bin_of = self.coords.bin_of
        known = [(bin_of[text], math.exp(log)) for text, log in self.tokens[place].top.items() if text in bin_of]
        near = [(k, p) for k, p in known if window is None or abs(k - written) <= window]
        total = sum(p for _, p in near)
        return sum(k * p for k, p in near) / total if total > 0 else float(written)


def _box(
    found: AnswerObject, truth: TruthImage, places: _Places, checkpoint: Checkpoint, settings: PredictSettings
) -> Box:
    values, scores = [float(k) for k in found.bins], {}
    at = [place for span in found.coord_spans for place in places.within(span)]
    if len(at) == len(found.bins):  # each is a token of its own
        logs = [places.tokens[place].log_probability for place in (*places.within(found.desc_span), *at)]
        scores = {"geometric_mean": math.exp(sum(logs) / len(logs)), "min": math.exp(min(logs))}
        if settings.coordinates == "expectation":
            values = [places.expected(item, k, settings.window) for item, k in zip(at, found.bins, strict=True)]
    size = np.array([truth.width, truth.height])
    _, pixels = corners(np.array(values), found.kind)
    box = checkpoint.quantisation.decode(pixels.reshape(2, 2), size).ravel()
    score = scores.get(settings.score, math.nan)
    return Box(
        label=found.desc,
        box=four(box, 6),
        bins=bounds(found.bins),
        score=short(settings.calibration.apply(score) if settings.calibration and scores else score),
        scores={name: short(value) for name, value in scores.items()},
        **shaped(found.kind, checkpoint.quantisation.decode(np.array(values).reshape(-1, 2), size)),
    )
