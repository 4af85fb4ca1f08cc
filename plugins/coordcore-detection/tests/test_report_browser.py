"""The report in a real browser, at two widths. test_report.py checks by itself what needs none."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from report_support import full_report

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine; test_report.py checks the same file without one"
)

# The page itself allows no script: a copy of it measures itself once it has loaded, and tells the page around it.
_PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  width: document.documentElement.clientWidth,
  needed: document.documentElement.scrollWidth,
  blank: [...document.images].filter(one => !one.complete || one.naturalWidth === 0).length,
  images: document.images.length,
  narrowest: Math.min(...[...document.images].map(one => one.clientWidth)),
  smallest: Math.min(...[...document.querySelectorAll("p, li, td, figcaption, pre")]
    .map(one => parseFloat(getComputedStyle(one).fontSize))),
}), "*"))</script></body>"""
_AROUND = """<!DOCTYPE html><body><iframe src="probe.html" width="{width}" height="800" style="border: 0"></iframe>
<script>addEventListener("message", event => document.body.textContent = event.data)</script></body>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_report(tmp_path_factory.mktemp("browser"))


def chromium(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    command = [
        BROWSER,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"),
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def measured(report: Path, folder: Path, width: int) -> dict[str, Any]:
    """What the page says of itself in a window of `width` pixels."""
    text = report.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", _PROBE)
    (folder / "probe.html").write_text(text, encoding="utf-8")
    (folder / "around.html").write_text(_AROUND.format(width=width), encoding="utf-8")
    options = ("--dump-dom", "--window-size=1400,1000", "--virtual-time-budget=20000")
    body = re.search(
        r"<body>(.*)</body>", chromium(folder / "around.html", folder / "profile", *options).stdout, re.DOTALL
    )
    assert body is not None
    found: dict[str, Any] = json.loads(html.unescape(body[1]))
    return found


@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_the_window_and_shows_every_image(report: Path, tmp_path: Path, width: int) -> None:
    found = measured(report, tmp_path, width)
    assert found["needed"] <= found["width"] <= width
    assert (found["blank"], found["images"] > 20) == (0, True)
    assert found["narrowest"] >= 200
    assert found["smallest"] >= 12


def test_the_console_stays_empty(report: Path, tmp_path: Path) -> None:
    options = ("--enable-logging=stderr", "--v=0", f"--screenshot={tmp_path / 'page.png'}")
    shown = chromium(report, tmp_path / "profile", *options)
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
    assert (tmp_path / "page.png").stat().st_size > 10_000
