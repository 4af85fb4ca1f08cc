"""A manifest to a trained checkpoint through ms-swift: what a run writes, counts, refuses and survives."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import support
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore.errors import InputError, RunError
from coordcore_train.run import session
from coordcore_train.run.folder import RunDir, checkpoints_in

EVALUATED = {"data": {"fake_boxes": {"validation": 13}}}
INTERRUPTIBLE = {"train": {"steps": 6, "save_every": 2}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    """A finished run: 4 steps of batch 4, 13 examples evaluated twice, 5 at a time, merged."""
    train = {"eval_batch_size": 5, "eval_every": 2}
    return support.train(tmp_path_factory.mktemp("whole"), coord_base, **EVALUATED, train=train, output={"merge": True})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> RunDir:
    return support.train(tmp_path_factory.mktemp("uninterrupted"), coord_base, **INTERRUPTIBLE)


def changed_base(base: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a base in `folder`, with other tensors."""
    copy = Path(shutil.copytree(base, folder / "base"))
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    return copy


def same_weights(first: RunDir, other: RunDir) -> bool:
    expected, actual = support.weights(first), support.weights(other)
    return expected.keys() == actual.keys() and all(torch.equal(expected[key], actual[key]) for key in expected)


# --- what a run writes ------------------------------------------------------------------------------------------------


def test_the_run_folder(whole: RunDir) -> None:
    assert sorted(path.name for path in whole.path.iterdir()) == [
        ".lock",
        "checkpoints",
        "manifest.resolved.toml",
        "merged",
        "metrics.jsonl",
        "state.json",
        "swift_plugin.py",
    ]
    assert [path.name for path in whole.checkpoints.iterdir() if path.is_dir()] == ["checkpoint-4"]
    assert whole.state()["done"] is True


def test_metrics_name_every_part(whole: RunDir) -> None:
    parts = ["fake_bins/ce", "fake_bins/corners", "fake_bins/miss", "text_ce/ce"]
    trained, evaluated = [], []
    for line in support.metrics(whole):
        (trained if "loss" in line else evaluated).append(line)
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    assert [line["step"] for line in evaluated] == [2, 4]
    assert {*parts, "loss", "step", "epoch", "grad_norm", "learning_rate", "lr/decay"} == set(trained[0])
    assert {"step", "epoch", "eval_loss", *(f"eval_{part}" for part in parts)} == set(evaluated[0])


def test_the_loss_is_the_weighted_sum_of_its_parts(whole: RunDir) -> None:
    lines = [line for line in support.metrics(whole) if "loss" in line]
    total = [line["text_ce/ce"] + line["fake_bins/ce"] + 0.01 * line["fake_bins/corners"] for line in lines]
    assert [line["loss"] for line in lines] == pytest.approx(total, rel=1e-5)


def test_training_moves_the_surgery_and_the_adapter(whole: RunDir) -> None:
    # LoRA's B matrices and the rows start at zero.
    assert [key for key, tensor in support.weights(whole).items() if not tensor.any()] == []


# --- exact counts -----------------------------------------------------------------------------------------------------


def test_accumulation_and_the_evaluation_batch_change_nothing(whole: RunDir, coord_base: Path, tmp_path: Path) -> None:
    train = {"batch_size": 2, "accumulation": 2, "eval_batch_size": 2, "eval_every": 2}
    run = support.train(tmp_path, coord_base, **EVALUATED, train=train)
    assert support.losses(run) == pytest.approx(support.losses(whole), rel=1e-5)
    assert support.evaluations(run) == pytest.approx(support.evaluations(whole), rel=1e-5)


def test_two_ranks_are_one_with_twice_the_batch(whole: RunDir, coord_base: Path, tmp_path: Path) -> None:
    train = {"batch_size": 2, "eval_batch_size": 2, "eval_every": 2}
    run = support.train(tmp_path, coord_base, **EVALUATED, train=train, launch={"nproc_per_node": 2})
    assert support.losses(run) == pytest.approx(support.losses(whole), rel=1e-5)
    assert support.evaluations(run) == pytest.approx(support.evaluations(whole), rel=1e-5)


def test_data_loader_processes_change_nothing(whole: RunDir, coord_base: Path, tmp_path: Path) -> None:
    from swift.utils import utils as swift_utils

    swift_utils._external_files.append(
        str(tmp_path / "gone" / "swift_plugin.py")
    )  # as of a plan before, in this process
    run = support.train(tmp_path, coord_base, train={"workers": 2})
    assert support.losses(run) == support.losses(whole)


