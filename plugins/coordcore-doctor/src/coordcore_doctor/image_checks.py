"""Checks of the images as the model gets them: reduced, enlarged, and otherwise when it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from coordcore.records.images import open_example_image
from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding, not_applicable, ok, share, warning
from coordcore_doctor.sample import Encoded
from coordcore_train.checkpoint.image_size import own_size, seen_sizes

NO_IMAGES = "no example of the sample has an image"
MANY_SMALL = 0.1
"""Share of boxes narrower than one visual token from which on it is worth a warning."""


def check_images(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """What the processor makes of the images, and whether boxes are still larger than one visual token."""
    rows = [row for row in run.sample.rows if row.seen]
    if not rows:
        yield not_applicable(name, _why_none(run))
        return
    processor = run.rehearsal.encoder.processor.image_processor
    token = processor.patch_size * processor.merge_size
    pairs = [(size, seen) for row in rows for size, seen in zip(row.sizes, row.seen, strict=True)]
    scales = [max(width, height) / max(seen) for (width, height), seen in pairs]
    (width, height), seen = pairs[int(np.argmax(scales))]
    smaller, larger = sum(scale > 1.05 for scale in scales), sum(scale < 0.95 for scale in scales)
    text = f"{len(pairs)} images, {smaller} reduced, {larger} enlarged"
    if smaller:
        text += f", most of all {width} x {height} to {seen[0]} x {seen[1]}"
    small, count = _small_boxes(run, rows, token)
    if count and _all_in_a_corner(run, rows):
        yield warning(
            name,
            f"{text}; all {count} boxes lie within the first pixel of their images, as fractions read as pixels do",
            'say what the numbers are: `space = "norm1"`, or bbox_type "norm1" in chat rows',
        )
    elif count and small > MANY_SMALL * count:
        lost = f"{share(small, count, 'boxes')} are narrower than one visual token ({token} pixels)"
        yield warning(name, f"{text}; {lost}", "raise train.max_pixels, or cut the images into tiles")
    else:
        yield ok(name, text)


def _left_to_the_processor(run: ExaminedRun, name: str) -> Finding:
    limit = run.manifest.train.max_pixels
    sizes = [size for row in run.sample.rows for size in row.sizes]
    larger = [size for size in sizes if limit is not None and size[0] * size[1] > limit]
    if not larger:
        return not_applicable(name, "training leaves the size of images to the processor, as servers do")
    return warning(
        name,
        f"{share(len(larger), len(sizes), 'images')} are reduced to train.max_pixels = {limit} in training and by "
        "coordcore predict on the run, but not by servers: the processor's files of this family cannot say it",
        "leave train.max_pixels out and set the size in the base's processor files, or reduce images before serving",
    )


def _why_none(run: ExaminedRun) -> str:
    if any(row.sizes for row in run.sample.rows):
        return "the processor of this model tells no sizes: it works with tiles, or with one fixed size"
    return NO_IMAGES


def _small_boxes(run: ExaminedRun, rows: list[Encoded], token: int) -> tuple[int, int]:
    small = count = 0
    if run.vocab is None:
        return 0, 0
    for row in rows:
        boxes, _ = row.boxes(run.vocab)
        sides = (boxes[:, 2:] - boxes[:, :2]) / run.quantisation.decode_scale * np.array(row.seen[0])
        small += int((sides < token).any(1).sum())
        count += len(boxes)
    return small, count


def _all_in_a_corner(run: ExaminedRun, rows: list[Encoded]) -> bool:
    """Whether no box of any row, as the builder gave it, reaches further than a pixel and the bin that widens it."""
    ends = [
        (row.boxes(run.vocab)[0][:, 2:] - 1) / run.quantisation.decode_scale * np.array(row.sizes[0])
        for row in rows
        if run.vocab is not None
    ]
    return all(bool((end <= 1).all()) for end in ends)


def check_served(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether `coordcore predict` and servers, which resize by the processor's files, show images as large.

    A merged folder's files say what training did; what is served unmerged goes by the base's.
    """
    rows = [row for row in run.sample.rows if row.seen]
    limits = run.rehearsal.encoder.image_tokens
    if limits is None and (not rows or run.manifest.train.max_pixels is None):
        yield _left_to_the_processor(run, name)
        return
    if not rows:
        yield not_applicable(name, _why_none(run))
        return
    processor, limit = run.rehearsal.encoder.processor.image_processor, run.manifest.train.max_pixels
    token = processor.patch_size * processor.merge_size
    trained_size = own_size(processor, limit or 0) if limits is None else limits.size(token, limit)
    if run.manifest.output.merge:
        size = trained_size
    else:
        shortest, longest = processor.size["shortest_edge"], processor.size["longest_edge"]
        limit = None if limits is None else limit  # `own_size` is that of a merged folder alone
        size = {"shortest_edge": shortest, "longest_edge": min(longest, limit or longest)}  # as predict does
    pairs = []
    for row in rows:
        for image, seen in zip(row.example.images, row.seen, strict=True):
            grid = processor(images=[open_example_image(image)], size=size)["image_grid_thw"]
            (there,) = seen_sizes(run.rehearsal.encoder.processor, grid)
            pairs.append((seen, there, row.example.max_pixels))
    differ = [(a, b, own) for a, b, own in pairs if max(abs(a[0] - b[0]), abs(a[1] - b[1])) > token]
    if not differ:
        yield ok(name, f"{len(pairs)} images are as large for coordcore predict and servers as in training")
        return
    (trained, asked, _), *_ = differ
    sizes = f"{trained[0]} x {trained[1]} in training, {asked[0]} x {asked[1]} there"
    if all(own is not None for _, _, own in differ):
        yield warning(
            name,
            f"{share(len(differ), len(pairs), 'images')} have another size for coordcore predict on records and for "
            f"servers, which know no source's own max_pixels: {sizes}",
            "set train.max_pixels to the size in which images will be asked about, or reduce them before asking",
        )
        return
    yield warning(
        name,
        f"{share(len(differ), len(pairs), 'images')} have another size for coordcore predict and servers: {sizes}",
        f"serve the merged model (output.merge = true), or set size to {json.dumps(trained_size)} in the image "
        "processor of the base (preprocessor_config.json, or processor_config.json), as ms-swift trains",
    )
