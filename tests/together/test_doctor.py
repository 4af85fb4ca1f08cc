"""`coordcore doctor` on the demo: everything is well."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import ROOT, coordcore


def test_the_demo_is_healthy(tmp_path: Path) -> None:
    output = coordcore("doctor", f"{ROOT}/docs/examples/shapes.toml", "--json", cwd=tmp_path)
    findings = json.loads(output)["findings"]
    assert [finding for finding in findings if finding["state"] != "ok"] == []
    assert list(tmp_path.iterdir()) == []  # no run folder