def test_a_trainer_that_does_not_see_the_other_ranks_is_refused(whole: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    from coordcore_train.run.plan import load_run
    from coordcore_train.swift.template import CoordTemplate
    from coordcore_train.swift.trainer import CoordTrainer

    class Template(CoordTemplate):
        plan = load_run(whole.path)

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match=r"2 processes were started .* the trainer sees 1"):
        CoordTrainer(torch.nn.Linear(1, 1), SimpleNamespace(world_size=1), template=Template())


def test_a_trainer_without_the_run_s_template_says_which(whole: RunDir) -> None:
    from coordcore_train.swift.trainer import CoordTrainer

    model = torch.nn.Linear(1, 1)
    model.model_meta = SimpleNamespace(template="coordcore_qwen3_vl")
    with pytest.raises(InputError, match="--template coordcore_qwen3_vl is missing"):
        CoordTrainer(model, SimpleNamespace(world_size=1), template=object())


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_a_killed_run_continues_to_the_same_weights(uninterrupted: RunDir, coord_base: Path, tmp_path: Path) -> None:
    manifest = support.write_manifest(tmp_path, coord_base, **INTERRUPTIBLE)
    command = ["run", str(manifest), "--output", str(tmp_path / "run")]
    killed = support.python("-m", "coordcore", *command, FAKE_KILL_AT="5")
    run = RunDir(tmp_path / "run")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [line["step"] for line in support.metrics(run)] == [1, 2, 3, 4, 5]
    # Torn files, as a kill a moment earlier or later would leave them.
    (run.partial / "checkpoint-6").mkdir(parents=True)
    (run.checkpoints / "checkpoint-5").mkdir()
    with run.metrics.open("a") as file:
        file.write('{"step": 6, "lo')
    continued = CliRunner().invoke(app, command)
    assert continued.exit_code == 0, continued.output
    assert "continues from checkpoint-4" in continued.output
    assert [line["step"] for line in support.metrics(run)] == [1, 2, 3, 4, 5, 6]
    assert support.losses(run) == support.losses(uninterrupted)
    assert same_weights(run, uninterrupted)
    assert sorted(path.name for path in run.checkpoints.iterdir() if path.is_dir()) == ["checkpoint-4", "checkpoint-6"]


