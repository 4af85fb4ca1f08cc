"""`coordcore predict --engine vllm` with a vLLM of a few lines; the real one is asked in tests/serve."""

from __future__ import annotations

import base64
import io
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import pytest
from evaluation_support import write_grey_pictures
from PIL import Image
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore.coords import CoordVocab, ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_detection.predict import in_vllm, prediction_files
from coordcore_train.chat import Question
from coordcore_train.checkpoint.folder import write_checkpoint_info

COUNT = 5
CHOSEN = math.log(0.5)


@attrs.define
class Vllm:
    """What of vLLM is asked. made: the arguments of its LLM. asked: batches of messages, with what each is to be like.

    answer: from messages to a text. most: pictures wider than that are refused. fails: raised for a batch, once.
    """

    made: dict[str, Any] = attrs.field(factory=dict)
    asked: list[list[tuple[Any, Any]]] = attrs.field(factory=list)
    settings: list[Any] = attrs.field(factory=list)
    answer: Callable[[int], str] = lambda width: said(0, 0, width, 999)
    most: int = 1000
    fails: BaseException | None = None


def said(*bins: int) -> str:
    return f'{{"objects": [{{"desc": "a", "bbox_2d": [{", ".join(ints_to_tokens(bins))}]}}]}}'


def width_of(messages: Sequence[Mapping[str, Any]]) -> int:
    (url,) = [part["image_url"]["url"] for part in messages[-1]["content"] if part["type"] == "image_url"]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).width


def output(text: str) -> Any:
    """vLLM's `RequestOutput`: each token with itself and another in its place."""
    pieces = [piece for part in text.split("<|") for piece in _pieces(part)]
    pieces = [f"<|{piece}" if piece.startswith("coord_") else piece for piece in pieces if piece]
    places = [
        {k: SimpleNamespace(logprob=CHOSEN, decoded_token=piece), -1: SimpleNamespace(logprob=-3.0, decoded_token="x")}
        for k, piece in enumerate(pieces)
    ]
    ended = SimpleNamespace(text=text, finish_reason="stop", token_ids=list(range(len(pieces))), logprobs=places)
    return SimpleNamespace(outputs=[ended])


def _pieces(part: str) -> list[str]:
    before, bar, after = part.partition("|>")
    return [f"{before}|>", after] if bar else [part]


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vllm:
    """A vLLM, a merged checkpoint as far as its files are read here, and pictures of the widths 40 to 44."""
    found = Vllm()

    class Llm:
        def __init__(self, **given: Any) -> None:
            if "nonsense" in given:
                raise TypeError("EngineArgs.__init__() got an unexpected keyword argument 'nonsense'")
            found.made = given

        def chat(self, messages: Any, sampling: Any, **settings: Any) -> list[Any]:
            found.settings.append(settings)
            if found.fails is not None:
                raise found.fails
            widths = [width_of(conversation) for conversation in messages]
            if max(widths) > found.most:
                raise ValueError("The decoder prompt is\nlonger than the maximum model length")
            found.asked.append(list(zip(messages, sampling, strict=True)))
            return [output(found.answer(width)) for width in widths]

    module, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    vars(module).update(LLM=Llm, SamplingParams=lambda **given: given, __version__="0.0")
    vars(params).update(StructuredOutputsParams=lambda **given: given)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    monkeypatch.chdir(tmp_path)
    merged = Path("merged")
    merged.mkdir()
    vocab = CoordVocab(ids=tuple(range(10, 1010)))
    asked = Question("Find.", "Be brief.")
    write_checkpoint_info(merged, quantisation=DEFAULT_QUANTISATION, vocab=vocab, question=asked)
    (merged / "config.json").write_text('{"dtype": "float32"}')
    (merged / "generation_config.json").write_text('{"repetition_penalty": 1.05}')
    write_grey_pictures(COUNT)
    return found


def predict(*more: object) -> Any:
    asked = ("predict", "merged", "val.jsonl", "--space", "pixel", "--output", "out.jsonl", "--engine", "vllm", *more)
    return CliRunner().invoke(app, [str(item) for item in asked])


def rows() -> list[Any]:
    return prediction_files.read(Path("out.jsonl"))[1]


@pytest.mark.parametrize("batch", [(), ("--batch-size", 2)])
def test_every_image_gets_its_row_in_order(fake: Vllm, batch: tuple[object, ...]) -> None:
    result = predict(*batch)
    assert result.exit_code == 0, result.output
    assert [(row.image, row.boxes[0].bins, row.boxes[0].scores) for row in rows()] == [
        (f"{k}.png", (0, 0, 40 + k, 999), {"geometric_mean": 0.5, "min": 0.5}) for k in range(COUNT)
    ]
    assert [len(asked) for asked in fake.asked] == ([2, 2, 1] if batch else [5])
    header = prediction_files.read(Path("out.jsonl"))[0]
    assert header.decoding == {
        "engine": "vllm", "dtype": "float32", "coordinates": "expectation", "window": 20, "max_new_tokens": 2048,
        "question": "Find.", "system": "Be brief.",
    }  # fmt: skip
    assert header.versions["vllm"] == "0.0"


