"""From which checkpoint a run goes on: a damaged or hostile one is passed over for an older one, or named."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
import torch

from coordcore.errors import InputError, RunError
from coordcore.manifest.sections import Launch
from coordcore_train.run.folder import RunDir
from coordcore_train.run.resume import continues_from

ORIGIN = "coordcore_checkpoint.json"
STEPS: dict[str, Any] = {"train": {"steps": 3, "save_every": 1, "keep": 3}}


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    """A run of three steps with a checkpoint of each."""
    return support.train(tmp_path_factory.mktemp("whole"), coord_base, **STEPS)


@pytest.fixture
def run(whole: RunDir, tmp_path: Path) -> RunDir:
    """A copy of it, cut off after its second step."""
    folder = RunDir(Path(shutil.copytree(whole.path, tmp_path / "run")))
    shutil.rmtree(folder.checkpoints / "checkpoint-3")
    folder.write_state(done=False, trained=False)
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other(path: Path) -> None:
    torch.save([1, 2], path)


def hostile(path: Path) -> None:
    torch.save({"state": Bomb(path.parents[3] / "EXECUTED"), "param_groups": []}, path)


def hostile_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.parents[3] / "EXECUTED")))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def without_rank(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": "four"}))


def without_epochs(path: Path) -> None:
    state = json.loads(path.read_text())
    del state["num_train_epochs"]
    path.write_text(json.dumps(state))


FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def ways() -> list[Any]:
    ways = (Path.unlink, cut, empty, other, hostile, hostile_pickle)
    cases = [(file, way) for file in FILES for way in ways]
    cases += [("adapter_model.safetensors", cut), ("adapter_config.json", Path.unlink), ("trainer_state.json", cut)]
    cases += [("adapter_config.json", without_rank), ("trainer_state.json", without_epochs), (ORIGIN, cut)]
    cases += [(file, way) for file in ("adapter_model.safetensors", "optimizer.pt", ORIGIN) for way in (folder, pipe)]
    return [pytest.param(file, way, id=f"{file}-{way.__name__}") for file, way in cases]


def go_on(run: RunDir, told: list[str], ranks: int = 1) -> Path | None:
    return continues_from(run, Launch(), ranks, told.append, adapter=True)


@pytest.mark.parametrize(("file", "way"), ways())
def test_an_older_checkpoint_is_taken_and_the_file_is_named(
    run: RunDir, file: str, way: Callable[[Path], None]
) -> None:
    newest, told = run.checkpoints / "checkpoint-2", list[str]()
    assert go_on(run, told) == newest
    way(newest / file)
    assert go_on(run, told) == run.checkpoints / "checkpoint-1"
    assert str(newest / file) in told[0]
    assert "going on from the older checkpoint-1" in told[0]
    assert not list(run.path.parent.rglob("EXECUTED"))


def test_without_an_older_one_the_run_stops_and_keeps_what_is_there(run: RunDir) -> None:
    for step in (1, 2):
        cut(run.checkpoints / f"checkpoint-{step}" / "optimizer.pt")
    with pytest.raises(InputError, match=r"checkpoint-2/optimizer\.pt: not read: it is damaged.*no older checkpoint"):
        go_on(run, [])
    assert (run.checkpoints / "checkpoint-2").is_dir()


def test_a_hostile_file_is_said_to_be_one(run: RunDir) -> None:
    told: list[str] = []
    hostile(run.checkpoints / "checkpoint-2" / "optimizer.pt")
    go_on(run, told)
    assert "holds objects that only code of its own could build: none is run" in told[0]


def test_every_rank_has_its_random_numbers(run: RunDir) -> None:
    newest = run.checkpoints / "checkpoint-2"
    for rank in (0, 1):
        shutil.copy(newest / "rng_state.pth", newest / f"rng_state_{rank}.pth")
    assert go_on(run, [], ranks=2) == newest
    told: list[str] = []
    with pytest.raises(InputError, match=r"rng_state_2\.pth: is missing"):
        go_on(run, told, ranks=3)


def test_a_file_that_the_system_does_not_give_is_no_damage(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "optimizer.pt")

    monkeypatch.setattr(torch, "load", denied)
    with pytest.raises(RunError, match=r"optimizer\.pt: cannot be read: Permission denied"):
        go_on(run, [])


def test_nor_is_one_that_tells_of_the_adapter(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(path: Path) -> bytes:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", none_left)
    with pytest.raises(RunError, match=r"checkpoint-2/.*: cannot be read: Too many open files"):
        go_on(run, [])


def test_a_run_without_checkpoints_starts(run: RunDir) -> None:
    shutil.rmtree(run.checkpoints)
    assert go_on(run, []) is None


def test_it_ends_with_the_same_weights(
    whole: RunDir, coord_base: Path, tmp_path: Path, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile(run.checkpoints / "checkpoint-2" / "optimizer.pt")
    again = support.train(tmp_path, coord_base, **STEPS)
    assert again.path == run.path
    said = capsys.readouterr().err
    assert "checkpoint-2/optimizer.pt: not read" in said
    assert "going on from the older checkpoint-1" in said
    assert not list(tmp_path.rglob("EXECUTED"))
    left, right = support.weights(again), support.weights(whole)
    assert all(torch.equal(left[key], right[key]) for key in right)
    assert support.metrics(again) == support.metrics(whole)
    assert json.loads((again.path / "state.json").read_text())["done"] is True


# --- runs that ranks share --------------------------------------------------------------------------------------------


def share(folder: Path, name: str) -> Path:
    """One of DeepSpeed's files, in the container that torch writes."""
    file = folder / "global_step2" / name
    file.parent.mkdir(exist_ok=True)
    torch.save({}, file)
    return file