def test_the_full_tuner_continues_with_its_surgery(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {**INTERRUPTIBLE, "tuner": {"type": "full"}}
    expected = support.train(tmp_path / "expected", coord_base, **sections)
    monkeypatch.setenv("FAKE_STOP_AT", "3")
    with pytest.raises(RunError, match="stopped at step 3"):
        support.train(tmp_path / "stopped", coord_base, **sections)
    monkeypatch.delenv("FAKE_STOP_AT")
    run = support.train(tmp_path / "stopped", coord_base, **sections)
    assert support.weights(run)["row_offset.rows"].any()
    assert same_weights(run, expected)


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("file_size_limit")
def test_a_full_disk_leaves_the_last_checkpoint(
    uninterrupted: RunDir, coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setenv("FAKE_FULL_DISK_AT", "3")
    with pytest.raises(RunError, match=r"step 4: .*could not be written.*last good checkpoint is .*checkpoint-2"):
        support.train(tmp_path, coord_base, **INTERRUPTIBLE)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.delenv("FAKE_FULL_DISK_AT")
    assert same_weights(support.train(tmp_path, coord_base, **INTERRUPTIBLE), uninterrupted)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_becomes_nan_stops_the_run(coord_base: Path, tmp_path: Path, log_every: int) -> None:
    manifest = support.write_manifest(
        tmp_path,
        coord_base,
        loss={"fake_bins": {"nan_from": 5}},
        train={"steps": 8, "save_every": 2, "log_every": log_every},
    )
    result = CliRunner().invoke(app, ["run", str(manifest), "--output", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "step 5: NaN or infinity in fake_bins/corners; the last good checkpoint is" in result.output
    assert RunDir(tmp_path / "run").last_checkpoint() == tmp_path / "run" / "checkpoints" / "checkpoint-4"


# --- what lies in the folder already ----------------------------------------------------------------------------------


def again(whole: RunDir, base: Path, learning_rate: float = 1e-3) -> object:
    """The manifest that `whole` came from."""
    train = {"eval_batch_size": 5, "eval_every": 2, "learning_rate": learning_rate}
    return support.loaded(whole.path.parent, base, **EVALUATED, train=train, output={"merge": True})


def test_a_finished_run_is_not_touched(whole: RunDir, coord_base: Path) -> None:
    from coordcore_train.run.session import run

    with pytest.raises(InputError, match=r"holds a finished run of this manifest; .*--overwrite"):
        run(again(whole, coord_base), output=whole.path)


def test_another_manifests_run_is_not_touched(whole: RunDir, coord_base: Path) -> None:
    from coordcore_train.run.session import run

    with pytest.raises(InputError, match=r"holds a finished run of another manifest \(.*\); .*--overwrite"):
        run(again(whole, coord_base, learning_rate=2e-3), output=whole.path)


def test_what_another_manifest_says_otherwise_is_told(whole: RunDir, coord_base: Path, tmp_path: Path) -> None:
    other = support.loaded(tmp_path, coord_base, **EVALUATED, train={"eval_batch_size": 5, "eval_every": 2, "steps": 9})
    assert session.difference(whole, other.manifest) == " (train.steps was 4, is 9)"


def test_a_section_that_another_manifest_lacks_is_told(whole: RunDir, coord_base: Path, tmp_path: Path) -> None:
    other = support.loaded(tmp_path, coord_base, **EVALUATED, loss={"fake_bins": None})
    assert session.difference(whole, other.manifest).endswith(", is absent)")


def test_a_manifest_that_cannot_be_read_any_more_differs_all_the_same(coord_base: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.resolved.toml").write_text("no TOML")
    other = support.loaded(tmp_path, coord_base)
    assert session.difference(RunDir(tmp_path), other.manifest) == ""


def test_foreign_files_are_not_touched_even_by_overwrite(coord_base: Path, tmp_path: Path) -> None:
    from coordcore_train.run.session import run

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="exists and holds no coordcore run; name another folder"):
        run(support.loaded(tmp_path, coord_base), output=tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_overwrite_starts_again(coord_base: Path, tmp_path: Path) -> None:
    from coordcore_train.run.session import run

    first = support.train(tmp_path, coord_base, train={"steps": 1})
    second = support.loaded(tmp_path, coord_base, train={"steps": 2})
    run(second, output=first.path, overwrite=True)
    assert [line["step"] for line in support.metrics(first)] == [1, 2]


# --- plugins that fail when the run is over ---------------------------------------------------------------------------


def test_a_plugin_that_fails_at_the_end_does_not_hide_why_the_run_did(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_STOP_AT", "1")
    monkeypatch.setenv("FAKE_END", "fails")
    with pytest.raises(RunError, match="coordcore_step_ended raised RunError: stopped at step 1") as caught:
        support.train(tmp_path, coord_base, train={"steps": 2})
    told = "plugin engine-fakes: coordcore_run_ended raised ValueError: cannot say that it ended with plugin"
    assert [note.startswith(told) for note in caught.value.__notes__] == [True]
    assert f"coordcore: {told}" in capsys.readouterr().err


def test_a_plugin_that_fails_at_the_end_of_a_run_that_did_not_is_its_error(
    coord_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_END", "fails")
    with pytest.raises(RunError, match="coordcore_run_ended raised ValueError: cannot say that it ended with None"):
        support.train(tmp_path, coord_base, train={"steps": 1})


# --- surgeries that are not what they say -----------------------------------------------------------------------------


def test_a_surgery_that_is_not_live_stops_the_run(coord_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"surgery\.fake_rows is not live: the rows are not bound; call rebind"):
        support.train(tmp_path, coord_base, surgery={"fake_rows": {"free": True, "live": False}})


def test_a_hook_on_the_head_that_nobody_declares_stops_the_run(coord_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="something changes the output head that no surgery declares"):
        support.train(tmp_path, coord_base, surgery={"fake_rows": {"free": True, "declared": False}})


# --- examples that cannot be encoded ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("long", r"^train.jsonl:4: .*; raise train.max_length"),
        ("missing", r"^train.jsonl:4: cannot read its image /nowhere/image.png: .*No such file"),
        ("corrupt", r"^train.jsonl:4: cannot read its image in memory: cannot identify image file"),
        (
            "pixels",
            r"^train.jsonl:4: its images are reduced to max_pixels = 1 of source 'small', too few for a visual token "
            "each way: set 512 at least$",
        ),
        (
            "narrow",
            "^train.jsonl:4: height and width must be > 0; its images .* max_pixels = 1024 .* set 384000 at least$",
        ),
        ("geometry", r"^train.jsonl:4: the encoded answer has 0 coord tokens, its geometries have 4 values"),
    ],
)
def test_an_example_that_cannot_be_encoded_is_named(coord_base: Path, tmp_path: Path, fault: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        support.train(tmp_path, coord_base, data={"fake_boxes": {"train": 4, "fault": fault}})


def test_a_data_loader_process_names_it_just_as_well(coord_base: Path, tmp_path: Path) -> None:
    data, train = {"fake_boxes": {"train": 4, "fault": "missing"}}, {"workers": 1}
    with pytest.raises(InputError, match=r"^train.jsonl:4: cannot read its image [^\n]*$"):
        support.train(tmp_path, coord_base, data=data, train=train)


def test_no_training_example_is_an_error(coord_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the data builder gave no training example"):
        support.train(tmp_path, coord_base, data={"fake_boxes": {"train": 0}})


def test_overwrite_does_not_delete_the_base_it_starts_from(coord_base: Path, tmp_path: Path) -> None:
    first = support.train(tmp_path, coord_base, output={"merge": True})
    again = support.loaded(tmp_path, first.merged)
    with pytest.raises(InputError, match=r"merged lies in .*, which --overwrite would delete"):
        session.run(again, output=first.path, overwrite=True)
    assert first.merged.is_dir()


def test_two_processes_do_not_work_on_one_run(coord_base: Path, tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "run")
    folder.path.mkdir()
    folder.prepare("a = 1", "first", tmp_path, layout={"ranks": 1})
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    for overwrite in (False, True):
        with folder.locked(), pytest.raises(InputError, match="another process works on the run"):
            session.run(support.loaded(tmp_path, coord_base), output=folder.path, overwrite=overwrite)
    # Whoever is refused has written nothing: the first would go on with another manifest.
    assert {
        path: path.read_bytes() for path in folder.path.rglob("*") if path.name != ".lock" and path.is_file()
    } == before


def test_a_run_without_a_checkpoint_gives_way_to_a_mended_manifest(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "run")
    layout = {"ranks": 1}
    folder.prepare("a = 1", "first", tmp_path, layout=layout)
    folder.prepare("a = 2", "second", tmp_path, layout=layout)
    assert (folder.state()["fingerprint"], folder.manifest.read_text()) == ("second", "a = 2")
    checkpoint = folder.checkpoints / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run of another manifest"):
        folder.prepare("a = 3", "third", tmp_path, layout=layout)
    with pytest.raises(InputError, match="was started with"):
        folder.prepare("a = 2", "second", tmp_path, layout={"ranks": 2})


def test_one_checkpoint_is_kept_of_a_run_that_is_evaluated(coord_base: Path, tmp_path: Path) -> None:
    settings = {"steps": 2, "save_every": 1, "eval_every": 1, "keep": 1}
    run = support.train(tmp_path, coord_base, data={"fake_boxes": {"validation": 4}}, train=settings)
    assert [path.name for path in checkpoints_in(run.checkpoints)] == ["checkpoint-2"]


UP = "model.language_model.layers.0.mlp.up_proj.weight"


def test_a_base_that_lacks_a_tensor_is_refused_before_the_first_step(coord_base: Path, tmp_path: Path) -> None:
    base = changed_base(coord_base, tmp_path, lambda weights: weights.pop(UP))
    with pytest.raises(InputError) as caught:
        support.train(tmp_path, base)
    assert str(caught.value) == f"{base}: lacks {UP}; download or save it again"


def test_a_base_with_a_tensor_of_another_shape_is_refused(coord_base: Path, tmp_path: Path) -> None:
    base = changed_base(coord_base, tmp_path, lambda weights: weights.update({UP: weights[UP][:-1].clone()}))
    rows, columns = load_file(coord_base / "model.safetensors")[UP].shape
    with pytest.raises(InputError) as caught:
        support.train(tmp_path, base)
    assert str(caught.value) == (
        f"{base}: {UP} is [{rows - 1}, {columns}], the model's [{rows}, {columns}]; download or save it again"
    )


def test_a_base_with_nan_is_told_as_such(coord_base: Path, tmp_path: Path) -> None:
    base = changed_base(coord_base, tmp_path, lambda weights: weights[UP].fill_(float("nan")))
    with pytest.raises(RunError) as caught:
        support.train(tmp_path, base)
    assert str(caught.value) == (
        "surgery.fake_rows: the loss of a few tokens is nan before the first step: the base's weights, or the rows "
        "that a surgery adds, hold NaN or infinity; download or save the base again"
    )


def test_a_run_does_not_go_on_with_other_weights_of_its_base(coord_base: Path, tmp_path: Path) -> None:
    base = changed_base(coord_base, tmp_path, dict.copy)
    run = support.train(tmp_path, base, train={"steps": 2, "save_every": 1})
    shutil.rmtree(run.checkpoints / "checkpoint-2")
    run.write_state(done=False, trained=False)
    shutil.rmtree(base)
    changed_base(coord_base, tmp_path, lambda weights: weights[UP].add_(1))
    with pytest.raises(InputError) as caught:
        support.train(tmp_path, base, train={"steps": 2, "save_every": 1})
    assert str(caught.value) == (
        f"model.base: {base} is not what this run was started with: put it back to go on from the last checkpoint; or "
        "else name another folder with --output, or replace it with --overwrite"
    )
