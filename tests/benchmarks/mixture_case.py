"""The examples of a mixture beside those of its sources, read one by one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from builder_rows import one_core
from measure import Case, Reach, Setting, Variant

from coordcore import BuildContext, kinds
from coordcore.manifest import load
from coordcore.quantisation import DEFAULT_QUANTISATION

RECORDS = 400
WEIGHTS = {"photos": 3.0, "drawings": 1.0}


def write_sources(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """Settings of `coord_jsonl` by source, each a file of `count` records of one picture of COCO's size."""
    from PIL import Image

    Image.effect_noise((640, 480), 60).convert("RGB").save(folder / "picture.jpg")
    settings = {}
    for name in WEIGHTS:
        objects = [{"desc": name, "bbox_2d": [number, 10, number + 300, 400]} for number in range(7)]
        record = {"images": ["picture.jpg"], "width": 640, "height": 480, "objects": objects}
        (folder / f"{name}.jsonl").write_text((json.dumps(record) + "\n") * count, encoding="utf-8")
        settings[name] = {"train": str(folder / f"{name}.jsonl")}
    return settings


def variants(setting: Setting) -> Mapping[str, Variant]:
    """An epoch of two sources with weights, and as many records of the two alone. A picture is opened for each."""
    scratch = tempfile.TemporaryDirectory(prefix="coordcore-mixture-", ignore_cleanup_errors=True)
    folder, count = Path(scratch.name), setting.size(RECORDS, 50)
    settings = write_sources(folder, count)
    sources = {
        name: {"builder": "coord_jsonl", "weight": weight, "settings": settings[name]}
        for name, weight in WEIGHTS.items()
    }
    shared = {"model": {"base": str(folder)}, "loss": {"text_ce": {}}}
    context = BuildContext(run_dir=folder, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    built = []
    for data in ({"mixture": {"sources": sources}}, *({"coord_jsonl": settings[name]} for name in WEIGHTS)):
        path = folder / "manifest.toml"
        path.write_text(tomli_w.dumps({**shared, "data": data}), encoding="utf-8")
        (chosen,) = load(path).manifest.of(kinds.DATA)
        built.append(chosen.component.build(chosen.config, context).train())
    mixture, *alone = built

    @one_core()
    def mixed() -> None:
        assert scratch  # which the sources' files lie in
        for index in range(len(mixture)):
            mixture.in_epoch(1, index)

    @one_core()
    def each() -> None:
        for source in alone:
            for index in range(count):
                source[index]

    return {"ours": mixed, "its sources alone": each}


CASES = [
    Case(
        name="mixture",
        title="an epoch of a mixture of two files by weight, one core",
        build=variants,
        memory=False,
        devices=["cpu"],
        reaches=[Reach(what="time", against="its sources alone", at_most=1.1, text="<= 1.1x the time")],
    )
]
