"""What ends a rank is said once, by the process that started it, with the right exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


RANKS = """
import sys, time
print("up", flush=True)
time.sleep(100)
"""


def test_an_interrupt_leaves_no_traceback(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(
        RANKS.replace("import sys", "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)\nimport sys")
    )
    command = [sys.executable, "-m", "coordcore_train.run.torchrun", "--nproc_per_node=2", "--standalone", str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()

    assert (process.returncode, "Traceback" in said) == (130, False), said
