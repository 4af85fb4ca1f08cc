"""Checks of a sample of the data behind the run's own template: reading, round trip, supervision, lengths."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from unicodedata import normalize

import numpy as np

from coordcore import kinds
from coordcore.assemble import answer_format
from coordcore.quantisation import Quantisation, encode_boxes
from coordcore.records.answers import parse_answer
from coordcore.records.geometry import overlaps
from coordcore_doctor.examined import ExaminedRun
from coordcore_doctor.findings import Finding, error, not_applicable, ok, share, some, warning
from coordcore_doctor.sample import Encoded, Floats
from coordcore_train.checkpoint.folder import read_json

NO_COORDS = "no example of the sample has coord tokens"
_SIDE = 1000.0
"""IoU does not change with the scale of an axis, so that boxes of any image may be compared on one of this size."""

NEAR_LIMIT = 0.9
"""Share of max_length from which on a sample says that longer examples may come."""


def check_data(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the data builder reads every example of the sample."""
    sample = run.sample
    (data,) = run.manifest.of(kinds.DATA)
    if sample.unread:
        seen = f"{share(len(sample.unread), sample.asked, 'examples')} cannot be read, the first: {sample.unread[0]}"
        yield error(name, seen, f"mend the records, or [{data.path}]")
    else:
        yield ok(name, f"{sample.asked} examples looked at, {sample.total} to train on")


def _closed(text: str) -> str:
    return text.replace(" ", "")


