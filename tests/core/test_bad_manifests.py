"""One function per wrong manifest: it makes the mistake, and its docstring is everything the user reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from fakes import EntryPoint, component, found, offering, refusal, usual

from coordcore import kinds
from coordcore.manifest import ManifestError, load

pytestmark = pytest.mark.usefixtures("usual_files")

GOOD = """\
manifest_version = 1
requires = ["packaging>=20"]

[model]
base = "base"

[data.boxes]
train = "boxes.jsonl"

[loss.text_ce]

[loss.fuzzy]
sigma = 2.0

[train]
steps = 10
"""

Mistake = Callable[[str], str]
MISTAKES: list[Mistake] = []


def mistake(function: Mistake) -> Mistake:
    MISTAKES.append(function)
    return function


def test_the_manifest_without_a_mistake_loads() -> None:
    Path("m.toml").write_text(GOOD)

    assert [row.path for row in load("m.toml", (), usual()).manifest.selected] == [
        "data.boxes", "format.coordjson", "template.plain", "loss.text_ce", "loss.fuzzy", "optimizer.adamw",
    ]  # fmt: skip


# --- the file -------------------------------------------------------------------------------------------------------


@mistake
def not_toml(text: str) -> str:
    """m.toml:13: not valid TOML: invalid value (column 9)"""
    return text.replace("sigma = 2.0", "sigma = two")


@mistake
def a_key_twice(text: str) -> str:
    """m.toml:17: not valid TOML: a key that is there already; keep one of the two (column 11)"""
    return text + "steps = 11\n"


@mistake
def newer_version(text: str) -> str:
    """m.toml:1: manifest_version: this coordcore reads version 1, got 2; update coordcore"""
    return text.replace("manifest_version = 1", "manifest_version = 2")


@mistake
def impossible_version(text: str) -> str:
    """m.toml:1: manifest_version: this coordcore reads version 1, got 0; write 1"""
    return text.replace("manifest_version = 1", "manifest_version = 0")


@mistake
def version_as_text(text: str) -> str:
    """m.toml:1: manifest_version: must be an integer, got '1'; write it without quotes"""
    return text.replace("manifest_version = 1", 'manifest_version = "1"')


@mistake
def unknown_section(text: str) -> str:
    """m.toml:18: tunner: unknown section; did you mean 'tuner'?"""
    return text + "\n[tunner]\nrank = 3\n"


@mistake
def unknown_top_level_key(text: str) -> str:
    """m.toml:1: seed: unknown key; known: coords, data, eval, format, launch, loss, manifest_version, model, name, \
optimizer, output, plugins, requires, surgery, template, train, tuner, vocab"""
    return "seed = 1\n" + text


@mistake
def section_that_is_no_table(text: str) -> str:
    """m.toml:1: train: must be a table, got 10"""
    return "train = 10\n" + text.replace("[train]\nsteps = 10\n", "")


@mistake
def no_model(text: str) -> str:
    """m.toml: model.base: required key is missing: checkpoint folder (relative to this file), \
