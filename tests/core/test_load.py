"""What a right manifest becomes: types, defaults, paths, and what is left to `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from fakes import BoxesConfig, EntryPoint, FuzzyConfig, Gate, Scale, component, found, offering, usual

from coordcore import kinds, option
from coordcore.manifest import Loaded, ManifestError, load
from coordcore.manifest.sections import Manifest

PLAIN = '[model]\nbase = "base"\n[data.plain_text]\n[loss.text_ce]\n'


def loaded(text: str, *overrides: str, file: str = "m.toml") -> Loaded:
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(text)
    return load(file, overrides, usual())


def fuzzy(text: str) -> Any:
    """The structured config of [loss.fuzzy] with these lines."""
    manifest = loaded(f"{PLAIN}[loss.fuzzy]\n{text}\n").manifest
    return next(row.config for row in manifest.selected if row.component.name == "fuzzy")


def test_every_section_has_defaults_but_model_and_components() -> None:
    manifest = loaded(PLAIN).manifest

    assert manifest == Manifest(name="m", model=manifest.model, selected=manifest.selected)


def test_the_name_is_the_stem_unless_given() -> None:
    assert loaded(PLAIN, file="shapes.toml").manifest.name == "shapes"
    assert loaded('name = "mine"\n' + PLAIN).manifest.name == "mine"


def test_a_manifest_without_template_and_optimizer_gets_the_plain_ones() -> None:
    manifest = loaded(PLAIN).manifest

    assert [(row.path, row.distribution) for row in manifest.selected] == [
        ("data.plain_text", "made-boxes"),
        ("format.coordjson", "coordcore"),
        ("template.plain", "coordcore"),
        ("loss.text_ce", "coordcore"),
        ("optimizer.adamw", "coordcore"),
    ]


def test_surgeries_and_losses_keep_the_order_of_the_file() -> None:
    text = (
        '[model]\nbase = "base"\n[surgery.offset]\n[loss.text_ce]\n[data.plain_text]\n[surgery.adapter]\n[loss.fuzzy]\n'
    )
    manifest = loaded(text).manifest

    assert [item.component.name for item in manifest.of(kinds.SURGERY)] == ["offset", "adapter"]
    assert [item.component.name for item in manifest.of(kinds.LOSS)] == ["text_ce", "fuzzy"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", FuzzyConfig()),
        ("sigma = 3", FuzzyConfig(sigma=3.0)),
        ("clip = true", FuzzyConfig(clip=True)),
        ('names = ["b", "c"]', FuzzyConfig(names=("b", "c"))),
        ("pair = [2, 3]", FuzzyConfig(pair=(2, 3.0))),
        ('either = "x"', FuzzyConfig(either="x")),
        ("either = 3", FuzzyConfig(either=3)),
        ('scale = "log"', FuzzyConfig(scale=Scale.LOG)),
        ("parts = { a = 1 }", FuzzyConfig(parts={"a": 1.0})),
        ("gate.weight = 2", FuzzyConfig(gate=Gate(weight=2.0))),
        ("[loss.fuzzy.gate]\nhard = true", FuzzyConfig(gate=Gate(hard=True))),
    ],
)
def test_values_take_the_declared_types(line: str, expected: FuzzyConfig) -> None:
    found_config = fuzzy(line)

    assert found_config == expected
    assert [type(item) for item in attrs.astuple(found_config)] == [type(item) for item in attrs.astuple(expected)]


def test_relative_paths_start_at_the_file_that_holds_them() -> None:
    Path("bases").mkdir()
    Path("bases/base.toml").write_text(
        '[model]\nbase = "./checkpoint"\n[loss.fuzzy]\n'
        '[data.boxes]\ntrain = "boxes.jsonl"\nimages = ["a", "/abs", "../b"]\n'
    )
    here = Path.cwd()
    text = 'extends = "bases/base.toml"\n[output]\ndir = "runs/x"\n[launch]\ndeepspeed = "ds.json"\n'
    manifest = loaded(text).manifest
    (data,) = manifest.of(kinds.DATA)

    assert data.config == BoxesConfig(
        train=here / "bases/boxes.jsonl", images=(here / "bases/a", Path("/abs"), here / "b")
    )
    assert manifest.model.base == str(here / "bases/checkpoint")
    assert manifest.output.dir == here / "runs/x"
    assert manifest.launch.deepspeed == str(here / "ds.json")


def test_paths_of_an_override_start_at_the_working_directory() -> None:
    manifest = loaded(
        PLAIN.replace("plain_text]", "boxes]") + "[loss.fuzzy]\n", "data.boxes.train=x.jsonl", file="sub/m.toml"
    ).manifest

    assert manifest.of(kinds.DATA)[0].config.train == Path.cwd() / "x.jsonl"


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")

    assert loaded(PLAIN + '[output]\ndir = "~/runs"\n').manifest.output.dir == Path("/home/somebody/runs")


@pytest.mark.parametrize("base", ["package:coordcore_demo/base", "Qwen/Qwen3-VL-2B-Instruct"])
def test_a_base_that_is_no_folder_stays_as_written(base: str) -> None:
    assert loaded(PLAIN.replace('"base"', f'"{base}"')).manifest.model.base == base


def test_a_folder_is_preferred_to_a_hub_id_of_the_same_form() -> None:
    Path("Qwen/tiny").mkdir(parents=True)

    assert loaded(PLAIN.replace('"base"', '"Qwen/tiny"')).manifest.model.base == str(Path.cwd() / "Qwen/tiny")


@pytest.mark.parametrize("word", ["zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"])
def test_deepspeed_settings_by_name_are_no_files(word: str) -> None:
    result = loaded(PLAIN + f'[launch]\ndeepspeed = "{word}"\n')

    assert (result.manifest.launch.deepspeed, result.missing) == (word, ())


def test_missing_files_do_not_keep_a_manifest_from_loading() -> None:
    text = PLAIN.replace("plain_text]", 'boxes]\ntrain = "x.jsonl"') + '[launch]\nfsdp = "mine.json"\n'
    here = Path.cwd()

    assert [str(item) for item in loaded(text).missing] == [
        f"m.toml:4: data.boxes.train: no such file: {here}/x.jsonl",
        f"m.toml:7: launch.fsdp: neither one of fsdp2 nor a file: {here}/mine.json",
    ]


def test_a_record_of_an_earlier_run_is_no_section() -> None:
    assert loaded(PLAIN + '[resolved]\ncoordcore = "9.9"\n').manifest.name == "m"


def test_any_ms_swift_argument_passes_through() -> None:
    text = PLAIN + "[train.swift]\nneftune_noise_alpha = 5\nx = { y = [1, 2.5] }\n"

    assert loaded(text).manifest.train.swift == {"neftune_noise_alpha": 5, "x": {"y": [1, 2.5]}}


def test_the_manifest_blocks_plugins_before_they_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "bad_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugin\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text("[coordcore.v1]\nbad = bad_plugin\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    Path("m.toml").write_text(PLAIN + '[plugins]\nblock = ["Bad_Plugin"]\n')
    with pytest.raises(ManifestError, match="plugin bad-plugin is blocked"):
        load("m.toml")


def test_defaults_and_factories_of_a_config_are_those_of_its_class() -> None:
    @attrs.frozen(kw_only=True)
    class Config:
        size: int = option(default=2, help="size")
        double: int = attrs.field(default=attrs.Factory(lambda self: 2 * self.size, takes_self=True))

    plugins = found(
        EntryPoint(plugin=offering(kinds.DATA, component("plain_text"))),
        EntryPoint(distribution="two", plugin=offering(kinds.LOSS, component("x", Config))),
    )
    Path("m.toml").write_text(PLAIN.replace("text_ce]", "x]\nsize = 4"))

    assert load("m.toml", (), plugins).manifest.of(kinds.LOSS)[0].config == Config(size=4, double=8)


def test_a_validator_may_look_at_the_neighbours_of_its_key() -> None:
    def below_high(instance: Any, _attribute: Any, value: int) -> None:
        if value > instance.high:
            raise ValueError(f"must be at most high ({instance.high})")

    @attrs.frozen(kw_only=True)
    class Config:
        low: int = option(default=0, validator=below_high, help="low")
        high: int = option(default=9, help="high")

    plugins = found(
        EntryPoint(plugin=offering(kinds.DATA, component("plain_text"))),
        EntryPoint(distribution="two", plugin=offering(kinds.LOSS, component("x", Config))),
    )

    def complaint(lines: str) -> str:
        Path("m.toml").write_text(PLAIN.replace("text_ce]", "x]\n" + lines))
        with pytest.raises(ManifestError) as caught:
            load("m.toml", (), plugins)
        return str(caught.value)

    assert complaint("low = 12") == "m.toml:5: loss.x.low: must be at most high (9), got 12"
    # The neighbour is itself wrong: only that is reported.
    assert complaint('low = 12\nhigh = "x"') == "m.toml:6: loss.x.high: must be an integer, got 'x'"
