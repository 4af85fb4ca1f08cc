"""Manifests that nobody means: numbers beyond reason, deep nesting, control characters, values without an end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fakes import refusal, usual

from coordcore import InputError, Problem
from coordcore.errors import RunError, printable
from coordcore.manifest import load

pytestmark = pytest.mark.usefixtures("usual_files")

GOOD = '[model]\nbase = "base"\n\n[data.boxes]\ntrain = "boxes.jsonl"\n\n[loss.fuzzy]\nsigma = 2.0\n'


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=2000000000", "must be <= 1000000000, got 2000000000"),
        (f"train.steps={10**30}", f"must be an integer of 64 bits, as TOML's are, got {10**30}"),
        (f"train.batch_size={10**20}", f"must be an integer of 64 bits, as TOML's are, got {10**20}"),
        ("train.batch_size=1000000", "must be <= 65536, got 1000000"),
        ("train.weight_decay=4e9", "must be <= 100, got 4000000000.0"),
        ("train.max_grad_norm=1e-300", "must be >= 1e-09, got 1e-300"),
        ("train.learning_rate=1e5", "must be <= 100, got 100000.0"),
        ("tuner.rank=1000000000", "must be <= 65536, got 1000000000"),
        ("tuner.dropout=1.0", "must be < 1, got 1.0"),
        ("launch.master_addr='no address'", "must be a host name or an IP address, got 'no address'"),
        ("launch.master_addr='999.1.1.1'", "must be a host name or an IP address, got '999.1.1.1'"),
        ("launch.master_addr='a..b'", "must be a host name or an IP address, got 'a..b'"),
        ("loss.text_ce.weight=1e300", "must be <= 1000000.0, got 1e+300"),
        ("launch.master_addr='-x'", "must be a host name or an IP address, got '-x'"),
        ("launch.nproc_per_node=5000", "must be <= 1024, got 5000"),
        ("name='-x'", "must be usable as a folder name, got '-x'"),
        (r'name="a\u001bb"', r"must be usable as a folder name, got 'a\x1bb'"),
        (r'model.base="a\u0000b"', r"must not hold control characters, got 'a\x00b'"),
        (r'train.optim="a\u0007"', r"must not hold control characters, got 'a\x07'"),
    ],
)
def test_what_nobody_means_is_refused(override: str, message: str) -> None:
    assert refusal(GOOD, override) == f"--set {override}: {override.partition('=')[0]}: {message}"


@pytest.mark.parametrize("address", ["127.0.0.1", "node-0.cluster.local", "10.0.0.3", "::1", "fe80::1%eth0", "gpu_1"])
def test_addresses_are_taken(address: str) -> None:
    Path("m.toml").write_text(GOOD)

    assert load("m.toml", [f"launch.master_addr='{address}'"], usual()).manifest.launch.master_addr == address


TOO_DEEP = "more than 50 tables or arrays inside each other; write it flatter"


@pytest.mark.parametrize("levels", [60, 500, 3_000, 100_000])
@pytest.mark.parametrize(
    "line",
    [
        lambda n: f"x = {'[' * n}{']' * n}",
        lambda n: f"x = {'[' * n}",
        lambda n: f"x = {'{a = ' * n}1{'}' * n}",
        lambda n: f"{'a.' * n}a = 1",
        lambda n: f"[{'a.' * n}a]",
    ],
    ids=["arrays", "open", "tables", "key", "header"],
)
def test_what_is_nested_too_deep_is_refused_within_a_second(line, levels: int) -> None:
    if line(3) == "x = [[[" and levels < 400:
        pytest.skip("tomli says that it has no end")
    started = time.monotonic()

    assert refusal(f"{GOOD}\n[train.swift]\n{line(levels)}\n") == f"m.toml:11: {TOO_DEEP}\n".rstrip()
    assert time.monotonic() - started < 1


def test_many_long_keys_are_refused_within_a_second() -> None:
    keys = "\n".join(f"a{number}{'.b' * 899} = 1" for number in range(500))
    started = time.monotonic()

    assert refusal(f"{GOOD}\n[train.swift]\n{keys}\n") == f"m.toml:11: {TOO_DEEP}"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("override", [f"train.swift{'.a' * 900}=1", f"train.swift.a={'[' * 900}{']' * 900}"])
def test_overrides_may_not_be_deep_either(override: str) -> None:
    assert refusal(GOOD, override).endswith(f": {TOO_DEEP}")


def test_fifty_levels_are_taken() -> None:
    Path("m.toml").write_text(f"{GOOD}\n[train.swift]\nx = {'[' * 40}{']' * 40}\n")

    assert load("m.toml", (), usual()).manifest.train.swift["x"] != []


def test_files_that_extend_each_other_without_end_are_refused() -> None:
    for number in range(1100):
        Path(f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    Path("1100.toml").write_text(GOOD)

    assert (
        refusal('extends = "0.toml"\n') == "30.toml:1: extends: more than 32 files extend each other; put some into one"
    )


def test_integers_of_thousands_of_digits() -> None:
    assert "got an integer of 20000 bits" in refusal(f"manifest_version = 0x{'f' * 5000}\n{GOOD}")
    assert refusal(f"{GOOD}\n[train]\nsteps = {'9' * 5000}\n") == "m.toml:11: a number has more than 4300 digits"
    assert refusal(f"{GOOD}\n[train]\nsteps = 0x{'f' * 20_000}\n") == (
        "m.toml:11: train.steps: must be an integer of 64 bits, as TOML's are, got an integer of 80000 bits"
    )
    assert "train.steps: must be an integer, got '999" in refusal(GOOD, f"train.steps={'9' * 5000}")


def test_a_long_value_is_cut_wherever_it_is_echoed() -> None:
    long = "x" * 1_000_000

    for text, overrides in [
        (f'{GOOD}\n[train]\ndevice = "{long}"\n', []),
        (f"{GOOD}\n[train]\n{long} = 1\n", []),
        (f'{GOOD}\n[coords]\nquantisation = "{long}"\n', []),
        (GOOD, [f"train.device={long}"]),
        (GOOD, [f"{long}=1"]),
    ]:
        message = refusal(text, *overrides)
        assert len(message) < 4_500
        assert "characters)" in message


def test_control_characters_never_reach_the_terminal() -> None:
    escaped = r"\x1b[31m"

    assert escaped in refusal(GOOD, "tuner.\x1b[31m=1")
    assert str(InputError("a\x1b[31mb")) == f"a{escaped}b"
    assert str(RunError("a\x9b31mb")) == r"a\x9b31mb"
    assert str(Problem(path="x", message="a\u202eb", file="\udcff.toml", line=3)) == r"\udcff.toml:3: x: a\u202eb"


def test_line_breaks_and_other_scripts_stay() -> None:
    assert printable("zwei\nZeilen, 日本語、 é\u00a0…") == "zwei\nZeilen, 日本語、 é\u00a0…"


def test_a_text_of_brackets_is_a_wrong_value() -> None:
    assert refusal(f"{GOOD}\n[train]\nsteps = '{'[' * 2000}'\n").startswith(
        "m.toml:11: train.steps: must be an integer"
    )
