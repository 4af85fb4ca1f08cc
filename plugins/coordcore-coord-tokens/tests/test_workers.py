"""Several processes: for the check of a large file, and for reading one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordcore import RunError
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens import CoordJsonl, CoordJsonlConfig, JsonlSource
from coordcore_coord_tokens import scan as scan_module
from coordcore_coord_tokens.answer import UNCHANGED, Changes
from coordcore_coord_tokens.checking import Checked, total
from coordcore_coord_tokens.files import Stamp
from coordcore_coord_tokens.folders import FOLDERS
from coordcore_coord_tokens.judging import RecordJudge
from coordcore_coord_tokens.scan import PROCESSES, SHARE, Scan, processes_for, scan

Write = Callable[..., Path]
Build = Callable[..., CoordJsonl]


@pytest.fixture
def in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check small parts in two processes."""
    monkeypatch.setattr(scan_module, "processes_for", lambda size: 2)
    monkeypatch.setattr(scan_module, "PART", 400)


def thin(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "objects": [{"desc": "x", "bbox_2d": [-4, 9, 0.1, 300]}]}


def scanned(path: Path) -> Scan:
    return scan(
        path, CoordJsonlConfig(train=path, space="pixel", outside="clip"), DEFAULT_QUANTISATION, judge=RecordJudge
    )


def test_processes_find_what_one_finds(
    write: Write, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, in_two: None
) -> None:
    wrong = [{**record, "images": ["absent.png"]}, {**record, "width": 0}, record] * 9
    path = write(*wrong, thin(record), *wrong)
    several = scanned(path)
    monkeypatch.setattr(scan_module, "processes_for", lambda size: 1)
    assert several == scanned(path)
    assert [problem.line for problem in several.problems] == [*(n for n in range(1, 28) if n % 3), 29, 30, 32]


def test_processes_count_what_reading_changes(write: Write, record: dict[str, Any], in_two: None) -> None:
    line = {**record, "objects": [{"desc": "x", "poly": [64, 48, 128, 96, 320, 240]}]}
    found = scanned(write(*[record, thin(record), line] * 5))
    assert (found.problems, found.changes) == ((), Changes(5, 5, 5))


def part(folders: dict[str, Stamp | None] | None) -> Checked:
    return Checked(wrong=0, problems=(), changes=UNCHANGED, folders=folders)


A, B = (Stamp(size=0, modified=time, changed=time, inode=1) for time in (1, 2))


@pytest.mark.parametrize(
    ("found", "together"),
    [
        ([{"a": A}, {}, {"b": B}], {"a": A, "b": B}),
        ([{"a": A}, {"a": A}], {"a": A}),
        ([{"a": A}, {"a": B}], {"a": None}),
        ([{"a": None}, {"a": A}], {"a": None}),
        ([{"a": A}, None, {"b": A}], None),
        ([{str(k): A} for k in range(FOLDERS + 1)], None),
    ],
    ids=["different folders", "the same", "changed between", "not at rest", "too many for one", "too many together"],
)
def test_what_processes_know_of_folders(found: list[Any], together: Any) -> None:
    assert total(map(part, found)).folders == together


def test_a_process_that_cannot_live_ends_the_check(
    write: Write, record: dict[str, Any], in_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match=r"^train\.jsonl: a process that checks it ended with status 1; "):
        scanned(write(*[record] * 9))


def test_a_process_that_cannot_start_ends_the_check(
    write: Write, record: dict[str, Any], in_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/absent")
    with pytest.raises(RunError, match=r"^train\.jsonl: cannot start a process to check it: No such file"):
        scanned(write(*[record] * 9))


def test_only_large_files_are_worth_processes() -> None:
    cores = len(os.sched_getaffinity(0))
    assert [processes_for(n * SHARE) for n in (1, 2, 1000)] == [1, min(2, cores), min(PROCESSES, cores)]


def test_a_worker_does_not_import_torch_or_numpy() -> None:
    code = "import sys, coordcore_coord_tokens.workers; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def content(source: JsonlSource) -> str:
    return source[1].messages[-1]["content"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kept", [True, False], ids=["mapped", "in memory"])
def test_a_source_is_read_in_other_processes(
    build: Build, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, method: str, kept: bool
) -> None:
    if kept:
        monkeypatch.setattr("coordcore_coord_tokens.files.AT_REST", -1)
    source = build(record, {**record, "objects": []}).train()
    assert (source.file.lines.index is not None) is kept
    content(source)  # the open file goes along with a fork, and stays behind on a spawn
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(content, [source] * 4) == ['{"objects": []}'] * 4
    assert content(source) == '{"objects": []}'


def test_a_mapped_index_is_pickled_by_name(build: Build, record: dict[str, Any], at_rest: None) -> None:
    small, large = build(record).train(), build(*[record] * 1000).train()
    assert abs(len(pickle.dumps(large)) - len(pickle.dumps(small))) < 10


def test_a_source_outlives_the_cache(build: Build, record: dict[str, Any], at_rest: None, cache: Path) -> None:
    source = build(record, {**record, "objects": []}, record, limit=2).train()
    sent = pickle.dumps(source)
    for file in cache.iterdir():
        file.unlink()
    arrived = pickle.loads(sent)
    assert (len(arrived), content(arrived), content(source)) == (2, '{"objects": []}', '{"objects": []}')