def of_two_ranks(run: RunDir) -> Path:
    """The newest checkpoint of a run, as DeepSpeed leaves it on two ranks."""
    newest = run.checkpoints / "checkpoint-2"
    (newest / "optimizer.pt").unlink()
    for rank in range(2):
        shutil.copy(newest / "rng_state.pth", newest / f"rng_state_{rank}.pth")
        share(newest, f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    share(newest, "mp_rank_00_model_states.pt")
    (newest / "latest").write_text("global_step2")
    return newest


ZERO_WAYS = [
    ("latest", Path.unlink, "latest: is missing"),
    ("latest", empty, "latest: must name a folder global_step<N>, got ''"),
    ("latest", lambda path: path.write_text("../../x"), "must name a folder global_step<N>, got '../../x'"),
    ("latest", lambda path: path.write_bytes(b"\xff"), "latest: cannot be read"),
    ("global_step2/mp_rank_00_model_states.pt", Path.unlink, "mp_rank_00_model_states.pt: is missing"),
    ("global_step2/mp_rank_00_model_states.pt", cut, "mp_rank_00_model_states.pt: not read: it is damaged"),
    ("global_step2/zero_pp_rank_1_mp_rank_00_optim_states.pt", Path.unlink, "1 files *optim_states.pt of 2 ranks"),
    ("global_step2/zero_pp_rank_1_mp_rank_00_optim_states.pt", empty, "optim_states.pt: not read: it is damaged"),
    ("rng_state_1.pth", Path.unlink, "rng_state_1.pth: is missing"),
]


@pytest.mark.parametrize(("file", "way", "message"), ZERO_WAYS)
def test_a_share_of_deepspeed_that_is_missing_or_cut_off(
    run: RunDir, file: str, way: Callable[[Path], None], message: str
) -> None:
    newest, told = of_two_ranks(run), list[str]()
    launch = Launch(deepspeed="zero2", nproc_per_node=2)
    assert continues_from(run, launch, 2, told.append, adapter=True) == newest
    way(newest / file)
    with pytest.raises(InputError) as caught:  # the older one is of one rank
        continues_from(run, launch, 2, told.append, adapter=True)
    assert message in str(caught.value)


def test_zero3_keeps_a_share_of_the_model_on_every_rank(run: RunDir) -> None:
    of_two_ranks(run)
    with pytest.raises(InputError, match=r"has 1 files \*model_states\.pt of 2 ranks"):
        continues_from(run, Launch(deepspeed="zero3", nproc_per_node=2), 2, list[str]().append, adapter=True)


@pytest.mark.parametrize("missing", ["optimizer.bin", "pytorch_model_fsdp.bin"])
def test_a_file_of_fsdp_that_is_missing(run: RunDir, missing: str) -> None:
    newest = run.checkpoints / "checkpoint-2"
    (newest / "optimizer.pt").rename(newest / "optimizer.bin")
    torch.save({"w": torch.zeros(1)}, newest / "pytorch_model_fsdp.bin")
    for rank in range(2):
        shutil.copy(newest / "rng_state.pth", newest / f"rng_state_{rank}.pth")
    launch = Launch(fsdp="fsdp2", nproc_per_node=2)
    assert continues_from(run, launch, 2, list[str]().append, adapter=True) == newest
    (newest / missing).unlink()
    with pytest.raises(InputError, match=f"{missing}: is missing"):
        continues_from(run, launch, 2, list[str]().append, adapter=True)
