"""A model behind a server asked about images: a row for each, in their order, many at once. Torch-free."""

from __future__ import annotations

import base64
import io
import queue
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from importlib.metadata import version
from threading import Thread
from typing import Any, TypeVar

import attrs

from coordcore.coords import DEFAULT_COORDS
from coordcore.errors import InputError, RunError
from coordcore.records.answers import COORDJSON
from coordcore_detection.decode.pattern import answer_grammar, answer_pattern
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import structured
from coordcore_detection.predict.boxes import not_shown, with_question
from coordcore_detection.predict.judging import judged
from coordcore_detection.predict.loading import weights_digest
from coordcore_detection.predict.predictions import VERSION, Header, Row
from coordcore_detection.predict.replies import read_reply
from coordcore_detection.predict.served_checkpoint import Checkpoint
from coordcore_detection.predict.server import KEY, REFUSES, Answering, RefusedError, Reply, Server
from coordcore_detection.predict.settings import PredictSettings
from coordcore_detection.predict.structured import Kept, Rule
from coordcore_train.chat import chat
from coordcore_train.checkpoint.image_size import reduced

Item = TypeVar("Item")
Result = TypeVar("Result")

SCORES = ("geometric_mean", "min")
"""The scores that the probabilities of an answer's own tokens give; the others want those of all bins."""

TOP = 20
"""Tokens of which a server says the probability, in each place: as many as OpenAI's protocol allows."""

_ASKED = "/chat/completions"
_PLAIN = re.compile(r"[!-~]*")


def address(url: str) -> str:
    """The address of a server as it is used. Raises InputError for what is none."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if good and "@" in parts.netloc:
        raise InputError(
            f"--server: {parts.hostname} is named with a user or a password before it, which are not sent; write "
            f"http://HOST:PORT/v1, and put the key of the server into {KEY}"
        )
    if not good or parts.query or parts.fragment or not _PLAIN.fullmatch(parts.path):
        raise InputError(f"--server: {url!r} is no address of a server; write http://HOST:PORT/v1")
    whole = url.strip().rstrip("/")
    if parts.path.rstrip("/").endswith(_ASKED):
        raise InputError(f"--server: {url!r} is where one question goes; write {whole.removesuffix(_ASKED)}")
    return whole


def key_of(environment: Mapping[str, str]) -> str | None:
    """The key of the server, None where there is none. Raises InputError for one that cannot be sent."""
    key = environment.get(KEY, "").strip()  # as a file with a line's end gives it
    if not all("!" <= letter <= "~" for letter in key):
        raise InputError(f"{KEY}: holds a blank, a line's end or a letter that no key has; set it anew")
    return key or None


def header(
    checkpoint: Checkpoint,
    asked: Mapping[str, str],
    settings: PredictSettings,
    question: str | None,
    system: str | None,
    versions: Mapping[str, str] | None = None,
) -> Header:
    """The contract of the answers of a server, wherever it runs. asked: what answers. versions: of it, where known."""
    said = settings.decoding()
    names = ["coordinates", "window", "max_new_tokens", "thinking"]
    names += ["constrained", "ordered", "geometry", "fields"] if settings.constrained else []
    decoding = {**asked, **{name: said[name] for name in names if name in said}}
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
        versions={name: version(name) for name in ("coordcore", "coordcore-detection")} | dict(versions or {}),
    )


def predict(
    server: Server,
    checkpoint: Checkpoint,
    images: Iterable[TruthImage],
    settings: PredictSettings,
    *,
    concurrency: int,
    kept: Kept | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """Ask about each image, `concurrency` at a time; the rows come in the order of the images.

    kept: what the server is asked to keep answers with places to. log: as `judged`.
    Raises as that, and RunError when a request stays without an answer, after the rows of those that were under way,
    and at an answer that the server was not to give.
    """
    rows = answered(images, lambda truth: _row(server, checkpoint, truth, settings, kept), concurrency)
    return judged(rows, server, checkpoint, log)


def answered(items: Iterable[Item], work: Callable[[Item], Result], workers: int) -> Iterator[Result]:
    """The results of `work` on each item, in their order, of so many threads at once.

    When one fails, those that are under way are waited for, their results are given, and then its error is raised. At
    KeyboardInterrupt the results that are there are given, and none is waited for. The threads end with the process,
    whatever they wait for.
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
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    except KeyboardInterrupt:
        done = [future for future in waiting if future.done() and not future.cancelled()]
        yield from (future.result() for future in done if future.exception() is None)
        raise
    except (InputError, RunError):
        under_way = [future for future in waiting if not future.cancel()]
        yield from (future.result() for future in under_way if future.exception() is None)
        raise
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(workers):
            todo.put(None)