def test_it_is_loaded_and_asked_as_a_server_is(fake: Vllm) -> None:
    options = ("max_model_len=2048", "gpu_memory_utilization=0.5", "attention_backend=TORCH_SDPA", "dtype=bfloat16")
    predict("--limit", 1, "--max-new-tokens", 77, *(item for text in options for item in ("--engine-option", text)))
    assert fake.made == {
        "model": str(Path.cwd() / "merged"), "generation_config": "vllm", "dtype": "bfloat16", "max_logprobs": 20,
        "limit_mm_per_prompt": {"image": 1}, "max_model_len": 2048, "gpu_memory_utilization": 0.5,
        "attention_backend": "TORCH_SDPA",
    }  # fmt: skip
    [[(messages, sampling)]] = fake.asked
    assert sampling == {"temperature": 0.0, "max_tokens": 77, "logprobs": 20, "repetition_penalty": 1.0}
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert messages[1]["content"][1] == {"type": "text", "text": "Find."}
    assert fake.settings == [{"use_tqdm": False, "chat_template_kwargs": None}]


def test_kept_to_the_format_it_gets_the_grammar(fake: Vllm) -> None:
    assert predict("--constrained", "--limit", 1).exit_code == 0
    [[(_, sampling)]] = fake.asked
    assert "Token(" in sampling["structured_outputs"]["grammar"]
    fake.answer = lambda _width: "no format"
    result = predict("--constrained", "--overwrite")
    assert result.exit_code == 1
    assert "vLLM: 0.png: is answered 'no format', which is not of the format" in result.stderr


def test_one_that_it_does_not_take_costs_the_others_nothing(fake: Vllm) -> None:
    fake.most = 42
    result = predict()
    assert result.exit_code == 0, result.output
    assert [len(row.boxes) for row in rows()] == [1, 1, 1, 0, 0]
    assert rows()[3].unread[0].reason == "vLLM refuses it: The decoder prompt is longer than the maximum model length"
    assert "3.png: vLLM refuses it: The decoder prompt is longer" in result.stderr
    assert "4.png: as 3.png" in result.stderr


def test_an_image_that_cannot_be_opened_is_told(fake: Vllm) -> None:
    Path("2.png").write_bytes(b"no picture")
    assert predict().exit_code == 0
    assert [len(row.boxes) for row in rows()] == [1, 1, 0, 1, 1]


def test_what_was_answered_before_it_ended_is_kept_and_continued(fake: Vllm) -> None:
    def answer(width: int) -> str:
        if width == 43:
            raise RuntimeError("Engine core proc died")
        return said(0, 0, width, 999)

    fake.answer = answer
    result = predict("--batch-size", 1)
    assert result.exit_code == 1
    assert "coordcore: vLLM: Engine core proc died; what was answered is kept: give the same" in result.stderr
    assert len(rows()) == 3
    fake.answer, fake.asked = (lambda width: said(0, 0, width, 999)), []
    assert predict().exit_code == 0
    assert ([row.image for row in rows()], len(fake.asked[0])) == ([f"{k}.png" for k in range(COUNT)], 2)


def test_another_model_is_told(fake: Vllm) -> None:
    fake.answer = lambda _width: "A picture of a cat."
    result = predict()
    assert result.exit_code == 1
    assert "none of the first 5 answers of merged holds a coord token" in result.stderr


def test_without_vllm_it_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    result = predict()
    assert result.exit_code == 2
    assert "--engine vllm: vLLM is not installed in this environment" in result.stderr
    assert "docs/how-to/serve.md" in result.stderr
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ordered",), "--ordered: means nothing with --engine vllm"),
        (("--procs", "2"), "--procs: means nothing with --engine vllm"),
        (("--device", "cpu"), "--device: means nothing with --engine vllm"),
        (("--geometry", "point"), "--geometry: is given to vLLM with --constrained"),
        (("--score", "near"), "score: vLLM says the probabilities of the tokens that it wrote"),
        (("--constrained", "--thinking", "9"), "--constrained: vLLM would keep the thought to the format too"),
        (("--server", "http://a/v1"), "--engine: means nothing with --server"),
        (("--model", "x"), "--model: is given with --server"),
        (("--engine-option", "max_model_len"), "--engine-option 'max_model_len': must be KEY=VALUE"),
        (("--engine-option", "=3"), "--engine-option '=3': must be KEY=VALUE"),
        (("--engine-option", "model=x"), "--engine-option 'model=x': model is set by coordcore"),
        (("--engine-option", "a=1", "--engine-option", "a=2"), "--engine-option 'a=2': a is given twice"),
        (("--engine-option", "nonsense=1"), "--engine vllm: vLLM does not load "),
    ],
)
def test_options_that_it_cannot_follow_are_refused(fake: Vllm, options: tuple[str, ...], message: str) -> None:
    result = predict(*options)
    assert (result.exit_code, fake.asked) == (2, [])
    assert message in result.stderr


def test_its_options_need_it() -> None:
    result = CliRunner().invoke(app, ["predict", "merged", "val.jsonl", "--output", "o", "--engine-option", "a=1"])
    assert result.exit_code == 2
    assert "--engine-option: is given with --engine vllm" in result.stderr


def test_python_in_the_folder_is_not_run_unasked(fake: Vllm) -> None:
    Path("merged/config.json").write_text('{"auto_map": {"AutoModel": "code.Model"}}')
    result = predict()
    assert (result.exit_code, fake.made) == (2, {})
    assert "auto_map.AutoModel" in result.stderr
    assert predict("--engine-option", "trust_remote_code=true").exit_code == 0
    assert fake.made["trust_remote_code"] is True


def test_a_value_is_json_or_a_text() -> None:
    given = ["a=1", "b=0.5", "c=true", 'd={"x": [1]}', "e=auto", "f=", "g=x=y"]
    assert in_vllm.options(given) == {
        "a": 1, "b": 0.5, "c": True, "d": {"x": [1]}, "e": "auto", "f": "", "g": "x=y",
    }  # fmt: skip
