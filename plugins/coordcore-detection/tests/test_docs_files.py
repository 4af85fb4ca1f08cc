"""The reference page of files names every key that predictions and evaluations have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from coordcore.records.answers import Unread
from coordcore_detection.evaluate.results import Result
from coordcore_detection.predict.predictions import Box, Header, Row

PAGE = (Path(__file__).parents[3] / "docs/reference/files.md").read_text(encoding="utf-8")


def keys(section: str) -> set[str]:
    """What stands in the first column of the tables of a section."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`([\w./<>]+)`", row)}


def test_predictions() -> None:
    structs = (Header, Row, Box)
    assert keys("predictions.jsonl") == {name for struct in structs for name in struct.__struct_fields__}
    (told,) = re.findall(r"^\| `unread` \| (.*) \|$", PAGE, flags=re.MULTILINE)
    assert set(Unread.__struct_fields__) <= set(re.findall(r"`(\w+)`", told))


def test_the_row_of_the_page_is_one() -> None:
    (line,) = re.findall(r'^(\{"image": .*\})$', PAGE, flags=re.MULTILINE)
    row = msgspec.json.decode(line.encode(), type=Row)
    assert json.loads(msgspec.json.encode(row)) == json.loads(line)


def test_evaluations() -> None:
    in_rows = {"label", "true_boxes", "predicted_boxes"}
    assert keys("evaluation.json") == set(Result.__struct_fields__)
    assert in_rows <= set(re.findall(r"`(\w+)`", PAGE))