def _first(waiting: deque[Future[Result]]) -> Result:
    """The result that is waited for first; it stays among the others until it is there, and is not lost meanwhile."""
    result = waiting[0].result()
    waiting.popleft()
    return result


def keep(server: Server, checkpoint: Checkpoint, settings: PredictSettings) -> Kept:
    """How the server keeps to the checkpoint's format. Raises InputError where it does not."""
    return structured.kept(server, rule_of(checkpoint, settings), _body(checkpoint, settings))


def rule_of(checkpoint: Checkpoint, settings: PredictSettings) -> Rule:
    """What answers of the checkpoint's format may be. Raises InputError for kinds that it does not say."""
    form = checkpoint.format
    kinds = [kind for kind in settings.geometry if kind in form.places]
    if not kinds:
        asked, can = ", ".join(settings.geometry), ", ".join(form.places)
        raise InputError(f"the model answers in the format {form.name}, which says {can}; {asked} is asked for")
    coords = attrs.evolve(checkpoint.coords, bins=checkpoint.quantisation.bins)
    return Rule(
        grammar=answer_grammar(form, coords, checkpoint.ids, kinds, settings.fields),
        pattern=answer_pattern(form, coords, kinds, settings.fields),
    )


def _body(checkpoint: Checkpoint, settings: PredictSettings) -> dict[str, Any]:
    """What every request says of how it is answered."""
    thinking = {"chat_template_kwargs": {"enable_thinking": bool(settings.thinking)}} if checkpoint.switches else {}
    return {**checkpoint.plain, **thinking}


def _row(
    server: Server, checkpoint: Checkpoint, truth: TruthImage, settings: PredictSettings, kept: Kept | None
) -> Row:
    try:
        body = body_of(checkpoint, truth, settings, kept)
    except InputError as error:
        return not_shown(truth, str(error))
    try:
        reply = server.ask(body)
    except RefusedError as error:
        return not_shown(truth, f"the server{REFUSES}{error}")
    return row_of(checkpoint, truth, reply, settings, kept, server)


def body_of(checkpoint: Checkpoint, truth: TruthImage, settings: PredictSettings, kept: Kept | None) -> dict[str, Any]:
    """The request that asks about an image. Raises InputError where that cannot be opened."""
    image = reduced(truth.open(), truth.least_pixels(checkpoint.max_pixels))
    more = {} if kept is None or truth.is_text else kept.asked
    return {**request(truth, image, settings), **_body(checkpoint, settings), **more}


def row_of(
    checkpoint: Checkpoint,
    truth: TruthImage,
    reply: Reply,
    settings: PredictSettings,
    kept: Kept | None,
    server: Answering,
) -> Row:
    """The row of an answer. Raises RunError for one that was not to be given."""
    if kept is not None and not truth.is_text:
        kept.require(truth.key, reply, checkpoint.coords, server)
    return with_question(read_reply(truth, reply, checkpoint, settings), truth)


def request(truth: TruthImage, image: Any, settings: PredictSettings) -> dict[str, Any]:
    """The body of a chat completion, without the model's name. image: a PIL image."""
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
    return {
        "messages": messages,
        "temperature": 0.0,
        "max_tokens": settings.thinking + settings.max_new_tokens,
        "logprobs": True,
        "top_logprobs": TOP,
    }
