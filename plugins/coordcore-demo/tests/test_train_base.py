"""The script that trained the base, for a few steps."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

from coordcore_demo.train_base import main, merges_for, train, write_random_base


@pytest.fixture(scope="module")
def random_base(tmp_path_factory):
    return write_random_base(tmp_path_factory.mktemp("random") / "base")


def losses(folder, steps):
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return [loss for _, loss in itertools.islice(train(model, AutoProcessor.from_pretrained(folder)), steps)]


def test_a_word_is_merged_from_the_left():
    assert merges_for(["ring"]) == ["r i", "ri n", "rin g"]


def test_a_word_is_merged_from_the_pieces_there_are():
    assert merges_for(["red", "green"]) == ["r e", "re d", "g re", "gre e", "gree n"]


def test_training_repeats(random_base):
    assert losses(random_base, 2) == losses(random_base, 2)


def test_the_loss_falls(random_base):
    first, *_, last = losses(random_base, 15)
    assert last < first - 1


def test_the_command_writes_a_checkpoint_that_loads(tmp_path, capsys):
    main(["--output", str(tmp_path / "base"), "--steps", "1"])
    assert "step 1/1  loss 5." in capsys.readouterr().out
    Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "base")


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path), "--steps", "1"])
    assert f"{tmp_path}: already exists" in capsys.readouterr().err


def test_it_goes_on_from_a_base(several, tmp_path, capsys):
    main(["--output", str(tmp_path / "base"), "--steps", "1", "--start", str(several), "--max-objects", "4"])
    assert "step 1/1  loss 0." in capsys.readouterr().out


def test_a_base_learns_label_by_label_where_that_is_asked_for(several, tmp_path, capsys):
    settings = ["--steps", "1", "--start", str(several), "--min-objects", "9", "--max-objects", "9"]
    losses = []
    for options in ([], ["--label-by-label"]):
        main(["--output", str(tmp_path / f"base{len(losses)}"), *settings, *options])
        losses.append(capsys.readouterr().out.split("  ")[1])
    assert losses[0] != losses[1]


def test_a_folder_to_go_on_from_holds_a_base(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path / "base"), "--steps", "1", "--start", str(tmp_path)])
    assert f"--start is {tmp_path}, where no config.json is" in capsys.readouterr().err
