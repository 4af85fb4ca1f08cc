"""The how-to of the small kinds: each plugin on the page passes the kit and does in a run what the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import support
import written_plugins
from typer.testing import CliRunner

from coordcore.cli import app
from coordcore.testing import checks_for

PAGE = Path(__file__).parents[2] / "docs/how-to/write-other-plugins.md"
PACKAGES = ("rates_by_part", "row_order", "count_labels")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    blocks = dict(re.findall(r"```python\n# src/(\w+)/plugin\.py\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert tuple(blocks) == PACKAGES
    site = tmp_path_factory.mktemp("site")
    with (
        written_plugins.installed(site / "a", "rates_by_part", {"plugin.py": blocks["rates_by_part"]}),
        written_plugins.installed(site / "b", "row_order", {"plugin.py": blocks["row_order"]}),
        written_plugins.installed(site / "c", "count_labels", {"plugin.py": blocks["count_labels"]}),
    ):
        yield


@pytest.mark.parametrize(
    ("package", "hook", "kind"),
    [("rates_by_part", "coordcore_optimizers", "optimizer"), ("row_order", "coordcore_evaluators", "eval")],
)
def test_the_component_passes_the_kit(package: str, hook: str, kind: str) -> None:
    [component] = getattr(import_module(f"{package}.plugin"), hook)()
    for check in checks_for(kind):
        if check.__name__ != "check_imports_no_torch":  # in a process of its own, which lacks the page's package
            check(component)


def test_the_optimizer_and_the_evaluator_in_a_run(tmp_path: Path, coord_base: Path) -> None:
    run = support.train(
        tmp_path,
        coord_base,
        data={"fake_boxes": {"validation": 2}},
        optimizer={"rates_by_part": {"factors": {"rows": 10.0}}},
        eval={"row_order": {}},
        output={"merge": True},
        train={"steps": 2, "learning_rate": 1e-3, "schedule": "constant", "warmup": 0.0},
    )
    rates = {key: value for key, value in support.metrics(run)[0].items() if key.startswith("lr/")}
    assert rates == {"lr/llm": 1e-3, "lr/rows": 1e-2}
    found = json.loads((run.path / "eval/row_order/metrics.json").read_text())
    assert list(found) == ["neighbour_cosine"]
    assert -1 <= found["neighbour_cosine"] <= 1


def test_the_command_counts_and_tells_the_line_of_a_wrong_record(tmp_path: Path) -> None:
    record = {"images": ["a.png"], "width": 9, "height": 9}
    objects = [{"desc": desc, "bbox_2d": [1, 2, 3, 4]} for desc in ("cup", "dog", "cup")]
    (tmp_path / "good.jsonl").write_text(json.dumps({**record, "objects": objects}) + "\n")
    (tmp_path / "bad.jsonl").write_text(json.dumps({**record, "objects": objects, "objcets": 1}) + "\n")
    runner = CliRunner()
    good = runner.invoke(app, ["count_labels", str(tmp_path / "good.jsonl")])
    assert good.output.split() == ["2", "cup", "1", "dog"]
    bad = runner.invoke(app, ["count_labels", str(tmp_path / "bad.jsonl")])
    assert bad.exit_code == 2
    assert f"{tmp_path / 'bad.jsonl'}:1: " in bad.output
