"""The data builder beside `builder_reference`: checking a file, reading answers by index, memory by file size."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import builder_reference
from measure import Case, Reach, Setting, Variant

from coordcore import BuildContext
from coordcore.quantisation import DEFAULT_QUANTISATION
from coordcore_coord_tokens.config import CoordJsonlConfig
from coordcore_coord_tokens.plugin import coordcore_data_builders

PEER = "json and plain Python"
RECORDS = 20_000
IMAGES = 100
OBJECTS = 7  # as many as an image of COCO has


class Files:
    """A folder with images (whose content nobody looks at), records, and the builder's cache. Gone with this object."""

    def __init__(self) -> None:
        self.scratch = tempfile.TemporaryDirectory(prefix="coordcore-builder-")
        self.folder = Path(self.scratch.name)
        for number in range(IMAGES):
            (self.folder / f"{number}.jpg").touch()
        os.environ["COORDCORE_CACHE"] = str(self.folder / "cache")

    def records(self, count: int, space: str) -> Path:
        """A file of `count` records, the first thousand of them different."""
        generator = random.Random(0)
        block = [json.dumps(record(generator, space)) + "\n" for _ in range(min(count, 1000))]
        path = self.folder / f"{space}-{count}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for first in range(0, count, len(block)):
                file.writelines(block[: count - first])
        return path

    def forget(self) -> None:
        """Take the builder's index away, and what it knows about files it has checked."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)


def record(generator: random.Random, space: str) -> dict[str, Any]:
    """One image's boxes, in bins or in pixels with two decimals."""
    width, height = generator.randint(300, 640), generator.randint(300, 640)
    objects = []
    for number in range(OBJECTS):
        corners = []
        for side in (width, height):
            start = generator.uniform(0, side / 2)
            corners.append((start, generator.uniform(start + 5, side)))
        box = [corners[0][0], corners[1][0], corners[0][1], corners[1][1]]
        written = [int(value) if space == "bin" else round(value, 2) for value in box]
        objects.append({"desc": f"traffic light {number}", "bbox_2d": written})
    image = f"{generator.randrange(IMAGES)}.jpg"
    return {"images": [image], "width": width, "height": height, "objects": objects}


@contextmanager
def one_core() -> Iterator[None]:
    """This thread on a single core, which also keeps the builder from starting processes."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def opened(path: Path, space: str) -> Any:
    """The training examples of a file, checked."""
    component, *_ = coordcore_data_builders()  # coord_jsonl
    context = BuildContext(run_dir=path.parent, seed=0, quantisation=DEFAULT_QUANTISATION, vocab=None)
    return component.build(CoordJsonlConfig(train=path, space=space), context).train()


def checking(setting: Setting, *, space: str) -> Mapping[str, Variant]:
    """Every record read and its image looked for, as at the start of a run."""
    files = Files()
    path = files.records(setting.size(RECORDS, 50), space)

    @one_core()
    def ours() -> None:
        files.forget()
        opened(path, space)

    @one_core()
    def peer() -> None:
        builder_reference.scan(path, space)

    return {"ours": ours, PEER: peer}


def reading(setting: Setting, *, space: str) -> Mapping[str, Variant]:
    """Answer and geometries of records in random order, as in an epoch; images are not opened."""
    files = Files()
    path = files.records(setting.size(RECORDS, 50), space)
    order = list(range(setting.size(RECORDS, 50)))
    random.Random(1).shuffle(order)
    ours, peer = opened(path, space), builder_reference.Source(path, space)

    @one_core()
    def read_ours() -> None:
        for index in order:
            ours.read(index)

    @one_core()
    def read_peer() -> None:
        assert files  # which the source's file lies in
        for index in order:
            peer[index]

    return {"ours": read_ours, PEER: read_peer}


def memory(setting: Setting) -> Mapping[str, Variant]:
    """Write a file, check it and read a thousand of its answers."""
    files = Files()

    @one_core()
    def run(count: int) -> None:
        source = opened(files.records(count, "pixel"), "pixel")
        generator = random.Random(1)
        for _ in range(1000):
            source.read(generator.randrange(count))

    sizes = {"10 thousand": setting.size(10_000, 50), "1 million": setting.size(1_000_000, 100)}
    return {f"{name} records": partial(run, count) for name, count in sizes.items()}


CASES = [
    *(
        Case(
            name=f"builder-{what}-{space}",
            title=f"data builder, {title}, {space} coordinates, one core",
            build=partial(build, space=space),
            memory=False,
            devices=["cpu"],
            reaches=[Reach(what="time", against=PEER, at_most=at_most, text=f"<= {at_most:.3g}x the time")],
        )
        for what, title, build, at_most in (
            ("check", "checking a file", checking, 1 / 5),
            ("read", "reading by index", reading, 1 / 6),
        )
        for space in ("pixel", "bin")
    ),
    Case(
        name="builder-memory",
        title="data builder, checking a file and reading from it",
        build=memory,
        base="10 thousand records",
        rounds=0,
        devices=["cpu"],
        reaches=[
            Reach(
                what="memory",
                variant="1 million records",
                against="10 thousand records",
                at_most=16,
                text="<= 16 MB more than 10 thousand",
            )
        ],
    ),
]
