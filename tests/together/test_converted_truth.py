"""What `coordcore data convert` writes, `coordcore eval` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coco import ANNOTATIONS
from coordcore.quantisation import QUANTISATIONS
from coordcore_data.convert.conversion import Conversion, convert
from coordcore_detection.evaluate.truth_sources import truth_from_records


@pytest.mark.parametrize("space", ["pixel", "norm1", "bin"])
def test_evaluation_reads_what_is_converted(tmp_path: Path, space: str) -> None:
    records, spec = tmp_path / "records.jsonl", QUANTISATIONS["nearest_999"]
    written = {"space": space, "quantisation": spec if space == "bin" else None}
    convert(Conversion(source=ANNOTATIONS, output=records, source_format="coco", **written))
    truths = truth_from_records(records, space=space, quantisation=spec, question="?")
    images = json.loads(ANNOTATIONS.read_text())["images"]

    assert [truth.key for truth in truths] == [image["file_name"] for image in images]
    assert (sum(len(truth.boxes) for truth in truths), sum(int(truth.crowd.sum()) for truth in truths)) == (839, 9)