def check_encoding(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the template encodes every example, and the labels read back are the answer that was given."""
    sample, tokenizer = run.sample, run.rehearsal.encoder.tokenizer
    if sample.unencoded:
        count = share(len(sample.unencoded), len(sample.unencoded) + len(sample.rows), "examples")
        yield error(name, f"{count} cannot be encoded, the first: {sample.unencoded[0]}", "mend what it names")
    changed: list[str] = []
    composed: list[str] = []
    spaced: list[str] = []
    form = run.rehearsal.plan.format
    for row in sample.rows:
        written = str(row.example.messages[-1]["content"]).strip()
        # Special tokens may be the answer's own: <|box_start|> is one.
        read = tokenizer.decode(row.answer, skip_special_tokens=False)
        if written not in read and form.json and _closed(written) in _closed(read):
            spaced.append(row.example.where)
        elif written not in read:
            (composed if normalize("NFC", written) in read else changed).append(row.example.where)
    if composed:
        seen = (
            f"{share(len(composed), len(sample.rows), 'answers')} read back with other code points for the same "
            f"letters, as Unicode composes them (NFC), which this tokenizer does: {some(composed)}"
        )
        yield warning(name, seen, "write the records so, or metrics take the two spellings for two names")
    if spaced:
        seen = (
            f"{share(len(spaced), len(sample.rows), 'answers')} read back with other spaces, which this tokenizer puts "
            f"behind added tokens: {some(spaced)}"
        )
        yield warning(name, seen, f"keep to a format in JSON, as {form.name}, which is read all the same")
    if changed:
        seen = (
            f"{share(len(changed), len(sample.rows), 'answers')} read back differ from what was given: {some(changed)}"
        )
        yield error(name, seen, "look at the [template] adapter and at control tokens in the records")
    elif not sample.rows and not sample.unencoded:
        yield Finding(name=name, state="not checked", seen="there is no example to encode")
    elif not sample.unencoded and not composed and not spaced:
        yield ok(name, f"{len(sample.rows)} answers read back as they were given")


def check_round_trip(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether boxes read from the labels come as near to their source as the declared quantisation allows."""
    vocab = run.vocab
    if vocab is None:
        yield not_applicable(name, NO_COORDS)
        return
    worst = ceiling = 1.0
    count, bad = 0, []
    for row in _coord_rows(run):
        source, written = row.boxes(vocab)
        if not len(source):
            continue
        reached, possible = _overlap(source, written, run.quantisation)
        worst, ceiling = min(worst, float(reached.min())), min(ceiling, float(possible.min()))
        count += len(source)
        if (reached < possible - 1e-6).any():
            bad.append(row.example.where)
    if not count:
        yield not_applicable(name, "the objects of the sample are points alone" if _coord_rows(run) else NO_COORDS)
    elif bad:
        seen = f"boxes of {len(bad)} examples are off by more than {run.quantisation} makes them"
        cure = "write them with the convention of [coords] quantisation"
        yield error(name, f"{seen}, worst IoU {worst:.3f}: {some(bad)}", cure)
    else:
        best = f"as good as {run.quantisation.name} can ({ceiling:.3f})"
        yield ok(name, f"{count} boxes, worst IoU {worst:.3f}, {best}")


def _overlap(source: Floats, written: Floats, spec: Quantisation) -> tuple[Floats, Floats]:
    """IoU with the source: [n] of the boxes as written, and [n] of the best that `spec` can do."""
    none = np.zeros(len(source), dtype=bool)
    pixels = spec.decode(source, _SIDE)
    best = []
    for shift in (-1e-9, 1e-9):  # a corner that lies between two bins may go to either
        moved = np.clip(pixels * (1 + shift), 0, _SIDE)
        bins = encode_boxes(moved, int(_SIDE), int(_SIDE), quantisation=spec, outside="clip").bins
        best.append(overlaps(pixels, none, spec.decode(bins, _SIDE)))
    return overlaps(pixels, none, spec.decode(written, _SIDE)), np.minimum(*best)


def check_supervision(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether a loss charges the coord tokens (all of them labels, as encoding proves) and the end of an answer."""
    vocab, rows = run.vocab, run.sample.rows
    ends = _end_tokens(run)
    endless = [row for row in rows if ends.isdisjoint(row.answer)]
    if endless:
        seen = f"{share(len(endless), len(rows), 'answers')} have no end token among their labels"
        yield warning(name, f"{seen}: the model would not learn to stop", "look at the [template] adapter")
    if vocab is None or not _coord_rows(run):
        if not endless:
            yield not_applicable(name, NO_COORDS)
        return
    total = sum(int(vocab.mask(np.array(row.labels)).sum()) for row in rows)
    charging = [part for part in run.rehearsal.plan.objective.parts if part.scope != "text" and part.weight > 0]
    if not charging:
        yield error(name, "no loss with a weight above 0 sees coord positions", "give a part of [loss] that does one")
    elif not endless:
        yield ok(name, f"{total} coord tokens, charged by {some([part.name for part in charging])}")


def _end_tokens(run: ExaminedRun) -> set[int]:
    """The tokens at which generation stops: the tokenizer's own, and those of the base's generation_config.json."""
    file = run.base / "generation_config.json"
    given = read_json(file).get("eos_token_id") if file.is_file() else None
    ends = {run.rehearsal.encoder.tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])}
    return {end for end in ends if isinstance(end, int)}


def check_answers(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether `coordcore predict` can read the answers that are trained."""
    rows = _coord_rows(run)
    if not rows:
        yield not_applicable(name, NO_COORDS)
        return
    coords, form = run.manifest.coords.format, answer_format(run.manifest)
    answers = (parse_answer(str(row.example.messages[-1]["content"]), form, coords=coords) for row in rows)
    reasons = [unread for answer in answers for unread in answer.unread]
    if reasons:
        first = f"{reasons[0].at} {reasons[0].reason}".strip()
        seen = f"{len(reasons)} places of {len(rows)} answers cannot be read, the first: {first}"
        cure = "answer in the format that the manifest names, or read predictions with a parser of your own"
        yield warning(name, seen, cure)
    else:
        yield ok(name, f"{len(rows)} answers are what coordcore predict reads")


def check_lengths(run: ExaminedRun, name: str) -> Iterator[Finding]:
    """Whether the examples fit `[train] max_length`: a longer one stops the run."""
    limit = run.manifest.train.max_length
    lengths = [len(row.ids) for row in run.sample.rows]
    if not lengths:
        yield Finding(name=name, state="not checked", seen="no example could be encoded")
        return
    text = f"{median(lengths):.0f} tokens in the middle, {max(lengths)} at most, train.max_length = {limit}"
    over = sum(length > limit for length in lengths)
    room = -(-max(lengths) * 5 // 4 // 64) * 64
    if over:
        seen = f"{share(over, len(lengths), 'examples')} are too long and would stop the run: {text}"
        yield error(name, seen, f"set train.max_length = {room}, lower train.max_pixels, or shorten the answers")
    elif max(lengths) > NEAR_LIMIT * limit and run.sample.total > len(lengths):
        yield warning(name, f"{text}: others may be longer", f"set train.max_length = {room}")
    else:
        yield ok(name, text)


def _coord_rows(run: ExaminedRun) -> list[Encoded]:
    """The rows whose answers hold coord tokens."""
    if run.vocab is None:
        return []
    return [row for row in run.sample.rows if row.example.geometries]
