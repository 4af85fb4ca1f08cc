"""A sheet of the sample's images with the boxes, outlines and points that were read back from the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coordcore import InputError
from coordcore.coords import CoordVocab
from coordcore.quantisation import Quantisation
from coordcore.records.answers import Format, parse_answer
from coordcore.records.images import open_example_image
from coordcore.records.sheet import Cell, save_sheet
from coordcore_doctor.sample import Encoded, Sample

COUNT = 12


def write_sheet(path: Path, sample: Sample, vocab: CoordVocab, quantisation: Quantisation, form: Format) -> int:
    """Draw up to twelve images as a PNG, whole or not at all; how many there are.

    Raises InputError when no example has a box on one image, or the sheet cannot be written.
    """
    rows = [row for row in sample.rows if row.example.geometries and len(row.seen) == 1]
    if not rows:
        raise InputError(f"{path}: no example of the sample has a box on one image; there is nothing to draw")
    step = max(len(rows) / COUNT, 1.0)
    chosen = [rows[int(index * step)] for index in range(min(len(rows), COUNT))]
    save_sheet([_cell(row, vocab, quantisation, form) for row in chosen], path)
    return len(chosen)


def _cell(row: Encoded, vocab: CoordVocab, quantisation: Quantisation, form: Format) -> Cell:
    image = open_example_image(row.example.images[0])
    _, written = row.boxes(vocab, points=True)
    text = str(row.example.messages[-1]["content"])
    labels = [item.desc for item in parse_answer(text, form, coords=vocab.format).objects]
    if len(labels) != len(written):  # another format than coordcore predict reads
        labels = [str(number) for number in range(len(written))]
    size = np.array(image.size, dtype=np.float64)
    outlines = {
        index: quantisation.decode(np.array(said).reshape(-1, 2), size)
        for index, said in enumerate(row.written(vocab))
        if row.example.geometries[index].kind != "bbox_2d"
    }
    width, height = row.seen[0]
    return Cell(
        image=image,
        boxes=quantisation.decode(written, np.tile(size, 2)),
        labels=labels,
        caption=f"{row.example.source or 'example'}, seen as {width} x {height}",
        outlines=outlines,
    )
