"""`check` asks ms-swift itself whether it takes the values of `[train.swift]`, once, without training anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import loaded

from coordcore.check import check, notes
from coordcore.manifest import Manifest
from coordcore_train.swift import known
from coordcore_train.swift.trial import _values, refusals

# A made-up ms-swift, which says what it was asked. "other" is wrong beside "number", the base where its config says so.
MADE_UP = """
import dataclasses, json, os, typing
from pathlib import Path

class SftArguments:
    def __init__(self, **values):
        with open(os.environ["ASKED"], "a") as file:
            print(json.dumps({"values": values, "rank": os.environ.get("RANK")}), file=file)
        print("a library that chatters")
        if "wrong" in json.loads(Path(values["model"], "config.json").read_text()):
            raise ValueError("no model")
        if values.get("number", 0) < 0:
            raise ValueError("number must be positive,\\n  not " + str(values["number"]))
        if "number" in values:
            assert "other" not in values
        if "broken" in values:
            os._exit(3)

def get_type_hints(wanted):
    return {"number": int, "other": int, "broken": int, "hub_token": str, "tf32": bool}

typing.get_type_hints = get_type_hints
dataclasses.fields = lambda kind: [type("Field", (), {"name": name}) for name in get_type_hints(kind)]
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the made-up ms-swift writes what it is asked."""
    package = tmp_path / "site" / "swift"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "arguments.py").write_text(MADE_UP)
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    monkeypatch.setenv("ASKED", str(tmp_path / "asked.jsonl"))
    (tmp_path / "asked.jsonl").touch()
    return tmp_path / "asked.jsonl"


def problems(folder: Path, base: Path, swift: dict[str, Any], **train: Any) -> list[str]:
    found = check(loaded(folder, base, train={"swift": swift, **train}))
    version = known.installed_version()
    return [f"{item.path}: {item.message}".replace(f"ms-swift {version}", "ms-swift") for item in found]


def questions(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_argument_that_ms_swift_refuses_is_named(tmp_path: Path, coord_base: Path, asked: Path) -> None:
    assert problems(tmp_path, coord_base, {"number": -1, "zzz": 1}) == [
        "train.swift.number: ms-swift refuses this: ValueError: number must be positive, not -1",
        "train.swift.zzz: ms-swift has no such argument",
    ]


def test_a_bare_assertion_is_told_as_it_stands_there(tmp_path: Path, coord_base: Path, asked: Path) -> None:
    assert problems(tmp_path, coord_base, {"number": 1, "other": 2}) == [
        'train.swift: ms-swift refuses this: AssertionError: assert "other" not in values'
    ]


def test_what_is_taken_is_asked_once(
    tmp_path: Path, coord_base: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")  # a rank that started a process group of its own would wait for ever
    for steps in (3, 4):
        assert problems(tmp_path, coord_base, {"number": 7}, steps=steps) == []
    [question] = questions(asked)
    assert question["rank"] is None
    assert question["values"]["number"] == 7
    assert question["values"]["model_type"] == "qwen3_vl"
    assert (question["values"]["use_cpu"], question["values"]["external_plugins"]) == (True, [])

    assert problems(tmp_path, coord_base, {"number": 8}) == []
    assert problems(tmp_path, coord_base, {"number": 8}, workers=1) == []
    assert len(questions(asked)) == 3


def test_nothing_is_said_of_a_base_that_ms_swift_refuses(tmp_path: Path, coord_base: Path, asked: Path) -> None:
    base = Path(shutil.copytree(coord_base, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"wrong": 1}))
    assert problems(tmp_path, base, {"number": 7}) == []


def test_no_token_is_sent_and_no_gpu_is_missed(tmp_path: Path, coord_base: Path, asked: Path) -> None:
    assert problems(tmp_path, coord_base, {"hub_token": "secret", "tf32": True}, device="auto") == []
    assert questions(asked) == []
    assert problems(tmp_path, coord_base, {"hub_token": "secret", "tf32": True}, device="cpu") == []
    assert [question["values"].get("hub_token") for question in questions(asked)] == [None]


def test_an_ms_swift_that_ends_is_reported(tmp_path: Path, coord_base: Path, asked: Path) -> None:
    assert problems(tmp_path, coord_base, {"broken": 1}) == [
        "train.swift: ms-swift could not be asked about these arguments: no message"
    ]


def test_python_in_the_base_is_not_run_to_ask(tmp_path: Path, coord_base: Path, asked: Path) -> None:
    base = Path(shutil.copytree(coord_base, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.Config"}}))
    run = loaded(tmp_path, base, model={"trust_remote_code": True}, train={"swift": {"number": -1}})
    assert check(run) == []
    assert questions(asked) == []
    assert "train.swift: ms-swift was not asked whether it takes these arguments, because it runs that code" in notes(
        run
    )


# --- ms-swift itself ------------------------------------------------------------------------------------------------

REFUSED = {
    "torch_empty_cache_steps": (0, "must be an integer bigger than 0, got 0"),
    "rope_scaling": ("foo", "AssertionError: assert rope_scaling in"),
    "accelerator_config": ({"bogus": 1}, "unexpected keyword argument 'bogus'"),
    "dataloader_prefetch_factor": (4, "can only be set when data is loaded in a different process"),
    "max_memory": ("x", "JSONDecodeError"),
    "mrl_dims": ("[1]", "AttributeError"),
    "debug": ("x", "is not a valid DebugOption"),
}
TAKEN: dict[str, Any] = {"neftune_noise_alpha": 5, "max_model_len": 8192}


def run_with(folder: Path, base: Path, swift: dict[str, Any]) -> Manifest:
    return loaded(folder, base, train={"swift": swift}).manifest


@pytest.fixture
def _own_environment() -> Iterator[None]:
    """Take back what ms-swift sets in the environment."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.mark.usefixtures("_own_environment")
def test_ms_swift_itself_refuses_and_takes(tmp_path: Path, coord_base: Path) -> None:
    given = {name: value for name, (value, _) in REFUSED.items()}
    found = refusals(_values(run_with(tmp_path, coord_base, given), coord_base, given), [*given])
    assert found.keys() == REFUSED.keys()
    assert [name for name, (_, said) in REFUSED.items() if said not in found[name]] == []
    for name, value in TAKEN.items():
        values = _values(run_with(tmp_path, coord_base, {name: value}), coord_base, {name: value})
        assert refusals(values, [name]) == {}, name
    together = {"fp16": True, "bf16": True}
    values = _values(run_with(tmp_path, coord_base, together), coord_base, together)
    assert "At most one of fp16 and bf16" in str(refusals(values, [*together]))
