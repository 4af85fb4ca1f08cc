"""`train.parallel_boxes`: the corners of some boxes are charged and not read, others in every epoch of every layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import pytest
import support
from engine_fakes import Boxes

from coordcore import Geometry
from coordcore.check import notes
from coordcore.coords import CoordFormat, CoordVocab
from coordcore.errors import InputError, ManifestError
from coordcore_train.checkpoint.folder import read_checkpoint_info
from coordcore_train.hidden import Hiding, stand_in
from coordcore_train.run.folder import RunDir
from coordcore_train.swift.rows import Rows

BOX = Geometry(kind="bbox_2d", values=(1.0, 2.0, 3.0, 4.0))
POINT = Geometry(kind="point", values=(1.0, 2.0))


def hidden_of(rows: Rows, index: int) -> frozenset[int]:
    *_, hidden = rows[index]["coordcore_example"]
    return frozenset(hidden)


# --- which are hidden -----------------------------------------------------------------------------------------------


def test_a_share_of_the_boxes_and_nothing_else_is_hidden() -> None:
    geometries = [BOX, POINT] * 10
    found = [Hiding(0.3, 7).drawn(geometries, 0, index) for index in range(500)]
    assert not any(number % 2 for drawn in found for number in drawn)
    assert sum(map(len, found)) / 5000 == pytest.approx(0.3, abs=0.03)
    assert Hiding(1.0, 7).drawn(geometries, 0, 0) == frozenset(range(0, 20, 2))


def test_it_follows_from_seed_epoch_and_index() -> None:
    drawn = Hiding(0.5, 7).drawn([BOX] * 64, 2, 5)
    assert Hiding(0.5, 7).drawn([BOX] * 64, 2, 5) == drawn
    others = [
        Hiding(0.5, 8).drawn([BOX] * 64, 2, 5),
        Hiding(0.5, 7).drawn([BOX] * 64, 3, 5),
        Hiding(0.5, 7).drawn([BOX] * 64, 2, 6),
    ]
    assert drawn not in others


def test_the_token_that_stands_in_is_in_the_middle_of_the_image() -> None:
    coords = CoordFormat(tokens="<b{}>", bins=9)
    assert stand_in(CoordVocab(ids=tuple(range(20, 29)), format=coords)) == 24


def test_rows_of_the_next_epoch_hide_others() -> None:
    source = Boxes(name="train", count=40, fault="none")
    rows = Rows(source, hiding=Hiding(0.5, 1))
    first, second = ([hidden_of(rows, epoch * len(rows) + index) for index in range(40)] for epoch in range(2))
    assert first != second
    assert first == [hidden_of(rows, index) for index in range(40)]
    assert [hidden_of(Rows(source), index) for index in range(40)] == [frozenset()] * 40


# --- what the model reads -------------------------------------------------------------------------------------------


def test_hidden_corners_are_charged_and_not_read(coord_base: Path, tmp_path: Path) -> None:
    from coordcore_train.swift.rehearse import rehearse
    from coordcore_train.swift.template import to_row

    rehearsal = rehearse(support.loaded(tmp_path, coord_base), coord_base, tmp_path)
    template, vocab = rehearsal.pipeline.template, rehearsal.plan.vocab
    assert vocab is not None
    tokens = [f"<|coord_{number}|>" for number in (11, 22, 33, 44, 55, 66, 12, 23, 34, 45)]
    example = attrs.evolve(
        Boxes(name="train", count=1, fault="none")[0],
        messages=[
            {"role": "user", "content": "<image>find <|coord_77|>"},
            {"role": "assistant", "content": f"a{''.join(tokens[:4])}, b{''.join(tokens[4:6])}"},
            {"role": "user", "content": "and <|coord_78|>?"},
            {"role": "assistant", "content": "".join(tokens[6:])},
        ],
        geometries=(
            Geometry(kind="bbox_2d", values=(11.0, 22.0, 33.0, 44.0)),
            Geometry(kind="point", values=(55.0, 66.0)),
            Geometry(kind="bbox_2d", values=(12.0, 23.0, 34.0, 45.0)),
        ),
    )
    coord_ids = list(vocab.ids)

    def bins(encoded: dict[str, list[int]], of: str = "input_ids") -> list[int]:
        return [coord_ids.index(token) for token in encoded[of] if token in coord_ids]

    plain = template.encode(to_row(example))
    assert bins(plain) == [77, 11, 22, 33, 44, 55, 66, 78, 12, 23, 34, 45]
    for numbers, read in (
        ({0}, [77, 500, 500, 500, 500, 55, 66, 78, 12, 23, 34, 45]),
        ({2}, [77, 11, 22, 33, 44, 55, 66, 78, 500, 500, 500, 500]),
    ):
        hidden = template.encode(to_row(example, hidden=numbers))
        assert hidden["labels"] == plain["labels"]
        assert bins(hidden) == read
        apart = [one != other for one, other in zip(plain["input_ids"], hidden["input_ids"], strict=True)]
        assert sum(apart) == 4
    noise = template.encode(to_row(attrs.evolve(example, uncharged=(0,)), hidden={0, 2}))
    assert bins(noise, "labels") == [55, 66, 12, 23, 34, 45]
    assert bins(noise) == [77, 500, 500, 500, 500, 55, 66, 78, 500, 500, 500, 500]
    padding = template.encode(to_row(example, padding=True, hidden={0}))
    assert bins(padding, "labels") == []


def test_what_is_read_y_first(coord_base: Path, tmp_path: Path) -> None:
    from coordcore_train.swift.rehearse import rehearse
    from coordcore_train.swift.template import to_row

    rehearsal = rehearse(support.loaded(tmp_path, coord_base, coords={"order": "yx"}), coord_base, tmp_path)
    template, vocab = rehearsal.pipeline.template, rehearsal.plan.vocab
    assert vocab is not None
    example = attrs.evolve(
        Boxes(name="train", count=1, fault="none")[0],
        messages=[
            {"role": "user", "content": "<image>find"},
            {"role": "assistant", "content": "<|coord_22|><|coord_11|><|coord_44|><|coord_33|>"},
        ],
        geometries=(Geometry(kind="bbox_2d", values=(11.0, 22.0, 33.0, 44.0)),),
    )
    hidden = template.encode(to_row(example, hidden={0}))
    assert hidden["input_ids"].count(stand_in(vocab)) == 4
    assert [token for token in hidden["labels"] if token in vocab.ids] == [vocab.ids[k] for k in (22, 11, 44, 33)]


# --- a run ----------------------------------------------------------------------------------------------------------

SECTIONS: support.Table = {
    "data": {"fake_boxes": {"train": 10, "validation": 4}},
    "train": {"steps": 5, "batch_size": 4, "save_every": 4, "keep": None, "parallel_boxes": 0.5},
    "output": {"merge": True},
}


@pytest.fixture(scope="module")
def trained(coord_base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return support.train(tmp_path_factory.mktemp("whole"), coord_base, **SECTIONS)


def test_a_checkpoint_says_that_it_has_learned_it(trained: RunDir) -> None:
    info = read_checkpoint_info(trained.merged)
    assert info is not None
    assert info.parallel_boxes
    assert json.loads((trained.merged / "coordcore.json").read_text())["parallel_boxes"] is True


def test_without_it_nothing_is_said_and_other_losses_are_had(trained: RunDir, coord_base: Path, tmp_path: Path) -> None:
    train = {**SECTIONS["train"], "parallel_boxes": 0.0}
    plain = support.train(tmp_path, coord_base, **{**SECTIONS, "train": train})
    assert "parallel_boxes" not in json.loads((plain.merged / "coordcore.json").read_text())
    assert support.losses(plain)[0] != support.losses(trained)[0]


def test_a_run_that_was_cut_off_goes_on_in_the_middle_of_an_epoch(
    trained: RunDir, coord_base: Path, tmp_path: Path
) -> None:
    cut = RunDir(Path(shutil.copytree(trained.path, tmp_path / "run")))
    shutil.rmtree(cut.checkpoints / "checkpoint-5")
    shutil.rmtree(cut.merged)
    lines = cut.metrics.read_text().splitlines(keepends=True)
    cut.metrics.write_text("".join(line for line in lines if json.loads(line)["step"] < 5))
    cut.write_state(done=False, trained=False)
    support.train(tmp_path, coord_base, **SECTIONS)
    assert cut.metrics.read_text().splitlines(keepends=True) == lines
    found, whole = support.weights(cut), support.weights(trained)
    assert all(tensor.equal(whole[name]) for name, tensor in found.items())


def test_ranks_and_workers_hide_the_same(trained: RunDir, coord_base: Path, tmp_path: Path) -> None:
    layout = {"batch_size": 2, "workers": 1}
    launched = support.train(
        tmp_path,
        coord_base,
        **{**SECTIONS, "train": {**SECTIONS["train"], **layout}, "launch": {"nproc_per_node": 2}},
    )
    assert support.losses(launched) == pytest.approx(support.losses(trained), rel=1e-4)


def test_held_out_boxes_are_read(coord_base: Path, tmp_path: Path) -> None:
    """Two runs that learn nothing have the same held-out loss, and other losses of what they train."""
    found = []
    for share in (0.0, 0.9):
        train = {**SECTIONS["train"], "steps": 1, "save_every": None, "learning_rate": 1e-12, "parallel_boxes": share}
        found.append(support.train(tmp_path / str(share), coord_base, **{**SECTIONS, "train": train, "output": {}}))
    assert support.losses(found[0]) != pytest.approx(support.losses(found[1]), rel=1e-4)
    assert support.evaluations(found[0]) == pytest.approx(support.evaluations(found[1]), rel=1e-6)
    assert support.evaluations(found[0])


# --- what it does not go with ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, "half"])
def test_it_is_a_share(share: object, coord_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"train\.parallel_boxes: "):
        support.loaded(tmp_path, coord_base, train={"parallel_boxes": share})


def test_examples_without_any_box_are_told_before_a_step(coord_base: Path, tmp_path: Path) -> None:
    data = {"fake_boxes": {"train": 10, "boxes_until": 0}}
    with pytest.raises(
        InputError, match=r"^train.parallel_boxes: none of 10 examples of data.fake_boxes .* has a bbox_2d"
    ):
        support.train(
            tmp_path, coord_base, data=data, loss={"text_ce": {"coord_positions": True}, "fake_bins": None},
            train={"parallel_boxes": 0.5},
        )  # fmt: skip
    support.train(
        tmp_path / "plain", coord_base, data=data, loss={"text_ce": {"coord_positions": True}, "fake_bins": None}
    )


def test_a_damaged_claim_is_told(trained: RunDir, tmp_path: Path) -> None:
    told = json.loads((trained.merged / "coordcore.json").read_text())
    (tmp_path / "coordcore.json").write_text(json.dumps({**told, "parallel_boxes": "yes"}))
    with pytest.raises(InputError, match=r"coordcore.json: parallel_boxes: must be true or false, got 'yes'; write"):
        read_checkpoint_info(tmp_path)


def test_who_trains_such_a_checkpoint_on_is_told_that_it_may_unlearn_it(trained: RunDir, tmp_path: Path) -> None:
    told = f"model.base: {trained.merged} has learned to say the corners of a box together, which it may unlearn; set"
    for share, expected in ((0.0, [True]), (0.3, [])):
        loaded = support.loaded(tmp_path, trained.merged, train={"parallel_boxes": share})
        assert [note.startswith(told) for note in notes(loaded) if "corners" in note] == expected
