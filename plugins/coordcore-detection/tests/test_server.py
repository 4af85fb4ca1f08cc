"""`coordcore predict --server`: what a server is asked, what is read of its answers, and what goes wrong with it."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from evaluation_support import write_grey_pictures
from fake_server import Error, Fake, completion, image_in, serving, token
from PIL import Image
from typer.testing import CliRunner

from coordcore import InputError, RunError
from coordcore.cli import app
from coordcore.coords import DEFAULT_COORDS, PRESETS, CoordVocab, ints_to_tokens
from coordcore.quantisation import DEFAULT_QUANTISATION, quantisation
from coordcore.records.answers import COORDJSON, Format, Unread
from coordcore.records.answers.format import Coords, Label
from coordcore_detection.predict import judging, prediction_files, served
from coordcore_detection.predict import server as servers
from coordcore_detection.predict.predictions import Row
from coordcore_detection.predict.served_checkpoint import Checkpoint
from coordcore_train.chat import Question
from coordcore_train.checkpoint.folder import write_checkpoint_info

COUNT = 5


def said(*bins: int, label: str = "a") -> str:
    return f'{{"objects": [{{"desc": "{label}", "bbox_2d": [{", ".join(ints_to_tokens(bins))}]}}]}}'


def by_width(body: Mapping[str, Any]) -> Any:
    """A box that tells which picture was shown."""
    return completion(said(0, 0, image_in(body).width, 999))


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr(servers, "pause", waited.append)
    return waited


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merged checkpoint, as far as its files are read here, and pictures of the widths 40 to 44."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(servers.KEY, raising=False)
    merged = Path("merged")
    merged.mkdir()
    vocab = CoordVocab(ids=tuple(range(10, 1010)))
    write_checkpoint_info(
        merged, quantisation=DEFAULT_QUANTISATION, vocab=vocab, question=Question("Find.", "Be brief.")
    )
    (merged / "config.json").write_text("{}")
    write_grey_pictures(COUNT)
    return merged


def predict(fake: Fake | str, *more: object, output: str = "out.jsonl") -> Any:
    url = fake if isinstance(fake, str) else fake.url
    asked = ("predict", "merged", "val.jsonl", "--space", "pixel", "--server", url, "--output", output, *more)
    return CliRunner().invoke(app, [str(item) for item in asked])


def rows(output: str = "out.jsonl") -> list[Any]:
    return prediction_files.read(Path(output))[1]


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(by_width) as fake:
        yield fake


# --- what is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_every_image_gets_its_row_in_order(fake: Fake, concurrency: int) -> None:
    result = predict(fake, "--concurrency", concurrency)
    assert result.exit_code == 0, result.output
    assert [(row.image, row.boxes[0].bins) for row in rows()] == [
        (f"{k}.png", (0, 0, 40 + k, 999)) for k in range(COUNT)
    ]
    assert [row.boxes[0].box for row in rows()][2] == (0.0, 0.0, pytest.approx(42 * 42 / 999, abs=1e-6), 32.0)
    assert result.stdout == f"out.jsonl: {COUNT} images, {COUNT} boxes\n"


def test_the_question_and_the_limits_are_those_of_the_checkpoint(fake: Fake) -> None:
    predict(fake, "--concurrency", 1, "--limit", 1, "--max-new-tokens", 77)
    (body,) = fake.asked
    image = body["messages"][1]["content"].pop(0)
    assert image["type"] == "image_url"
    assert body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Find."}]},
        ],
        "temperature": 0.0,
        "max_tokens": 77,
        "logprobs": True,
        "top_logprobs": 20,
    }
    found = prediction_files.read(Path("out.jsonl"))[0]
    assert found.decoding == {
        "server_model": "tiny", "coordinates": "expectation", "window": 20, "max_new_tokens": 77,
        "question": "Find.", "system": "Be brief.",
    }  # fmt: skip
    assert (found.score, found.quantisation) == ("geometric_mean", DEFAULT_QUANTISATION.as_dict())


def test_pixels_arrive_as_they_are(fake: Fake) -> None:
    predict(fake, "--limit", 3, "--concurrency", 1)
    assert [image_in(body).convert("RGB").tobytes() for body in fake.asked] == [
        Image.open(f"{k}.png").tobytes() for k in range(3)
    ]


@pytest.mark.parametrize(("limit", "width"), [(10_000, 44), (704, 31)])
def test_larger_images_are_reduced_to_the_limit_of_training(fake: Fake, folder: Path, limit: int, width: int) -> None:
    size = {"shortest_edge": 16, "longest_edge": limit}
    settings = {"image_processor": {"patch_size": 16, "merge_size": 2, "size": size}}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    predict(fake, "--concurrency", 1)
    assert max(fake.sizes())[0] == width
    assert all(a * b <= max(limit, 44 * 32) for a, b in fake.sizes())


@pytest.mark.parametrize(("more", "thinks"), [((), False), (("--thinking", 30), True)])
def test_thinking_is_switched_where_the_template_can(
    fake: Fake, folder: Path, more: tuple[object, ...], thinks: bool
) -> None:
    (folder / "chat_template.jinja").write_text("{% if enable_thinking %}{% endif %}")
    predict(fake, "--limit", 1, "--max-new-tokens", 70, *more)
    (body,) = fake.asked
    assert (body["chat_template_kwargs"], body["max_tokens"]) == ({"enable_thinking": thinks}, 100 if thinks else 70)


def test_the_key_goes_with_every_request(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(servers.KEY, "secret")
    result = predict(fake)
    assert fake.keys == {"Bearer secret"}
    assert "secret" not in result.output + Path("out.jsonl").read_text()


def test_so_many_requests_at_a_time_and_no_more() -> None:
    together, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    def slow(body: Mapping[str, Any]) -> Any:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
            if together == 3:
                full.set()
        full.wait(10)  # until three are there
        with lock:
            together -= 1
        return by_width(body)

    with serving(slow) as fake:
        assert predict(fake, "--concurrency", 3).exit_code == 0
    assert most == 3


# --- what is read ---------------------------------------------------------------------------------------------------


def spelled(text: str) -> list[str]:
    """An answer in pieces, coord tokens each one of its own."""
    import re

    return [piece for piece in re.split(r"(<\|coord_\d+\|>|a)", text) if piece]


def test_scores_and_expectations_come_from_the_probabilities_of_tokens() -> None:
    text = said(100, 200, 300, 400)
    tokens = []
    for piece in spelled(text):
        if piece == "<|coord_100|>":
            top = {"<|coord_100|>": math.log(0.5), "<|coord_104|>": math.log(0.25), "<|coord_700|>": math.log(0.2)}
            tokens.append(token(piece, math.log(0.5), **top))
        else:
            tokens.append(token(piece, math.log(0.9) if "coord" in piece else math.log(0.8) if piece == "a" else 0.0))
    with serving(lambda _: completion(text, tokens=[*tokens, token("<|im_end|>", 0.0)])) as fake:
        predict(fake, "--limit", 1)
    (box,) = rows()[0].boxes
    assert box.bins == (100, 200, 300, 400)
    assert box.box[0] == pytest.approx((100 * 0.5 + 104 * 0.25) / 0.75 * 40 / 999, abs=1e-5)  # 700 is far away
    assert box.box[1:] == pytest.approx((200 * 32 / 999, 300 * 40 / 999, 400 * 32 / 999), abs=1e-5)
    assert box.scores == pytest.approx({"geometric_mean": (0.8 * 0.5 * 0.9**3) ** 0.2, "min": 0.5}, rel=1e-5)
    assert box.score == box.scores["geometric_mean"]


@pytest.mark.parametrize(
    "tokens",
    [
        None,
        [token("something else", -1.0)],
        [token(said(1, 2, 3, 4), 800.0)],  # its exponential is no float
        [token(said(1, 2, 3, 4), math.nan)],
        [{"token": "a", "logprob": None}],
        "none",
        [None],
        {"a": 1},
    ],
)
def test_boxes_without_probabilities_have_no_score(tokens: Any) -> None:
    with serving(lambda _: completion(said(1, 2, 3, 4), tokens=tokens)) as fake:
        predict(fake, "--limit", 1)
    (box,) = rows()[0].boxes
    assert (box.bins, box.scores, math.isnan(box.score)) == ((1, 2, 3, 4), {}, True)


def test_the_convention_and_the_order_are_those_of_the_checkpoint(folder: Path) -> None:
    coords, spec = PRESETS["paligemma"]
    vocab = CoordVocab(ids=tuple(range(1024)), format=coords)
    write_checkpoint_info(folder, quantisation=quantisation(spec), vocab=vocab, question=Question("Find."))
    text = '{"objects": [{"desc": "a", "bbox_2d": [<loc0512>, <loc0256>, <loc1023>, <loc0768>]}]}'
    with serving(lambda _: completion(text)) as fake:
        assert predict(fake, "--limit", 1).exit_code == 0
    (box,) = rows()[0].boxes
    assert box.bins == (256, 512, 768, 1023)


def test_answers_that_were_cut_are_counted() -> None:
    cut = completion(said(1, 2, 3, 4)[:-2], reason="length")
    with serving(lambda body: cut if image_in(body).width == 42 else by_width(body)) as fake:
        result = predict(fake)
    assert [row.stopped for row in rows()] == ["end", "end", "length", "end", "end"]
    assert "1 answers cut for length" in result.stdout


@pytest.mark.parametrize(("reason", "expected"), [("stop", ["a", "b"]), ("length", ["a"])])
def test_a_polygon_that_a_limit_cut_is_unread(folder: Path, reason: str, expected: list[str]) -> None:
    places = {kind: (Coords(kind, between=""),) for kind in ("bbox_2d", "poly")}
    lines = Format(name="lines", label=(Label(without="<"),), places=places, between="\n", nothing="none")
    vocab, question = CoordVocab(ids=range(1000)), Question("Find.")
    write_checkpoint_info(folder, quantisation=DEFAULT_QUANTISATION, vocab=vocab, form=lines, question=question)
    text = "a" + "".join(ints_to_tokens((1, 2, 3, 4))) + "\nb" + "".join(ints_to_tokens((1, 2, 30, 4, 30, 40)))
    with serving(lambda _: completion(text, reason=reason)) as fake:
        assert predict(fake, "--limit", 1).exit_code == 0
    assert [box.label for box in rows()[0].boxes] == expected


def test_a_thought_before_the_answer_is_none_of_it() -> None:
    text = f"<think>{said(9, 9, 9, 9)}</think>\n\n{said(1, 2, 3, 4)}"
    parts = [{"type": "reasoning", "reasoning": said(8, 8, 8, 8)}, {"type": "text", "text": text}]
    with serving(lambda _: completion(parts)) as fake:
        predict(fake, "--limit", 1)
    assert [box.bins for box in rows()[0].boxes] == [(1, 2, 3, 4)]


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Error(code=429, headers={"Retry-After": "7"}), [7.0, 7.0]),
        (Error(code=503), [1.0, 2.0]),
        (Error(code=500, said=b"<html>"), [1.0, 2.0]),
        (Error(code=0), [1.0, 2.0]),
        (Error(code=429, headers={"Retry-After": "9999"}), [60.0, 60.0]),
        (Error(code=429, headers={"Retry-After": "0"}), [1.0, 2.0]),
        ({"error": {"message": "overloaded", "code": 529}}, [1.0, 2.0]),
        (completion(said(1, 2, 3, 4)[:-30], reason="abort"), [1.0, 2.0]),
        (completion("", reason="error"), [1.0, 2.0]),
    ],
)
def test_a_request_that_fails_is_made_again(error: Any, expected: list[float], waits: list[float]) -> None:
    seen: Counter[int] = Counter()

    def fails_twice(body: Mapping[str, Any]) -> Any:
        width = image_in(body).width
        seen[width] += 1
        return error if width == 42 and seen[width] < 3 else by_width(body)

    with serving(fails_twice) as fake:
        result = predict(fake)
    assert (result.exit_code, waits) == (0, expected), result.output
    assert [row.image for row in rows()] == [f"{k}.png" for k in range(COUNT)]


def test_a_server_that_never_answers_is_not_asked_for_ever(waits: list[float]) -> None:
    ended = threading.Event()

    def hangs(_body: Mapping[str, Any]) -> Any:
        ended.wait(20)
        return Error(code=0)

    with serving(hangs) as fake:
        server = servers.Server(url=fake.url, model="tiny", timeout=0.05)
        with pytest.raises(RunError, match="no answer in 2 tries, at last: it took too long"):
            server.ask({"messages": []})
        ended.set()
    assert waits == [1.0]


def test_an_answer_that_drips_for_ever_takes_too_long(waits: list[float]) -> None:
    """Each piece comes in time; the whole does not."""

    def drips(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(200):
                connection.sendall(b"\n")
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = servers.Server(url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1", model="tiny", timeout=0.2)
        for _ in range(2):
            threading.Thread(target=lambda: drips(listening.accept()[0]), daemon=True).start()
        with pytest.raises(RunError, match="no answer in 2 tries, at last: it took too long"):
            server.ask({"messages": []})
    assert waits == [1.0]


def test_a_body_that_ends_early_is_no_answer(waits: list[float]) -> None:
    def cut(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{"data": []}')
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = servers.Server(url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1", model="tiny")
        threading.Thread(target=lambda: cut(listening.accept()[0]), daemon=True).start()
        with pytest.raises(RunError, match="no answer in 1 tries, at last: it ended in the middle of an answer"):
            server.call("/models", attempts=1)


def test_a_filtered_answer_is_told_and_the_others_are_kept() -> None:
    filtered = completion(said(1, 2, 3, 4)[:-30], reason="content_filter")
    with serving(lambda body: filtered if image_in(body).width == 42 else by_width(body)) as fake:
        result = predict(fake)
    assert "2.png: the server refuses it: its answer is filtered (finish_reason 'content_filter')" in result.stderr
    assert [len(row.boxes) for row in rows()] == [1, 1, 0, 1, 1]


def test_answers_of_another_model_are_not_kept() -> None:
    with serving(lambda _: completion("A cat, I think.")) as fake:
        assert predict(fake).exit_code == 1
        fake.answer = by_width
        again = predict(fake)
    assert (again.exit_code, again.stdout) == (0, f"out.jsonl: {COUNT} images, {COUNT} boxes\n")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirection_is_followed(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(servers.KEY, "secret")
    with serving(by_width) as elsewhere:
        there = f"{elsewhere.url}/chat/completions"
        with serving(lambda _: Error(code=code, headers={"Location": there})) as fake:
            result = predict(fake)
        assert elsewhere.keys == set()
    assert result.exit_code == 2
    assert f"/chat/completions: {code}, which leads to {there} and is not followed" in result.stderr


@pytest.mark.parametrize("key", ["sk-1\r\n", " sk-1\n"])
def test_a_key_is_sent_without_the_end_of_its_line(fake: Fake, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(servers.KEY, key)
    assert predict(fake).exit_code == 0
    assert fake.keys == {"Bearer sk-1"}


@pytest.mark.parametrize("key", ["sk-1\nX-Other: 2", "sk-ключ", "sk 1"])
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(fake: Fake, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(servers.KEY, key)
    result = predict(fake)
    assert (result.exit_code, fake.asked) == (2, [])
    assert "OPENAI_API_KEY: holds a blank, a line's end or a letter that no key has" in result.stderr
    assert "sk" not in result.output


def test_a_proxy_that_does_not_answer_is_named(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://bob:secret@127.0.0.1:9")
    result = predict(fake)
    assert (result.exit_code, fake.asked) == (2, [])
    said = "(connection refused, asked through the proxy 127.0.0.1:9 of http_proxy: 127.0.0.1 in no_proxy asks it"
    assert said in result.stderr
    assert "secret" not in result.output


def test_an_address_that_is_nearly_one(fake: Fake) -> None:
    said = predict(f"{fake.url}/chat/completions/")
    assert f"is where one question goes; write {fake.url}\n" in said.stderr
    said = predict(fake.url.replace("//", "//bob:secret@"))
    assert "put the key of the server into OPENAI_API_KEY" in said.stderr
    assert "secret" not in said.output
    said = predict(fake.url.removesuffix("/v1"))
    assert "it does not say which it has; addresses mostly end in /v1" in said.stderr


def test_a_server_that_ends_loses_nothing_and_is_continued(waits: list[float]) -> None:
    with serving(lambda body: Error(code=502) if image_in(body).width == 42 else by_width(body)) as fake:
        result = predict(fake, "--concurrency", 16)
        assert result.exit_code == 1
        assert "no answer in 7 tries, at last: 502 no; what was answered is kept" in result.stderr
        assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
        assert {row.image for row in rows()} == {"0.png", "1.png", "3.png", "4.png"}
        fake.asked.clear()
        fake.answer = by_width
        again = predict(fake)
        assert "holds 4 of 5 images already" in again.stderr
        assert fake.sizes() == [(42, 32)]
    assert [row.image for row in rows()] == [f"{k}.png" for k in range(COUNT)]


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_what_another_command_writes_is_left_to_it(more: tuple[str, ...]) -> None:
    """Two that begin one file at once wrote two headers into it; one that mends it took it from the other."""
    command = [sys.executable, "-P", "-m", "coordcore", "predict", "merged", "val.jsonl", "--space", "pixel"]
    command += ["--output", "out.jsonl"]
    second: list[Any] = []

    def answer(body: Mapping[str, Any]) -> Any:
        if not second:
            second.append(None)
            second[0] = subprocess.run(
                [*command, "--server", fake.url, *more],
                capture_output=True,
                text=True,
                env={**os.environ, "COLUMNS": "200"},
            )
        return by_width(body)

    with serving(answer) as fake:
        result = predict(fake, "--concurrency", 1)
    assert second[0].returncode == 2
    assert "out.jsonl: another process writes it; wait for that one, or end it" in second[0].stderr
    assert (result.exit_code, len(rows())) == (0, COUNT)
    assert [path.name for path in Path().glob("*out.jsonl*")] == ["out.jsonl"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("gone")], ids=repr)
def test_what_was_answered_before_the_first_are_judged_is_kept(error: BaseException) -> None:
    def given() -> Iterator[Row]:
        for name in "abc":
            yield Row(image=name, width=1, height=1, text="", boxes=[])
        raise error

    found: list[str] = []
    anything: Any = SimpleNamespace(coords=DEFAULT_COORDS, format=COORDJSON)
    with pytest.raises(type(error)):
        found.extend(row.image for row in judging.judged(given(), anything, anything))
    assert found == ["a", "b", "c"]


def test_who_ends_it_behind_a_slow_request_keeps_what_was_answered() -> None:
    gone, answered, main = threading.Event(), list[int](), threading.get_ident()

    def answer(body: Mapping[str, Any]) -> Any:
        if image_in(body).width == 40:
            gone.wait(30)
        answered.append(image_in(body).width)
        return by_width(body)

    def end() -> None:
        while len(answered) < COUNT - 1:
            time.sleep(0.01)
        time.sleep(0.5)  # until the last of them is read
        signal.pthread_kill(main, signal.SIGINT)  # what waits for a lock in C sees no other way

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
    try:
        with serving(answer) as fake:
            threading.Thread(target=end, daemon=True).start()
            start = time.monotonic()
            result = predict(fake, "--concurrency", 2)
            assert time.monotonic() - start < 20
            gone.set()
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code != 0
    assert {row.image for row in rows()} == {f"{k}.png" for k in range(1, COUNT)}


def test_what_ends_a_command_is_said_and_no_guess_at_its_first_answers() -> None:
    def given() -> Iterator[Row]:
        unread = [Unread(at=prediction_files.NO_IMAGE, reason="too large")]
        yield Row(image="a", width=1, height=1, text="", boxes=[], unread=unread)
        raise RunError("no answer in 7 tries")

    anything: Any = SimpleNamespace(coords=DEFAULT_COORDS, url="http://a/v1")
    with pytest.raises(RunError, match=r"^no answer in 7 tries$"):
        list(judging.judged(given(), anything, anything))


def test_what_was_there_comes_back_when_nothing_was_answered() -> None:
    with serving(by_width) as fake:
        predict(fake)
        before = Path("out.jsonl").read_bytes()
        fake.answer = lambda _: b"<html>"
        assert predict(fake, "--overwrite").exit_code == 2
        assert predict(fake, output="new.jsonl").exit_code == 2
    assert Path("out.jsonl").read_bytes() == before
    assert not Path("new.jsonl").exists()


def test_a_reason_is_said_once_with_how_many_images_have_it() -> None:
    def too_long(body: Mapping[str, Any]) -> Any:
        return Error(code=400 if image_in(body).width < 43 else 413, said={"message": "the prompt is too long"})

    with serving(too_long) as fake:
        result = predict(fake)
    assert result.exit_code == 1
    said = "the server refuses it: 400 the prompt is too long"
    assert f"5 images could be shown to the model: 3 x {said}; 2 x {said.replace('400', '413')}. Where" in result.stderr
    assert result.stderr.count(said) == 1
    with serving(lambda body: too_long(body) if image_in(body).width < 43 else by_width(body)) as fake:
        result = predict(fake)
    assert f"0.png: {said}\n1.png: as 0.png\n2.png: as 0.png\n" in result.stderr


@pytest.mark.parametrize("code", [400, 413, 422])
def test_an_image_that_the_server_refuses_is_told_and_the_others_are_asked(code: int) -> None:
    refusal = Error(code=code, said={"error": {"message": "image\n too large", "code": code}})
    with serving(lambda body: refusal if image_in(body).width == 42 else by_width(body)) as fake:
        result = predict(fake)
    assert result.exit_code == 0
    assert f"2.png: the server refuses it: {code} image too large" in result.stderr
    assert [len(row.boxes) for row in rows()] == [1, 1, 0, 1, 1]
    with serving(by_width) as fake:  # and it is tried again
        predict(fake)
        assert fake.sizes() == [(42, 32)]


def refused(code: int, said: Any) -> Any:
    return lambda _: Error(code=code, said=said)


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (
            refused(400, {"message": "no images here"}), 1,
            "none of the first 5 images could be shown to the model: the server refuses it: 400 no images here. Where "
            "they are too large, lower the limit of pixels (train.max_pixels of the run, the image size of the merged "
            "folder's processor), serve with more room (vLLM's --max-model-len), or ask for fewer --max-new-tokens\n",
        ),
        (refused(401, {"detail": "who?"}), 2, "/v1: 401 who?; put the key of the server into OPENAI_API_KEY"),
        (refused(404, {"error": "no such model"}), 2, "404 no such model; it may serve another model than 'tiny'"),
        (refused(418, "tea"), 2, "418 tea; is this the address of an OpenAI-compatible server?"),
        (lambda _: b"<html>", 2, "answers no JSON, but b'<html>'"),
        (lambda _: {"result": 1}, 2, 'answers no chat completion, but {"result": 1}'),
        (lambda _: {"choices": []}, 2, "answers no chat completion"),
        (lambda _: [1], 2, "answers no chat completion, but [1]"),
        (lambda _: completion(7), 2, "answers no chat completion"),
        (
            lambda _: completion("A cat, I think."), 1,
            "holds a coord token (<|coord_0|> to <|coord_999|>), and none is of the format coordjson, as of "
            "'A cat, I think.': does it serve merged?",
        ),
        (lambda _: completion('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]'), 1, "holds a coord token"),
        (lambda _: completion(None), 1, "holds a coord token"),
    ],
)  # fmt: skip
def test_an_answer_that_no_other_will_be_better_than(answer: Any, status: int, message: str) -> None:
    with serving(answer) as fake:
        result = predict(fake)
    assert (result.exit_code, result.exception.__class__) in ((status, SystemExit), (status, type(None)))
    assert message in result.stderr
    assert "Traceback" not in result.output


GROUPED = Format(
    name="grouped_lines",
    label=(Label(without="<|"),),
    places={"bbox_2d": (Coords("bbox_2d", between=""),)},
    between="\n",
    again="",
    nothing="none",
)


def as_grouped(folder: Path) -> None:
    vocab = CoordVocab(ids=tuple(range(10, 1010)))
    question = Question("Find.", "Be brief.")
    write_checkpoint_info(folder, quantisation=DEFAULT_QUANTISATION, vocab=vocab, form=GROUPED, question=question)


@pytest.mark.parametrize("empty", [0, 3])
def test_a_model_of_another_format_is_told_with_both(folder: Path, empty: int) -> None:
    as_grouped(folder)

    def answer(body: Mapping[str, Any]) -> Any:
        return completion('{"objects": []}') if image_in(body).width < 40 + empty else by_width(body)

    with serving(answer) as fake:
        result = predict(fake)
    assert (result.exit_code, Path("out.jsonl").exists()) == (1, False)
    assert (
        "none of the first 5 answers of tiny is of the format grouped_lines, in which merged answers" in result.stderr
    )
    assert 'they are of the format coordjson, as \'{"objects": [{"desc": "a"' in result.stderr
    assert "name the folder of that one, or serve merged\n" in result.stderr


def test_coord_tokens_are_no_plain_numbers(folder: Path) -> None:
    numbers = attrs.evolve(COORDJSON, name="plain", numbers=True)
    write_checkpoint_info(
        folder, quantisation=quantisation("qwen_1000"), vocab=None, form=numbers, question=Question("Find.", None)
    )
    with serving(by_width) as fake:
        result = predict(fake)
    assert result.exit_code == 1
    assert "is of the format plain, in which merged answers; they are of the format coordjson" in result.stderr


@pytest.mark.parametrize(
    "rubbish",
    [
        "a a a<|coord_1|><|coord_2|>",
        '{"objects": [{"desc": "a", "bbox_2d": [<|coord_1|>, <|coord_2|>]}, {"desc"',
        '{"objects": [{"desc": "a", "bbox_2d"<|coord_1|><|coord_2|><|coord_3|><|coord_4|>',
        "<|coord_1|>" * 9,
        "a<|coord_9|><|coord_2|><|coord_3|><|coord_4|>",
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_what_a_half_trained_model_writes_is_of_no_other_format(folder: Path, rubbish: str, grouped: bool) -> None:
    if grouped:
        as_grouped(folder)
    with serving(lambda _: completion(rubbish)) as fake:
        result = predict(fake)
    assert (result.exit_code, len(rows())) == (0, COUNT), result.stderr


def test_some_answers_of_another_format_are_no_other_model(folder: Path) -> None:
    as_grouped(folder)
    good = completion("a" + "".join(ints_to_tokens([1, 2, 3, 4])))
    with serving(lambda body: good if image_in(body).width == 40 else by_width(body)) as fake:
        assert predict(fake).exit_code == 0
    with serving(lambda body: by_width(body) if image_in(body).width < 42 else completion("none")) as fake:
        assert predict(fake, output="other.jsonl").exit_code == 0
    cut = completion(said(1, 2, 3, 4), reason="length")
    with serving(lambda _: cut) as fake:
        assert predict(fake, output="cut.jsonl").exit_code == 0


def other_folder(name: str, spec: str = "nearest_999") -> Path:
    Path(name).mkdir()
    vocab = CoordVocab(ids=tuple(range(10, 1010)))
    write_checkpoint_info(Path(name), quantisation=quantisation(spec), vocab=vocab, question=Question("Find.", None))
    return Path(name)


def test_a_server_that_says_another_folder_is_told_before_it_is_asked(folder: Path) -> None:
    other = other_folder("other", "qwen_1000")
    listed = {"data": [{"id": "tiny", "root": str(other.absolute())}]}
    with serving(by_width, listed) as fake:
        result = predict(fake)
        assert (result.exit_code, fake.asked) == (2, [])
        assert "merged: answers in bins of nearest_999 (version " in result.stderr
        assert f" serves {other.absolute()}, which answers in bins of qwen_1000 (version " in result.stderr
        assert "): name that folder, or serve this one\n" in result.stderr
        as_grouped(other)
        fake.models = {"data": [{"id": "tiny", "root": "other"}, {"id": "b", "root": "gone"}]}
        result = predict(fake, "--model", "tiny")
        assert (result.exit_code, fake.asked) == (2, [])
        assert "serves other, which answers in the format grouped_lines: name" in result.stderr
        assert predict(fake, "--model", "b").exit_code == 0


@pytest.mark.parametrize(
    ("room", "thinking", "told"),
    [
        *((40, 0, True), (41, 0, False), (140, 100, True), (141, 100, False)),
        *((None, 0, False), ("40", 0, False), (0, 0, False)),
    ],
)
def test_a_server_without_room_for_the_answer_is_told(room: Any, thinking: int, told: bool) -> None:
    """vLLM 0.32 cuts such an answer; other servers refuse the request, which is told of each image."""
    with serving(by_width, {"data": [{"id": "tiny", "max_model_len": room}]}) as fake:
        result = predict(fake, "--max-new-tokens", "40", "--thinking", str(thinking))
    assert result.exit_code == 0
    note = f"note: {fake.url} has room for {room} tokens of image, question and answer together, and is asked for "
    assert (f"{note}{40 + thinking} in the answer" in result.stderr) == told


@pytest.mark.parametrize("root", ["merged", "same", "gone", "empty", "damaged", "", None, 7, "a\0b", "x" * 5000])
def test_a_folder_that_says_nothing_else_is_none(root: Any) -> None:
    other_folder("same")
    Path("empty").mkdir()
    (other_folder("damaged") / "coordcore.json").write_text("{")
    with serving(by_width, {"data": [{"id": "tiny", "root": root}]}) as fake:
        assert predict(fake).exit_code == 0


def test_paths_of_another_machine_are_its_own(folder: Path) -> None:
    other_folder("other", "qwen_1000")
    Checkpoint.read(folder).require_as("other", "http://10.0.0.1:8000/v1")
    with pytest.raises(InputError, match="name that folder"):
        Checkpoint.read(folder).require_as("other", "http://127.0.0.1:8000/v1")


def test_empty_answers_are_answers() -> None:
    with serving(lambda _: completion('{"objects": []}')) as fake:
        result = predict(fake)
    assert (result.exit_code, [row.unread for row in rows()]) == (0, [[]] * COUNT)


@pytest.mark.parametrize("models", [("a", "b"), (), {"data": None}, Error(code=404)])
def test_a_server_with_several_models_wants_a_name(models: Any) -> None:
    with serving(by_width, models) as fake:
        result = predict(fake)
        named = predict(fake, "--model", "a")
    assert result.exit_code == 2
    assert "--model: say which model of http://127.0.0.1" in result.stderr
    assert named.exit_code == 0


def test_a_name_that_the_server_does_not_have(fake: Fake) -> None:
    result = predict(fake, "--model", "other")
    assert (result.exit_code, fake.asked) == (2, [])
    assert "has no 'other', but tiny" in result.stderr


def test_no_server(fake: Fake, waits: list[float]) -> None:
    result = predict("http://127.0.0.1:9/v1")
    assert (result.exit_code, waits) == (2, [])
    assert "http://127.0.0.1:9/v1: no server answers there (connection refused); start it" in result.stderr


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "http://", "ftp://a/v1", "http://a:b/v1", "http://a/v1?x=1", "", "http://[a", "http://a/v1 b"],
)
def test_an_address_that_is_none(url: str) -> None:
    result = predict(url)
    assert result.exit_code == 2
    assert f"--server: {url!r} is no address of a server" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ordered",), "--ordered: means nothing with --server"),
        (("--geometry", "point"), "--geometry: is given to a server with --constrained"),
        (("--device", "cpu"), "--device: means nothing with --server"),
        (("--score", "near"), "score: a server says the probabilities of the tokens that it wrote"),
    ],
)
def test_options_that_a_server_cannot_follow_are_refused(fake: Fake, options: tuple[str, ...], message: str) -> None:
    result = predict(fake, *options)
    assert (result.exit_code, fake.asked) == (2, [])
    assert message in result.stderr


@pytest.mark.parametrize("option", ["model", "concurrency"])
def test_options_of_a_server_need_one(option: str) -> None:
    arguments = ["predict", "merged", "val.jsonl", "--output", "out.jsonl", f"--{option}", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"--{option}: is given with --server" in result.stderr


def test_a_folder_that_does_not_say_how_it_answers(fake: Fake, folder: Path) -> None:
    (folder / "coordcore.json").unlink()
    result = predict(fake, "--question", "Find.")
    assert result.exit_code == 2
    assert "merged: has no coordcore.json, which says how a model answers" in result.stderr


def test_an_image_that_cannot_be_opened_is_told(fake: Fake) -> None:
    Path("2.png").write_bytes(b"no picture")
    result = predict(fake)
    assert result.exit_code == 0
    assert "2.png: image" in result.stderr
    assert len(fake.asked) == COUNT - 1


def test_another_model_of_the_server_is_another_contract(fake: Fake) -> None:
    predict(fake)
    fake.models = ("tiny", "other")
    result = predict(fake, "--model", "other")
    assert result.exit_code == 2
    assert "out.jsonl: was made under another contract" in result.stderr


# --- threads --------------------------------------------------------------------------------------------------------


def test_results_keep_their_order_and_errors_wait_for_what_is_under_way() -> None:
    def work(number: int) -> int:
        if number == 5:
            raise RunError("five")
        return number

    found: list[int] = []
    with pytest.raises(RunError, match="five"):
        found.extend(served.answered(range(100), work, 4))
    assert found[:5] == [0, 1, 2, 3, 4]
    assert found == sorted(found)
    assert len(found) < 20


def test_what_is_not_taken_is_not_asked() -> None:
    asked: list[int] = []
    results = served.answered(iter(range(1000)), lambda number: asked.append(number) or number, 2)
    assert next(results) == 0
    results.close()
    assert len(asked) < 20


def test_an_error_of_another_kind_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        list(served.answered([1, 0], lambda number: 1 // number, 2))
