"""What a run's checkpoint changes in its base, tensor by tensor. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from coordcore_train.checkpoint.merge import NotStreamedError
from coordcore_train.checkpoint.merge.layout import Place, layout, untied
from coordcore_train.checkpoint.merge.rows import Rows, changed_rows, check_rows, same_rows
from coordcore_train.checkpoint.merge.skeleton import adapted_layers, adapter_tensors, make_live, skeleton
from coordcore_train.checkpoint.tensorfile import Stored
from coordcore_train.checkpoint.weights import is_sharded, weights_entry
from coordcore_train.run.plan import Plan


@attrs.frozen(kw_only=True)
class Survey:
    """What the files alone tell.

    model: the base's skeleton. places: every tensor, by parameter, as if nothing were untied. embedding, head: their
    parameters. tied: whether they are one. adapter: the adapter's tensors, None for the full tuner's checkpoint.
    unchanged: parameters that can be copied before anything else is known.
    """

    model: Any
    places: dict[str, Place]
    embedding: str
    head: str
    tied: bool
    adapter: dict[str, Stored] | None
    unchanged: frozenset[str]


@attrs.frozen(kw_only=True)
class Recipe:
    """places: every tensor of the merged checkpoint, by parameter. What is in none of the others is copied.

    layers: path -> PEFT layer to merge into the module there. rows: matrix -> the rows to write over its copy.
    untied: the head is no longer the embedding. difference: of the rows, against the live hooks.
    """

    places: dict[str, Place]
    layers: dict[str, Any]
    rows: dict[str, Rows]
    untied: bool
    difference: float


def survey(plan: Plan, checkpoint: Path) -> Survey:
    """Look at the files of base and checkpoint. Raises as `merge_streamed`."""
    adapter = adapter_tensors(checkpoint) if (checkpoint / "adapter_config.json").is_file() else None
    source = checkpoint if adapter is None else plan.base
    for folder in (plan.base, source):
        if weights_entry(folder) is None:
            raise NotStreamedError(f"{folder} has no safetensors weights")
    model = skeleton(plan)
    places = layout(model, plan.base, source)
    names = {id(module): f"{path}.weight" for path, module in model.named_modules()}
    embedding, head = (names[id(item)] for item in (model.get_input_embeddings(), model.get_output_embeddings()))
    tied = head in model.all_tied_weights_keys
    # A head that becomes a matrix of its own goes to the only file there is, whose layout is open until then.
    is_open = tied and not is_sharded(plan.base)
    parts = [name.split(".") for name in adapter or ()]
    adapted = {".".join(part[:depth]) for part in parts for depth in range(len(part))}
    unchanged = {name for name in places if name.rpartition(".")[0] not in adapted}
    return Survey(
        model=model,
        places=places,
        embedding=embedding,
        head=head,
        tied=tied,
        adapter=adapter,
        unchanged=frozenset() if is_open else frozenset(unchanged),
    )


def recipe(known: Survey, plan: Plan, checkpoint: Path) -> Recipe:
    """Build the live model as a skeleton, and read from it what changes. Raises as `survey`."""
    parameters = known.model.state_dict().keys()  # before surgeries add their own
    live = make_live(known.model, plan, checkpoint, known.adapter)
    layers = adapted_layers(live) if known.adapter else {}
    replaced = {name: item for name, item in (known.adapter or {}).items() if name in parameters}
    rows = changed_rows(plan.surgeries, live)
    embedding, head, places = known.embedding, known.head, dict(known.places)
    by_adapter = {*replaced, *(f"{path}.weight" for path in layers)} & {embedding, head}
    if rows and by_adapter:
        raise NotStreamedError(f"adapter and surgery both change {', '.join(by_adapter)}")
    unties = known.tied and (bool(by_adapter) or not same_rows(rows))
    if unties:
        places[head] = untied(places, head, embedding, plan.base)
    matrices = {"embedding": embedding, "head": head if head in places else embedding}
    difference = check_rows(live, rows, {role: places[name] for role, name in matrices.items()}) if rows else 0.0
    for name, stored in replaced.items():
        places[name] = attrs.evolve(places[name], source=stored)
    return Recipe(
        places=places,
        layers=layers,
        rows={matrices[role]: changed for role, changed in rows.items()},
        untied=unties,
        difference=difference,
    )
