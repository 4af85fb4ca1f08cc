"""What ends a rank is said once, by the process that started it, with the right exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordcore import InputError, RunError
from coordcore.manifest.sections import Launch, Train
from coordcore_train.run import failures, launch


def test_the_first_that_was_left_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failures.FOLDER, str(tmp_path))
    failures.raise_first(tmp_path)  # nothing yet
    assert not failures.others()
    failures.leave(InputError("train.jsonl:3: wrong"), 1)
    failures.leave(RunError("lost the others"), 0)
    os.utime(tmp_path / "rank-1.json", ns=(1, 1))

    assert failures.others()
    with pytest.raises(InputError, match=r"^train\.jsonl:3: wrong$"):
        failures.raise_first(tmp_path)


def test_a_run_error_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failures.FOLDER, str(tmp_path))
    failures.leave(RunError("no room"), 0)

    with pytest.raises(RunError, match="no room"):
        failures.raise_first(tmp_path)


def test_without_a_folder_it_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(failures.FOLDER, raising=False)
    failures.leave(InputError("wrong"), 0)

    assert capsys.readouterr().err == "coordcore: wrong\n"


def test_two_ranks_say_wrong_input_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="nothing-here"):
        launch.torchrun(tmp_path / "nothing-here", Launch(nproc_per_node=2), Train(device="cpu"))
    assert "Traceback" not in capfd.readouterr().err


INTERRUPTED = """
import signal, subprocess, sys
from pathlib import Path
from coordcore.manifest.sections import Launch, Train
from coordcore_train.run import launch

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
started = subprocess.Popen

def popen(command, **settings):
    made = started([*command[:command.index("coordcore_train.run.worker") - 1], sys.argv[1]], **settings)
    print("started", flush=True)
    return made

subprocess.Popen = popen
try:
    launch.torchrun(Path("x"), Launch(nproc_per_node=2), Train())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("moment", ["started", "up"])
def test_an_interrupt_from_the_terminal_says_nothing(tmp_path: Path, moment: str) -> None:
    """Ctrl-C reaches every process of the group, whichever of them are starting just then."""
    ranks = tmp_path / "ranks.py"
    ranks.write_text('import os, time\nos.write(1, b"up\\n")\ntime.sleep(100)\n')
    command = [sys.executable, "-c", INTERRUPTED, str(ranks)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != f"{moment}\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()

    assert (process.returncode, said) == (130, "")


def _launched(ranks: Path) -> subprocess.Popen[str]:
    """A launched run of two fake ranks, which have written their process ids beside the script."""
    ranks.write_text(RANKS)
    command = [sys.executable, "-c", INTERRUPTED, str(ranks)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(3)]
    assert sorted(seen) == ["started\n", "up\n", "up\n"]
    return process


RANKS = """
import os, time
from pathlib import Path
from coordcore_train.run.launch import die_with_parent
die_with_parent()
Path(__file__).with_name(f"{os.getpid()}.pid").touch()
os.write(1, b"up\\n")  # at once: print writes the line break by itself, and another rank's line may come between
time.sleep(600)
"""


def _alive(folder: Path) -> list[str]:
    states = {path.stem: Path(f"/proc/{path.stem}/stat") for path in folder.glob("*.pid")}
    # One that ended, and that nobody waited for, is a zombie.
    return [
        pid for pid, stat in states.items() if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    ]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="ranks die with their parent under Linux")
def test_ranks_do_not_live_on_when_their_launcher_is_killed(tmp_path: Path) -> None:
    """They would train on beside those that the same command starts again."""
    process = _launched(tmp_path / "ranks.py")
    assert len(_alive(tmp_path)) == 2
    process.kill()
    process.communicate()

    give_up = time.monotonic() + 60
    while _alive(tmp_path) and time.monotonic() < give_up:
        os.sched_yield()
    assert _alive(tmp_path) == []


def test_a_run_that_is_told_to_end_ends_its_ranks(tmp_path: Path) -> None:
    process = _launched(tmp_path / "ranks.py")
    process.terminate()
    _, messages = process.communicate(timeout=60)

    assert (process.returncode, _alive(tmp_path)) == (143, [])
    assert "Traceback" not in messages
