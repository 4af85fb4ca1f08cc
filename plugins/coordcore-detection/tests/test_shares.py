"""`coordcore predict` by several processes: shares, one file of all, and what becomes of a process that ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import typer
from evaluation_support import header
from PIL import Image
from prediction_support import checkpoint, images
from typer.testing import CliRunner

from coordcore import InputError
from coordcore.cli import app
from coordcore.records.answers import Unread
from coordcore_detection.commands import answering, processes
from coordcore_detection.predict import prediction_files, shares
from coordcore_detection.predict.predictions import Row
from coordcore_detection.predict.shares import Share

torch.set_num_threads(1)

COUNT = 7
OUTPUT = Path("out.jsonl")
HEADER = header(score="near")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", shares.OURS):
        monkeypatch.delenv(name, raising=False)


def row(name: str, text: str = "", *, shown: bool = True) -> Row:
    unread = [] if shown else [Unread(at=prediction_files.NO_IMAGE, reason="gone")]
    return Row(image=name, width=1, height=1, text=text, boxes=[], unread=unread)


def write(file: Path, *rows: Row) -> None:
    prediction_files.write(file, HEADER, rows)


# --- which share ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}, (1, 2, 0)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, 0)),  # the script of a job, which runs once
        ({"RANK": "1"}, (0, 1, 0)),
        ({shares.OURS: "2/4", "RANK": "0", "WORLD_SIZE": "1"}, (2, 4, 2)),
    ],
)
def test_the_share_is_what_the_launcher_says(
    given: dict[str, str], expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    share = Share.here()
    assert (share.rank, share.world, share.local) == expected


@pytest.mark.parametrize(("rank", "world"), [("4", "4"), ("-1", "4"), ("a", "4"), ("0", "")])
def test_a_rank_that_is_none(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match="RANK: says rank"):
        Share.here()


@pytest.mark.parametrize("world", [1, 2, 3, 5, 9])
def test_every_batch_is_asked_once_and_whole(world: int) -> None:
    every = images(COUNT)
    asked = [shares.left(every, {}, 2, Share(rank=rank, world=world)) for rank in range(world)]
    pairs = [
        tuple(image.key for image in part[begin : begin + 2]) for part in asked for begin in range(0, len(part), 2)
    ]
    assert sorted(pairs) == [("0.png", "1.png"), ("2.png", "3.png"), ("4.png", "5.png"), ("6.png",)]


def test_a_batch_that_is_not_answered_whole_is_asked_again() -> None:
    known = {name: row(name) for name in ("0.png", "1.png", "2.png", "6.png")} | {"4.png": row("4.png", shown=False)}
    found = [image.key for image in shares.left(images(COUNT), known, 2, Share())]
    assert found == ["2.png", "3.png", "4.png", "5.png"]


# --- together -------------------------------------------------------------------------------------------------------


def test_shares_are_put_together_in_the_order_of_the_images() -> None:
    write(Share(rank=0, world=2).file(OUTPUT), row("a"), row("c"))
    write(Share(rank=1, world=2).file(OUTPUT), row("b"))
    found = shares.together(OUTPUT, HEADER, ["a", "b", "c"], Share(rank=1, world=2))
    assert found is not None
    assert [item.image for item in found] == ["a", "b", "c"]
    assert [item.image for item in prediction_files.read(OUTPUT)[1]] == ["a", "b", "c"]
    assert [file.name for file in Path().iterdir()] == ["out.jsonl"]


def test_answers_of_other_numbers_of_processes_and_to_other_images_are_kept() -> None:
    write(OUTPUT, row("old"), row("a"))
    write(Share(rank=2, world=3).file(OUTPUT), row("b"))
    found = shares.together(OUTPUT, HEADER, ["a", "b"], Share())
    assert found is not None
    assert [item.image for item in found] == ["a", "b", "old"]


def test_nothing_is_put_together_while_an_answer_is_missing() -> None:
    file = Share(rank=0, world=2).file(OUTPUT)
    write(file, row("a"))
    assert shares.together(OUTPUT, HEADER, ["a", "b"], Share(rank=0, world=2)) is None
    assert (file.exists(), OUTPUT.exists()) == (True, False)


def test_nothing_is_put_together_while_another_is_at_work() -> None:
    write(OUTPUT, row("a", shown=False), row("b"))
    other = Share(rank=1, world=2)
    write(other.file(OUTPUT), row("a"))
    with shares.held(other.file(OUTPUT), HEADER):
        assert shares.together(OUTPUT, HEADER, ["a", "b"], Share(rank=0, world=2)) is None
        with pytest.raises(InputError, match="another process writes it"):
            shares.gather(OUTPUT, HEADER)
        with pytest.raises(InputError, match="another process writes it"), shares.held(other.file(OUTPUT), HEADER):
            pass
    found = shares.together(OUTPUT, HEADER, ["a", "b"], other)
    assert found is not None
    assert [shares.is_shown(item) for item in found] == [True, True]


def test_one_process_takes_over_what_several_left() -> None:
    write(OUTPUT, row("a", "first"))
    file = Share(rank=1, world=4).file(OUTPUT)
    write(file, row("b"))
    with file.open("ab") as cut:
        cut.write(b'{"image": "c", "wid')
    Share(rank=2, world=4).file(OUTPUT).write_bytes(b"")  # ended before its header
    shares.gather(OUTPUT, HEADER)
    assert sorted(item.image for item in prediction_files.read(OUTPUT)[1]) == ["a", "b"]
    assert [item.name for item in Path().iterdir()] == ["out.jsonl"]


def test_a_share_is_mended_by_none_but_the_process_that_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "pause", lambda _seconds: None)
    file = Share(rank=0, world=2).file(OUTPUT)
    with shares.held(file, HEADER), prediction_files.appending(file, HEADER) as add, file.open("ab") as half:
        add(row("a"))
        half.write(b'{"image": "b", "wid')  # a row is being written
        half.flush()
        before = file.stat().st_ino
        with pytest.raises(InputError, match="another process writes it"), shares.held(file, HEADER):
            pass
        assert file.stat().st_ino == before


def test_what_was_mended_is_held() -> None:
    file = Share(rank=0, world=2).file(OUTPUT)
    write(file, row("a"))
    with file.open("ab") as cut:
        cut.write(b'{"image": "b", "wid')
    with shares.held(file, HEADER):
        assert [item.image for item in prediction_files.read(file)[1]] == ["a"]
        assert shares.together(OUTPUT, HEADER, ["a"], Share(rank=1, world=2)) is None


def test_a_file_that_was_begun_for_nothing_goes_while_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process may begin there as soon as the lock is gone: its answers would go with the file."""
    monkeypatch.setattr(shares, "pause", lambda _seconds: None)
    held: list[bool] = []
    unlink = Path.unlink

    def removed(path: Path, missing_ok: bool = False) -> None:
        if path == OUTPUT:
            held.append(shares._is_held(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", removed)
    with pytest.raises(ZeroDivisionError), shares.held(OUTPUT, HEADER), prediction_files.appending(OUTPUT, HEADER):
        raise ZeroDivisionError
    assert (held, list(Path().iterdir())) == ([True], [])


def test_a_file_that_another_began_first_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "pause", lambda _seconds: None)
    with shares.held(OUTPUT, HEADER), prediction_files.appending(OUTPUT, HEADER) as add:
        monkeypatch.setattr(os.path, "lexists", lambda _path: False)  # as it was a moment before
        monkeypatch.setattr(shares, "gather", lambda *_: False)
        nothing: Any = None
        with pytest.raises(InputError, match="another process writes it"):
            answering.of_all(nothing, [], nothing, OUTPUT, HEADER, in_order=False)
        add(row("a"))
    assert [item.image for item in prediction_files.read(OUTPUT)[1]] == ["a"]


def test_a_share_without_an_answer_is_not_in_the_way_of_what_was_there() -> None:
    write(OUTPUT, row("a"))
    before = OUTPUT.read_bytes()
    file = Share(rank=1, world=2).file(OUTPUT)
    with shares.replaced(OUTPUT), shares.held(file, HEADER), prediction_files.appending(file, HEADER):
        pass
    assert ([item.name for item in Path().iterdir()], OUTPUT.read_bytes()) == (["out.jsonl"], before)


def test_a_pipe_is_no_file_to_write() -> None:
    """Opening it would wait for somebody at its other end."""
    os.mkfifo(OUTPUT)
    shares.require_free(OUTPUT)
    with pytest.raises(InputError, match="is a pipe or a device"), shares.held(OUTPUT, HEADER):
        pass
    assert OUTPUT.is_fifo()


def test_processes_that_look_at_once_do_not_take_one_another_for_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [Share(rank=rank, world=2).file(OUTPUT) for rank in range(2)]
    for name, file in zip("ab", files, strict=True):
        write(file, row(name))
    with files[0].open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as another process does while it looks
        assert shares.together(OUTPUT, HEADER, ["a", "b"], Share(rank=1, world=2)) is not None


def test_a_process_waits_for_one_that_only_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Share(rank=0, world=2).file(OUTPUT)
    write(file, row("a"))
    with file.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        monkeypatch.setattr(shares, "pause", lambda _seconds: fcntl.flock(other, fcntl.LOCK_UN))
        with shares.held(file, HEADER):
            assert shares.together(OUTPUT, HEADER, ["a"], Share(rank=1, world=2)) is None


def test_shares_of_another_contract_are_refused_and_replaced_on_demand() -> None:
    file = Share(rank=1, world=4).file(OUTPUT)
    prediction_files.write(file, header(score="min"), [row("b")])
    with pytest.raises(InputError, match="made under another contract"):
        shares.answered(OUTPUT, HEADER)
    with shares.replaced(OUTPUT):
        assert shares.answered(OUTPUT, HEADER) == {}
        write(OUTPUT, row("a"))
    assert [item.name for item in Path().iterdir()] == ["out.jsonl"]


def test_what_was_to_be_replaced_is_there_again_when_nothing_came() -> None:
    write(OUTPUT, row("a"))
    file = Share(rank=1, world=4).file(OUTPUT)
    write(file, row("b"))
    before = sorted((item.name, item.read_bytes()) for item in Path().iterdir())
    with shares.replaced(OUTPUT):
        assert not OUTPUT.exists()
    assert sorted((item.name, item.read_bytes()) for item in Path().iterdir()) == before


def test_what_another_process_writes_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Share(rank=1, world=4).file(OUTPUT)
    with shares.held(file, HEADER):
        with pytest.raises(InputError, match="another process writes it"), shares.replaced(OUTPUT):
            pass
        assert file.exists()


# --- processes ------------------------------------------------------------------------------------------------------


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_process_that_is_killed_is_told_and_the_others_end_their_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (
        "import os, pathlib, signal\nshare = os.environ['COORDCORE_SHARE'][0]\n"
        "if share == '1': os.kill(os.getpid(), signal.SIGKILL)\npathlib.Path(f'done-{share}').write_text('')"
    )
    monkeypatch.setattr(processes, "words", lambda *_args, **_more: [])
    monkeypatch.setattr(processes, "COMMAND", python(text))
    with pytest.raises(processes.RunError, match=r"process 1 of 3 was ended by SIGKILL; what was answered is kept"):
        processes.run(None, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done-0", "done-2"]


def test_what_all_of_them_say_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import os, sys\nprint('coordcore: no', file=sys.stderr)\nsys.exit(2)"
    monkeypatch.setattr(processes, "words", lambda *_args, **_more: [])
    monkeypatch.setattr(processes, "COMMAND", python(text))
    with pytest.raises(typer.Exit) as ended:
        processes.run(None, 3)
    assert (ended.value.exit_code, capsys.readouterr().err) == (2, "coordcore: no\n")


def test_they_end_with_the_one_that_started_them() -> None:
    text = (
        "import sys\nfrom coordcore_detection.commands import processes\n"
        "wait = [sys.executable, '-c', 'import sys, time; print(1, file=sys.stderr, flush=True); time.sleep(60)']\n"
        "processes.watched([wait] * 2, [{}] * 2)"
    )
    started = subprocess.Popen(python(text), stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    assert started.stderr.readline() == "1\n"  # it is there
    started.terminate()
    assert started.wait(30) == 128 + signal.SIGTERM
    assert started.stderr.read() == ""  # nobody holds it open any more


def test_the_words_of_a_command_are_found_again() -> None:
    given: list[list[str]] = []
    small = typer.Typer()

    @small.command()
    def command(
        context: typer.Context,
        first: Path,
        number: Annotated[int, typer.Option()] = 3,
        many: Annotated[list[str] | None, typer.Option()] = None,
        on: Annotated[bool, typer.Option("--on/--off")] = True,
        procs: Annotated[int, typer.Option()] = 1,
        unset: Annotated[int, typer.Option()] = 1,
    ) -> None:
        given.append(processes.words(context, without=["procs"]))

    CliRunner().invoke(small, ["--off", "--procs", "2", "--many", "-a b", "--many", "c", "--", "-x.jsonl"])
    assert given == [["--many=-a b", "--many=c", "--off", "--", "-x.jsonl"]]


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def records() -> Path:
    lines = []
    for k in range(COUNT):
        Image.new("RGB", (40 + k, 32), (k * 30,) * 3).save(f"{k}.png")
        lines.append(json.dumps({"images": [f"{k}.png"], "width": 40 + k, "height": 32, "objects": []}))
    Path("val.jsonl").write_text("\n".join(lines) + "\n")
    return Path("val.jsonl")


def arguments(model: Path, *more: object, output: str = "out.jsonl") -> list[str]:
    asked = ("predict", model, "val.jsonl", "--space", "pixel", "--question", "Find.", "--max-new-tokens", 40)
    return [str(item) for item in (*asked, "--batch-size", 2, "--device", "cpu", "--output", output, *more)]


def invoke(words: Sequence[str]) -> Any:
    return CliRunner().invoke(app, words)


def test_any_number_of_processes_writes_the_same_file(
    model: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke(arguments(model, output="alone.jsonl")).exit_code == 0
    alone = Path("alone.jsonl").read_bytes()
    for world in (2, 3):
        monkeypatch.setenv("WORLD_SIZE", str(world))
        for rank in reversed(range(world)):
            monkeypatch.setenv("RANK", str(rank))
            result = invoke(arguments(model))
            assert result.exit_code == 0, result.output
            assert ("7 images" in result.stdout) is (rank == 0)  # who comes last says it
            assert (f".out.jsonl.part-{rank}-of-{world}: this share is answered" in result.stderr) is (rank > 0)
        assert OUTPUT.read_bytes() == alone
        assert not shares.files(OUTPUT)
        OUTPUT.unlink()


def test_an_interrupted_share_is_continued_by_one_process(
    model: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert invoke(arguments(model)).exit_code == 0
    monkeypatch.delenv("RANK")
    result = invoke(arguments(model))
    assert "out.jsonl: holds 3 of 7 images already" in result.stderr  # 2.png, 3.png and 6.png
    assert [row.image for row in prediction_files.read(OUTPUT)[1]] == [f"{k}.png" for k in range(COUNT)]
    assert not shares.files(OUTPUT)


@pytest.mark.parametrize("option", [("--procs", "2"), ("--overwrite",)])
def test_what_processes_of_a_launcher_cannot_be_asked(
    model: Path, records: Path, option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = invoke(arguments(model, *option))
    assert result.exit_code == 2
    assert f"{option[0]}: " in result.stderr


@pytest.mark.parametrize("more", [("--coords", "none"), ("--coords", "none", "--procs", 2)])
def test_a_command_that_comes_to_nothing_replaces_nothing(model: Path, records: Path, more: tuple[object, ...]) -> None:
    write(OUTPUT, row("a"))
    before = OUTPUT.read_bytes()
    assert invoke(arguments(model, "--overwrite", *more)).exit_code == 2
    assert OUTPUT.read_bytes() == before
    assert invoke(arguments(model, "--overwrite")).exit_code == 0
    assert {file.name for file in Path().glob("*out*")} | {file.name for file in Path().glob(".*")} == {"out.jsonl"}


def test_a_module_in_this_folder_is_not_taken_for_python_s(model: Path, records: Path) -> None:
    Path("msgspec.py").write_text("raise SystemExit('this one')")
    result = invoke(arguments(model, "--procs", 2, "--limit", 1))
    assert result.exit_code == 0, result.output
    assert [row.image for row in prediction_files.read(OUTPUT)[1]] == ["0.png"]


def test_two_processes_by_the_command(model: Path, records: Path) -> None:
    command = [sys.executable, "-m", "coordcore", *arguments(model, "--procs", 2)]
    Path("2.png").write_bytes(b"no picture")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out.jsonl: 7 images, ")
    assert done.stdout.count("\n") == 1
    assert done.stderr.count("2.png: image 2.png cannot be read") == 1
    assert [row.image for row in prediction_files.read(OUTPUT)[1]] == [f"{k}.png" for k in range(COUNT)]
    assert not shares.files(OUTPUT)
