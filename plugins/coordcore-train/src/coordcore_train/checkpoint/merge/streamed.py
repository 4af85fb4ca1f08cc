"""Merging a run by rewriting its base's files: copies, and the tensors that training changed. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import safe_open

from coordcore.errors import RunError
from coordcore_train.checkpoint.folder import read_json, write_json
from coordcore_train.checkpoint.merge.layers import is_plain, merge_layer, merge_plain_layer
from coordcore_train.checkpoint.merge.layout import Place, as_bytes, read
from coordcore_train.checkpoint.merge.recipe import Recipe, recipe, survey
from coordcore_train.checkpoint.merge.rows import write_rows
from coordcore_train.checkpoint.tensorfile import TensorSpec, WeightFile, metadata_of
from coordcore_train.checkpoint.weights import is_sharded, stored_tensors, write_index
from coordcore_train.run.plan import Plan

_MOST_WORKERS = 4  # each may hold a tensor in memory
_CHUNK = 1 << 22

Files = dict[str, WeightFile]
Job = Callable[[], float]


@attrs.frozen(kw_only=True)
class Proof:
    """What was compared, live against merged: `changed` layers and matrices, and their largest relative difference."""

    changed: int
    difference: float


def merge_streamed(plan: Plan, checkpoint: Path, folder: Path) -> Proof:
    """Write the merged weights and config of a run's checkpoint into `folder`.

    Raises NotStreamedError when a part of the run needs the model in memory, RunError when a merged layer computes
    something else than the live one, InputError or RunError for files that are damaged or do not fit.
    """
    known = survey(plan, checkpoint)
    files: Files = {}
    try:
        with _Workers() as workers:
            if known.unchanged:  # copied while PEFT builds its layers
                _open(files, folder, plan.base, known.places)
                workers.start(
                    partial(_copy, files, place) for name, place in known.places.items() if name in known.unchanged
                )
            what = recipe(known, plan, checkpoint)
            _open(files, folder, plan.base, what.places)
            workers.start(_jobs(what, files, done=known.unchanged))
            differences = workers.results()
        for name, rows in what.rows.items():
            write_rows(files[what.places[name].file], what.places[name], rows)
        for file in files.values():
            file.close()
    finally:
        for file in files.values():
            file.abandon()
    specs = _by_file(what.places)
    if is_sharded(plan.base):
        write_index(folder, specs, like=plan.base)
    _write_config(folder, plan, untied=what.untied)
    _read_back(folder, specs)
    return Proof(changed=len(what.layers) + len(what.rows), difference=max([what.difference, *differences]))


def _jobs(what: Recipe, files: Files, done: Collection[str]) -> list[Job]:
    """What is left to be done, in turns over the files, which take one writer at a time.

    Each job gives the difference it found.
    """
    jobs: dict[str, Job] = {
        name: partial(_copy, files, place) for name, place in what.places.items() if name not in done
    }
    for path, layer in what.layers.items():
        if is_plain(layer):
            jobs[f"{path}.weight"] = partial(_plain_layer, files, what.places[f"{path}.weight"], path, layer)
            continue
        leaves = [leaf for leaf, parameter in layer.get_base_layer()._parameters.items() if parameter is not None]
        for leaf in leaves:
            del jobs[f"{path}.{leaf}"]
        places = {leaf: what.places[f"{path}.{leaf}"] for leaf in leaves}
        jobs[f"{path}.weight"] = partial(_layer, files, places, path, layer)
    queues: dict[str, list[Job]] = {}
    for name, job in jobs.items():
        queues.setdefault(what.places[name].file, []).append(job)
    return [job for turn in zip_longest(*queues.values()) for job in turn if job is not None]


def _copy(files: Files, place: Place) -> float:
    output, source = files[place.file], place.source
    if place.is_copy:
        output.copy(place.spec.name, source)
        return 0.0
    rows, done = (source.shape or (1,))[0], 0
    step = max(1, _CHUNK * rows // max(1, source.size))
    for first in range(0, rows, step):
        part = source.rows(first, min(first + step, rows)) if source.shape else source
        data = as_bytes(read(part, place.dtype))
        output.write(place.spec.name, data, done)
        done += len(data)
    return 0.0


def _layer(files: Files, places: Mapping[str, Place], path: str, layer: Any) -> float:
    merged, difference = merge_layer(
        path, layer, {leaf: read(item.source, item.dtype) for leaf, item in places.items()}
    )
    for leaf, place in places.items():
        files[place.file].write(place.spec.name, as_bytes(merged[leaf]))
    return difference


def _plain_layer(files: Files, place: Place, path: str, layer: Any) -> float:
    output, row = files[place.file], place.spec.size // place.spec.shape[0]
    with safe_open(place.source.file, framework="pt") as file:  # maps the file: the weight is read row by row
        weight = file.get_tensor(place.source.name)
    return merge_plain_layer(
        path, layer, weight, write=lambda first, rows: output.write(place.spec.name, as_bytes(rows), first * row)
    )


def _by_file(places: Mapping[str, Place]) -> dict[str, list[TensorSpec]]:
    specs: dict[str, list[TensorSpec]] = {}
    for place in places.values():
        specs.setdefault(place.file, []).append(place.spec)
    return specs


def _open(files: Files, folder: Path, base: Path, places: Mapping[str, Place]) -> None:
    """Open those files of the output that are not open yet."""
    for name, tensors in _by_file(places).items():
        if name not in files:
            metadata = metadata_of(base / name) if (base / name).exists() else {"format": "pt"}
            copied = {
                place.spec.name: place.source for place in places.values() if place.file == name and place.is_copy
            }
            files[name] = WeightFile(folder / name, tensors, metadata, copied)


class _Workers:
    """A few threads, each with one of torch's: the jobs are many and small."""

    def __enter__(self) -> _Workers:
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(max_workers=min(self._threads, _MOST_WORKERS))
        self._started: list[Future[float]] = []
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)

    def start(self, jobs: Iterable[Job]) -> None:
        """Add jobs to what is being done."""
        self._started += [self._pool.submit(job) for job in jobs]

    def results(self) -> list[float]:
        """Wait until all jobs are done. Raises the first error of one of them."""
        return [item.result() for item in as_completed(self._started)]


def _write_config(folder: Path, plan: Plan, *, untied: bool) -> None:
    """The base's config, with the dtype of the merged weights and whether they are tied."""
    config = read_json(plan.base / "config.json")
    config.setdefault("dtype", config.pop("torch_dtype", None))
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in part.keys() & {"dtype", "torch_dtype"}:
            part[key] = plan.manifest.model.dtype
    if untied:
        # A loader that believes tie_word_embeddings would drop the head's own rows.
        config["tie_word_embeddings"] = False
        if "text_config" in config:
            config["text_config"]["tie_word_embeddings"] = False
    write_json(folder / "config.json", config)


def _read_back(folder: Path, specs: Mapping[str, Sequence[TensorSpec]]) -> None:
    """Prove by the headers on disk that every tensor is where a loader looks for it."""
    wanted = {tensor.name: (file, tensor.dtype, tensor.shape) for file, tensors in specs.items() for tensor in tensors}
    found = {name: (tensor.file.name, tensor.dtype, tensor.shape) for name, tensor in stored_tensors(folder).items()}
    if found != wanted:
        wrong = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise RunError(f"{folder}: {', '.join(wrong[:3])} was not written as planned; report this as a bug")
