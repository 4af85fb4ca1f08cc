"""vLLM in this process: asked what a server is asked, many images at once. Imports vllm where it starts it."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from coordcore.errors import InputError, RunError, shortened
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.predict import served
from coordcore_detection.predict.boxes import not_shown
from coordcore_detection.predict.loading import run_and_folder
from coordcore_detection.predict.predictions import Row
from coordcore_detection.predict.served_checkpoint import Checkpoint
from coordcore_detection.predict.server import REFUSES, Reply, Token
from coordcore_detection.predict.settings import PredictSettings
from coordcore_detection.predict.structured import WAYS, Kept
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.folder import read_json, text_config

AT_ONCE = 256
"""Images that vLLM gets at a time, where nobody says how many: it shares its memory out among them itself."""

_OURS = ("model", "tokenizer", "skip_tokenizer_init", "runner", "convert", "limit_mm_per_prompt", "generation_config")
_NOT_OF_SAMPLING = ("messages", "top_logprobs", "chat_template_kwargs")
_SHOWN = 300


def options(given: Iterable[str]) -> dict[str, Any]:
    """The settings of vLLM in `--engine-option KEY=VALUE`; a value is JSON, or else a text. Raises InputError."""
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--engine-option {text!r}: must be KEY=VALUE, as in max_model_len=4096")
        if key in _OURS:
            raise InputError(f"--engine-option {text!r}: {key} is set by coordcore; leave it out")
        if key in found:
            raise InputError(f"--engine-option {text!r}: {key} is given twice; keep one")
        try:
            found[key] = json.loads(value)
        except (ValueError, RecursionError):
            found[key] = value
    return found


@attrs.frozen(kw_only=True)
class Engine:
    """llm: vLLM's `LLM`. version: of vLLM. dtype: in which it computes. url, model: what messages call it."""

    llm: Any
    version: str
    dtype: str
    model: str
    url: str = "vLLM"

    def ask(self, bodies: Sequence[Mapping[str, Any]]) -> list[Reply]:
        """The answers to requests as `served.request` has them, of the same chat template's settings.

        Raises ValueError where vLLM does not take one of them, RunError where it has ended.
        """
        if not bodies:
            return []
        try:
            outputs = self.llm.chat(
                [body["messages"] for body in bodies],
                [_sampling(body) for body in bodies],
                use_tqdm=False,
                chat_template_kwargs=bodies[0].get("chat_template_kwargs"),
            )
        except RuntimeError as error:  # its engine, which is a process of its own, has failed
            why = shortened(" ".join(str(error).split()) or type(error).__name__, _SHOWN)
            raise RunError(
                f"vLLM: {why}; what was answered is kept: give the same command again, with less memory for vLLM "
                "(--engine-option gpu_memory_utilization=0.8) or fewer images at a time (--batch-size) if it was that"
            ) from error
        return [_reply(output.outputs[0]) for output in outputs]


def start(checkpoint: Path, settings: Mapping[str, Any]) -> Engine:
    """vLLM with the merged folder of a run, or a checkpoint folder. settings: of its own.

    Raises InputError where it is not installed, and for what it does not take.
    """
    _, folder = run_and_folder(checkpoint)
    require_no_code(folder, trusted=settings.get("trust_remote_code") is True)
    config = read_json(folder / "config.json")
    own = config.get("dtype") or config.get("torch_dtype") or text_config(config).get("dtype") or "auto"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it tells a hundred lines of how it starts
    try:
        import vllm
    except ImportError as error:
        raise InputError(
            f"--engine vllm: vLLM is not installed in this environment ({error}); install coordcore into one that has "
            "it (docs/how-to/serve.md), or ask a server: --server"
        ) from error
    asked = {"dtype": own, "max_logprobs": served.TOP, "limit_mm_per_prompt": {"image": 1}, **settings}
    try:
        llm = vllm.LLM(model=str(folder), generation_config="vllm", **asked)
    except (ValueError, TypeError, RuntimeError, OSError, NotImplementedError) as error:
        why = shortened(" ".join(str(error).split()) or type(error).__name__, _SHOWN)
        raise InputError(
            f"--engine vllm: vLLM does not load {folder}: {why}; its settings are given by --engine-option KEY=VALUE"
        ) from error
    return Engine(llm=llm, version=vllm.__version__, dtype=str(asked["dtype"]), model=folder.name)


def predict(
    engine: Engine,
    checkpoint: Checkpoint,
    images: Iterable[TruthImage],
    settings: PredictSettings,
    *,
    kept: Kept | None,
) -> Iterator[Row]:
    """The row of each image, in their order, `settings.batch_size` at a time. Raises as `served.predict`."""
    waiting = iter(images)
    while batch := list(itertools.islice(waiting, settings.batch_size)):
        yield from _rows(engine, checkpoint, batch, settings, kept)


def kept_to(checkpoint: Checkpoint, settings: PredictSettings) -> Kept:
    """How vLLM keeps to the checkpoint's format. Raises InputError for kinds that the format does not say."""
    rule = served.rule_of(checkpoint, settings)
    return Kept(pattern=rule.pattern, asked=WAYS["vLLM"](rule))


def _rows(
    engine: Engine,
    checkpoint: Checkpoint,
    batch: Sequence[TruthImage],
    settings: PredictSettings,
    kept: Kept | None,
) -> list[Row]:
    """The rows of a batch, in its order."""
    rows: dict[str, Row] = {}
    asked: dict[str, tuple[TruthImage, dict[str, Any]]] = {}
    for truth in batch:
        try:
            asked[truth.key] = (truth, served.body_of(checkpoint, truth, settings, kept))
        except InputError as error:
            rows[truth.key] = not_shown(truth, str(error))
    for (truth, _), reply in zip(asked.values(), _replies(engine, [body for _, body in asked.values()]), strict=True):
        if isinstance(reply, Reply):
            rows[truth.key] = served.row_of(checkpoint, truth, reply, settings, kept, engine)
        else:
            rows[truth.key] = not_shown(truth, f"vLLM{REFUSES}{reply}")
    return [rows[truth.key] for truth in batch]


def _replies(engine: Engine, bodies: Sequence[dict[str, Any]]) -> list[Reply | str]:
    """The answers; in the place of one that vLLM does not take, why. It gives up on all of them for it."""
    try:
        return list(engine.ask(bodies))
    except ValueError as error:
        if len(bodies) == 1:
            return [shortened(" ".join(str(error).split()), _SHOWN)]
        half = len(bodies) // 2
        return [*_replies(engine, bodies[:half]), *_replies(engine, bodies[half:])]


def _sampling(body: Mapping[str, Any]) -> Any:
    """vLLM's own words for what a request says of its answer."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    said = {key: value for key, value in body.items() if key not in _NOT_OF_SAMPLING}
    said["logprobs"] = body["top_logprobs"]
    if (rule := said.pop("structured_outputs", None)) is not None:
        said["structured_outputs"] = StructuredOutputsParams(**rule)
    return SamplingParams(**said)


def _reply(output: Any) -> Reply:
    """output: vLLM's `CompletionOutput`."""
    tokens = [
        Token(
            text=_bytes(places[written].decoded_token),
            log_probability=min(places[written].logprob, 0.0),
            top={found.decoded_token: min(found.logprob, 0.0) for found in places.values() if found.decoded_token},
        )
        for written, places in zip(output.token_ids, output.logprobs or (), strict=False)
    ]
    return Reply(text=output.text, is_cut=output.finish_reason == "length", tokens=tokens)


def _bytes(text: str | None) -> bytes:
    return (text or "").encode("utf-8", "surrogatepass")