'package:NAME/FOLDER' for one shipped in an installed package, or a hub id"""
    return text.replace('[model]\nbase = "base"\n', "")


@mistake
def name_that_is_no_folder(text: str) -> str:
    """m.toml:1: name: must be usable as a folder name, got '../runs'"""
    return 'name = "../runs"\n' + text


# --- requirements ---------------------------------------------------------------------------------------------------


@mistake
def requirement_not_installed(text: str) -> str:
    """m.toml:2: requires[1]: coordcore-nowhere is not installed; pip install 'coordcore-nowhere>=1'"""
    return text.replace('"packaging>=20"', '"packaging>=20", "coordcore-nowhere>=1"')


@mistake
def requirement_that_is_none(text: str) -> str:
    """m.toml:2: requires[0]: not a requirement like "coordcore-soft-ce-w1>=0.1": 'packaging => 20'"""
    return text.replace("packaging>=20", "packaging => 20")


@mistake
def requirement_under_no_condition(text: str) -> str:
    """m.toml:2: requires[0]: its condition says nothing here: os_name ~= "x"; write another, or none"""
    return text.replace('"packaging>=20"', "\"packaging>=20; os_name ~= 'x'\"")


@mistake
def requirement_as_string(text: str) -> str:
    """m.toml:2: requires: must be an array, each a string, got 'packaging'"""
    return text.replace('["packaging>=20"]', '"packaging"')


# --- components -----------------------------------------------------------------------------------------------------


@mistake
def unknown_loss(text: str) -> str:
    """m.toml:18: loss.huber: no plugin offers this loss; available: fuzzy, text_ce"""
    return text + "\n[loss.huber]\ndelta = 1\n"


@mistake
def misspelt_loss(text: str) -> str:
    """m.toml:12: loss.fuzy: no plugin offers this loss; did you mean 'fuzzy'? available: fuzzy, text_ce"""
    return text.replace("[loss.fuzzy]", "[loss.fuzy]")


@mistake
def no_data_builder(text: str) -> str:
    """m.toml: data: the run needs a data builder: add [data.<name>]; available: boxes, plain_text"""
    return text.replace('[data.boxes]\ntrain = "boxes.jsonl"\n', "")


@mistake
def two_data_builders(text: str) -> str:
    """m.toml:18: data.plain_text: a run has one data builder, this names boxes and plain_text; keep one"""
    return text + "\n[data.plain_text]\n"


@mistake
def no_loss(text: str) -> str:
    """m.toml: loss: the run needs a loss: add [loss.<name>]; available: fuzzy, text_ce"""
    return text.replace("[loss.text_ce]\n", "").replace("[loss.fuzzy]\nsigma = 2.0\n", "")


@mistake
def loss_without_a_name(text: str) -> str:
    """m.toml:11: loss.weight: must be a table that names a loss, as [loss.fuzzy] does; got 3"""
    return text.replace("[loss.text_ce]\n", "[loss]\nweight = 3\n")


@mistake
def loss_as_a_value(text: str) -> str:
    """m.toml:1: loss: must be a table for each loss, as in [loss.fuzzy]; got 'text_ce'"""
    return 'loss = "text_ce"\n' + no_loss(text)


@mistake
def array_of_losses(text: str) -> str:
    """m.toml:10: loss.text_ce: must be a table that names a loss, as [loss.fuzzy] does; got [a table]"""
    return text.replace("[loss.text_ce]", "[[loss.text_ce]]")


# --- keys -----------------------------------------------------------------------------------------------------------


@mistake
def misspelt_key(text: str) -> str:
    """m.toml:13: loss.fuzzy.sigm: unknown key; did you mean 'sigma'?"""
    return text.replace("sigma", "sigm")


@mistake
def key_of_nothing(text: str) -> str:
    """m.toml:11: loss.text_ce.zzz: unknown key; known: coord_positions, weight"""
    return text.replace("[loss.text_ce]\n", "[loss.text_ce]\nzzz = 1\n")


@mistake
def required_key_missing(text: str) -> str:
    """m.toml:7: data.boxes.train: required key is missing: records to train on"""
    return text.replace('train = "boxes.jsonl"\n', "")


@mistake
def out_of_range(text: str) -> str:
    """m.toml:13: loss.fuzzy.sigma: must be > 0, got -1.0"""
    return text.replace("2.0", "-1.0")


@mistake
def not_finite(text: str) -> str:
    """m.toml:13: loss.fuzzy.sigma: must be finite, got nan"""
    return text.replace("2.0", "nan")


@mistake
def bool_in_quotes(text: str) -> str:
    """m.toml:13: loss.fuzzy.clip: must be true or false, got 'false'; write it without quotes"""
    return text.replace("sigma = 2.0", 'clip = "false"')


@mistake
def bool_as_number(text: str) -> str:
    """m.toml:13: loss.fuzzy.clip: must be true or false, got 0"""
    return text.replace("sigma = 2.0", "clip = 0")


@mistake
def fraction_for_an_integer(text: str) -> str:
    """m.toml:16: train.steps: must be an integer, got 1000.9"""
    return text.replace("steps = 10", "steps = 1000.9")


@mistake
def bool_for_an_integer(text: str) -> str:
    """m.toml:16: train.steps: must be an integer, got true"""
    return text.replace("steps = 10", "steps = true")


@mistake
def bool_for_a_number(text: str) -> str:
    """m.toml:13: loss.fuzzy.sigma: must be a number, got true"""
    return text.replace("2.0", "true")


@mistake
def number_in_quotes(text: str) -> str:
    """m.toml:13: loss.fuzzy.sigma: must be a number, got '1e-4'; write it without quotes"""
    return text.replace("2.0", '"1e-4"')


@mistake
def number_for_a_string(text: str) -> str:
    """m.toml:5: model.base: must be a string, got 3; write it in quotes"""
    return text.replace('"base"', "3")


@mistake
def empty_string(text: str) -> str:
    """m.toml:5: model.base: must not be empty"""
    return text.replace('"base"', '""')


@mistake
def not_a_choice(text: str) -> str:
    """m.toml:8: data.boxes.mode: must be one of 'dense', 'summary', got 'sparse'"""
    return text.replace("[data.boxes]\n", '[data.boxes]\nmode = "sparse"\n')


@mistake
def not_a_member(text: str) -> str:
    """m.toml:13: loss.fuzzy.scale: must be one of 'linear', 'log', got 'LOG'"""
    return text.replace("sigma = 2.0", 'scale = "LOG"')


@mistake
def not_in_range(text: str) -> str:
    """m.toml:13: loss.fuzzy.steps: must be in range(1, 10), got 10"""
    return text.replace("sigma = 2.0", "steps = 10")


@mistake
def string_for_an_array(text: str) -> str:
    """m.toml:13: loss.fuzzy.names: must be an array, each a string, got 'abc'"""
    return text.replace("sigma = 2.0", 'names = "abc"')


@mistake
def wrong_element(text: str) -> str:
    """m.toml:15: loss.fuzzy.names[1]: must be a string, got 7; write it in quotes"""
    return text.replace("sigma = 2.0", 'names = [\n  "a",\n  7,\n]')


@mistake
def too_few_elements(text: str) -> str:
    """m.toml:13: loss.fuzzy.names: must not be empty"""
    return text.replace("sigma = 2.0", "names = []")


@mistake
def too_many_elements(text: str) -> str:
    """m.toml:13: loss.fuzzy.names: length must be <= 3, got 4"""
    return text.replace("sigma = 2.0", 'names = ["a", "b", "c", "d"]')


@mistake
def pair_of_three(text: str) -> str:
    """m.toml:13: loss.fuzzy.pair: must be an array of 2: an integer, a number, got [1, 2, 3]"""
    return text.replace("sigma = 2.0", "pair = [1, 2, 3]")


@mistake
def neither_of_two_types(text: str) -> str:
    """m.toml:13: loss.fuzzy.either: must be an integer or a string, got 0.5"""
    return text.replace("sigma = 2.0", "either = 0.5")


@mistake
def wrong_value_in_a_table(text: str) -> str:
    """m.toml:13: loss.fuzzy.parts."my part": must be a number, got 'big'"""
    return text.replace("sigma = 2.0", 'parts = { "my part" = "big" }')


@mistake
def wrong_key_in_an_inner_table(text: str) -> str:
    """m.toml:15: loss.fuzzy.gate.weight: must be >= 0, got -1.0
    m.toml:16: loss.fuzzy.gate.soft: unknown key; known: hard, weight"""
    return text.replace("sigma = 2.0", "\n[loss.fuzzy.gate]\nweight = -1\nsoft = 2")


@mistake
def keys_that_contradict_each_other(text: str) -> str:
    """m.toml:12: loss.fuzzy: low must be at most high (9), got 12"""
    return text.replace("sigma = 2.0", "low = 12")


@mistake
def rank_of_no_node(text: str) -> str:
    """m.toml:18: launch: node_rank must be below nnodes (2), got 2"""
    return text + "\n[launch]\nnnodes = 2\nnode_rank = 2\n"


@mistake
def beta_above_one(text: str) -> str:
    """m.toml:17: train.betas: must be < 1, got 2.0"""
    return text + "betas = [0.9, 2]\n"


@mistake
def unknown_quantisation(text: str) -> str:
    """m.toml:19: coords.quantisation: unknown quantisation 'nearest'; did you mean 'nearest_999'?"""
    return text + '\n[coords]\nquantisation = "nearest"\n'


@mistake
def block_of_a_number(text: str) -> str:
    """m.toml:19: plugins.block[0]: must be a string, got 3; write it in quotes"""
    return text + "\n[plugins]\nblock = [3]\n"


@mistake
def several_mistakes_come_in_the_order_of_the_file(text: str) -> str:
    """m.toml:13: loss.fuzzy.sigma: must be > 0, got 0.0
    m.toml:14: loss.fuzzy.names: must be an array, each a string, got 3
    m.toml:17: train.steps: must be > 0, got 0
    m.toml:18: train.stepz: unknown key; did you mean 'steps'?"""
    return text.replace("2.0", "0.0\nnames = 3").replace("steps = 10", "steps = 0\nstepz = 1")


@mistake
def missing_files_come_with_the_rest(text: str) -> str:
    """m.toml:8: data.boxes.train: no such file: {cwd}/bxes.jsonl
    m.toml:9: data.boxes.images[0]: no such file: {cwd}/photos
    m.toml:14: loss.fuzzy.sigma: must be > 0, got 0.0"""
    return text.replace('"boxes.jsonl"', '"bxes.jsonl"\nimages = ["photos", "base"]').replace("2.0", "0.0")


@mistake
def launch_file_missing(text: str) -> str:
    """m.toml:16: train.steps: must be > 0, got 0
    m.toml:19: launch.deepspeed: neither one of zero0, zero1, zero2, zero2_offload, zero3, zero3_offload nor a file: \
{cwd}/zero4"""
    return text.replace("steps = 10", "steps = 0") + '\n[launch]\ndeepspeed = "zero4"\n'


@pytest.mark.parametrize("make", MISTAKES, ids=lambda item: item.__name__)
def test_the_user_reads(make: Mistake) -> None:
    expected = (make.__doc__ or "").replace("\n    ", "\n").replace("{cwd}", str(Path.cwd()))

    assert expected == refusal(make(GOOD))


# --- mistakes on the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss.fuzzy.sigma=abc", "--set loss.fuzzy.sigma=abc: loss.fuzzy.sigma: must be a number, got 'abc'"),
        ("train.steps=1e3", "--set train.steps=1e3: train.steps: must be an integer, got 1000.0"),
        ("name=2024", "--set name=2024: name: must be a string, got 2024; write it in quotes"),
        ("train.stps=3", "--set train.stps=3: train.stps: unknown key; did you mean 'steps'?"),
        ("train", "--set train: must be KEY=VALUE, as in --set train.steps=10"),
        ("a b=3", "--set a b=3: must be KEY=VALUE, as in --set train.steps=10"),
        ("=3", "--set =3: must be KEY=VALUE, as in --set train.steps=10"),
        ("extends=x.toml", "--set extends=x.toml: extends: can only be set in a file"),
        ("train=3", "--set train=3: train: must be a table, got 3"),
        (
            "loss.fuzzy.names=[1]",
            "--set loss.fuzzy.names=[1]: loss.fuzzy.names[0]: must be a string, got 1; write it in quotes",
        ),
        (
            "data.boxs.x=1",
            "--set data.boxs.x=1: data.boxs: no plugin offers this data builder; "
            "did you mean 'boxes'? available: boxes, plain_text",
        ),
        (
            "drop=loss.fuzy",
            "--set drop=loss.fuzy: drop: there is no 'loss.fuzy' to drop below this manifest; "
            "did you mean 'loss.fuzzy'?",
        ),
    ],
)
def test_a_wrong_override_is_quoted(override: str, expected: str) -> None:
    assert expected == refusal(GOOD, override)


def test_overrides_are_reported_after_the_file() -> None:
    expected = "m.toml:16: train.steps: must be > 0, got 0\n--set train.seed=-1: train.seed: must be >= 0, got -1"

    assert expected == refusal(GOOD.replace("steps = 10", "steps = 0"), "train.seed=-1")


# --- mistakes outside the text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none.toml", "none.toml: cannot be read: no such file or directory"),
        ("base", "base: cannot be read: is a directory"),
    ],
)
def test_a_file_that_cannot_be_read(name: str, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(name, (), usual())

    assert str(caught.value) == expected


def test_bytes_that_are_no_text() -> None:
    Path("m.toml").write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ManifestError) as caught:
        load("m.toml", (), usual())

    assert str(caught.value) == "m.toml:2: not UTF-8: byte 0xff"


def test_an_absolute_name_inside_the_working_directory_is_shown_short() -> None:
    Path("m.toml").write_text("[model")
    with pytest.raises(ManifestError) as caught:
        load(Path("m.toml").absolute(), (), usual())

    assert str(caught.value) == "m.toml:1: not valid TOML: expected ']' at the end of a table declaration (column 7)"


def test_a_name_outside_the_working_directory_is_shown_as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.toml").write_text("[model")
    monkeypatch.chdir("base")
    with pytest.raises(ManifestError) as caught:
        load("../m.toml", (), usual())

    assert str(caught.value).startswith("../m.toml:1: ")


def test_a_plugin_that_is_not_there_may_be_one_that_failed() -> None:
    def broken() -> None:
        raise ImportError("libfoo.so not found")

    plugins = found(
        EntryPoint(distribution="made-data", plugin=offering(kinds.DATA, component("plain_text"))),
        EntryPoint(distribution="made-broken", plugin=broken),
        EntryPoint(distribution="made-old", requires=["coordcore>=7"]),
        EntryPoint(distribution="made-quiet"),
        block=("made-quiet",),
    )
    Path("m.toml").write_text('[model]\nbase = "base"\n[data.plain_text]\n[loss.huber]\n')
    with pytest.raises(ManifestError) as caught:
        load("m.toml", (), plugins)

    assert str(caught.value) == (
        "m.toml:4: loss.huber: no plugin offers this loss; available: text_ce; "
        "plugin made-broken failed to load: ImportError: libfoo.so not found; "
        "plugin made-old was not loaded: needs coordcore>=7, this is 0.1.0; "
        "plugin made-quiet is blocked; see coordcore plugins"
    )


def test_a_name_offered_twice_is_an_error_only_for_who_names_it() -> None:
    plugins = found(
        EntryPoint(distribution="a", plugin=offering(kinds.LOSS, component("same"))),
        EntryPoint(distribution="b", plugin=offering(kinds.LOSS, component("same"))),
        EntryPoint(distribution="c", plugin=offering(kinds.DATA, component("plain_text"))),
    )
    without = '[model]\nbase = "base"\n[data.plain_text]\n[loss.text_ce]\n'
    Path("m.toml").write_text(without)
    load("m.toml", (), plugins)
    Path("m.toml").write_text(without + "[loss.same]\n")
    with pytest.raises(ManifestError) as caught:
        load("m.toml", (), plugins)

    assert str(caught.value) == ("m.toml:5: loss.same: offered by a and b; uninstall one or list it in [plugins] block")


def test_an_installed_version_that_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")

    assert refusal(GOOD) == (
        "m.toml:2: requires[0]: needs packaging>=20, installed is 0.1.0; pip install 'packaging>=20'"
    )


def test_a_requirement_for_another_platform_is_passed_over() -> None:
    Path("m.toml").write_text(GOOD.replace("packaging>=20", "nowhere; sys_platform == 'plan9'"))

    assert load("m.toml", (), usual()).manifest.requires == ("nowhere; sys_platform == 'plan9'",)


def test_a_plugin_with_a_type_no_manifest_can_hold_is_named_as_such() -> None:
    @attrs.frozen(kw_only=True)
    class Config:
        size: complex = 1j

    plugins = found(
        EntryPoint(plugin=offering(kinds.DATA, component("plain_text"))),
        EntryPoint(distribution="odd", plugin=offering(kinds.LOSS, component("odd", Config))),
    )
    Path("m.toml").write_text('[model]\nbase = "base"\n[data.plain_text]\n[loss.odd]\nsize = 3\n')
    with pytest.raises(ManifestError) as caught:
        load("m.toml", (), plugins)

    assert str(caught.value) == (
        "m.toml:5: loss.odd.size: the plugin declares this key as <class 'complex'>, which no manifest value can be"
    )
