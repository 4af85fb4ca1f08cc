"""A stranger's loss beside the core and the engine, all from wheels: found, described, checked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import coordcore

STRANGER = Path(__file__).parent / "coordcore-huber"


def run(*arguments: str, cwd: Path, expect: int = 0) -> str:
    """The output of the `coordcore` command."""
    command = [str(Path(sys.executable).with_name("coordcore")), *arguments]
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == expect, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", ["coordcore", "coordcore-train", "coordcore-huber"])
def test_installed_from_a_wheel(name: str) -> None:
    text = metadata.distribution(name).read_text("direct_url.json")
    assert text is not None
    origin = json.loads(text)
    assert origin["url"].endswith(".whl")
    assert "archive_info" in origin


def test_the_core_is_not_the_working_tree() -> None:
    assert Path(coordcore.__file__).is_relative_to(sys.prefix)


def test_no_plugin_but_the_engine_is_installed() -> None:
    groups = {point.dist.name for point in metadata.entry_points(group="coordcore.v1") if point.dist}
    named = {dist.name for dist in metadata.distributions() if dist.name.startswith("coordcore-")}
    assert groups | named == {"coordcore-huber", "coordcore-train"}


def test_plugins_lists_it(tmp_path: Path) -> None:
    plugins = json.loads(run("plugins", "--json", cwd=tmp_path))["plugins"]
    [stranger] = [plugin for plugin in plugins if plugin["distribution"] == "coordcore-huber"]
    assert (stranger["version"], stranger["status"]) == ("0.1.0", "ready")
    assert [(component["kind"], component["name"]) for component in stranger["components"]] == [("loss", "coord_huber")]


def test_schema_describes_its_keys(tmp_path: Path) -> None:
    described = json.loads(run("schema", "loss.coord_huber", "--json", cwd=tmp_path))
    text = json.dumps(described)
    assert [key in text for key in ('"weight"', '"delta"', "bins from the target")] == [True, True, True]


def test_the_tutorial_s_manifest_lacks_only_the_demo(tmp_path: Path) -> None:
    shutil.copy(STRANGER / "run.toml", tmp_path)
    *problems, _ = run("check", "run.toml", cwd=tmp_path, expect=2).splitlines()
    assert [problem.split(": ", 2)[1] for problem in problems] == ["requires[0]", "data.shapes"]


def test_a_wrong_value_is_reported_at_its_line(tmp_path: Path) -> None:
    text = (STRANGER / "run.toml").read_text().replace("delta = 20.0", "delta = 0.0")
    (tmp_path / "wrong.toml").write_text(text)
    line = text.splitlines().index("delta = 0.0") + 1
    assert f"wrong.toml:{line}: loss.coord_huber.delta: must be > 0, got 0.0" in run(
        "check", "wrong.toml", cwd=tmp_path, expect=2
    )
