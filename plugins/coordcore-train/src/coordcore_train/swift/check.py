"""What `coordcore check` knows of the base checkpoint and of ms-swift's arguments. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from coordcore import kinds
from coordcore.assemble import answer_format
from coordcore.components import COORD_TOKENS, LENGTHS
from coordcore.coords import MissingCoordTokensError
from coordcore.errors import InputError, Problem, did_you_mean
from coordcore.manifest import Manifest
from coordcore.quantisation import quantisation
from coordcore_train.checkpoint.base import resolve_base
from coordcore_train.checkpoint.code import code_in, refusals
from coordcore_train.checkpoint.folder import order_fault, preset_hint, read_checkpoint_info, read_vocab
from coordcore_train.hidden import KIND
from coordcore_train.swift import sharding
from coordcore_train.swift.families import AUTO, Family, UnknownTemplateError, family_of, require_names
from coordcore_train.swift.names import ALL_OF_A_KIND
from coordcore_train.swift.needs import NOT_TRAINED, OPTIONAL, PACKED
from coordcore_train.swift.registry import model_types

_USUAL_OPTIM = ("adamw_torch", "adamw_torch_fused")


def check(run: Manifest) -> Iterator[Problem]:
    """Everything that would stop the engine, as far as files and settings tell."""
    if wrong := order_fault(run.coords):
        yield Problem(path="coords.tokens", message=wrong)
    yield from _base(run, needs_vocab=COORD_TOKENS in run.capabilities())
    yield from _swift(run)
    yield from _precision(run)
    yield from sharding.problems(run)
    yield from _optim(run)
    yield from _trackers(run)
    yield from _packing(run)
    yield from _grouping(run)
    yield from _hiding(run)


def notes(run: Manifest) -> Iterator[str]:
    """What could not be looked into on this machine, and what was chosen where there was a choice."""
    model = run.model
    if "ddp_timeout" in run.train.swift:
        yield "train.swift.ddp_timeout: has no effect, for the ranks have met before; set launch.timeout"
    try:
        base = resolve_base(model.base)
        if base is None:
            yield f"model.base: {model.base} is not in the local hub cache; a run downloads it"
        elif model.trust_remote_code and (found := [*code_in(base)]):
            yield from (f"model.trust_remote_code: {place}" for place in found)
            if run.train.swift:
                yield "train.swift: ms-swift was not asked whether it takes these arguments, because it runs that code"
        if base is not None and model.template == AUTO and model_types():
            yield from _templates(family_of(base, model_type=model.type, name=model.base))
        if base is not None and run.vocab is not None:
            yield from _second_tokens(run, base)
        if base is not None and not run.train.parallel_boxes:
            info = read_checkpoint_info(base)
            if info is not None and info.parallel_boxes:
                yield (
                    f"model.base: {base} has learned to say the corners of a box together, which it may unlearn; set "
                    "train.parallel_boxes = 0.5 to go on with it"
                )
    except InputError:
        pass  # `check` reports it
    from coordcore_train.swift import known

    if known.installed_version() is None:
        arguments = ", nor were [train.swift]'s arguments" if run.train.swift else ""
        yield f"model.type: ms-swift is not installed here, so the model's family was not looked at{arguments}"


def _templates(family: Family) -> Iterator[str]:
    others = [name for name in model_types()[family.type].templates if name != family.template]
    if others:
        yield (
            f"model.template: {family.template!r} is taken; checkpoints of type {family.type!r} are also trained with "
            f"{', '.join(others)}: set model.template where that is yours"
        )


def _second_tokens(run: Manifest, base: Path) -> Iterator[str]:
    """That `[vocab]` adds tokens to a base that has others of their kind."""
    try:
        read_vocab(base, run.coords.format)
    except MissingCoordTokensError:
        if hint := preset_hint(base):
            yield f"vocab: {run.coords.format} are added to {base}{hint} to train those instead"


def _trackers(manifest: Manifest) -> Iterator[Problem]:
    if manifest.train.report_to:
        from coordcore_train.swift import trackers

        if message := trackers.problem(manifest.train.report_to):
            yield Problem(path="train.report_to", message=message)


def _optim(manifest: Manifest) -> Iterator[Problem]:
    name = manifest.train.optim
    if name in _USUAL_OPTIM:
        return
    from coordcore_train.swift.known import optimizer_names

    known = optimizer_names()
    if known and name not in known:
        yield Problem(
            path="train.optim", message=f"transformers knows no optimizer {name!r}; {did_you_mean(name, known)}"
        )


def _packing(manifest: Manifest) -> Iterator[Problem]:
    if not manifest.train.packing:
        return
    try:
        base = resolve_base(manifest.model.base)
        family = (
            None if base is None else family_of(base, model_type=manifest.model.type, name=manifest.model.base).type
        )
    except InputError:
        return  # `_base` reports it
    if family is not None and family not in PACKED:
        message = (
            f"examples of ms-swift's type {family!r} would see each other in one row; it can be had for "
            f"{', '.join(PACKED)}: leave it out"
        )
        yield Problem(path="train.packing", message=message)


def _grouping(manifest: Manifest) -> Iterator[Problem]:
    if not manifest.train.group_by_length:
        return
    path = "train.group_by_length"
    for name, value in {"packing": manifest.train.packing, **manifest.train.swift}.items():
        if name in ("packing", "padding_free") and value:
            message = f"{name} leaves no padding that it could save; keep one of them"
            yield Problem(path=path, message=message)
        if name == "train_dataloader_shuffle" and value is False:
            message = f"puts examples into another order, and train.swift.{name} = false keeps that of the data"
            yield Problem(path=path, message=f"{message}; leave one of them out")
    for selected in manifest.of(kinds.DATA):
        if LENGTHS not in selected.provides:
            message = (
                f"the examples of {selected.path} do not tell how long they are before they are made (it provides no "
                f"{LENGTHS!r}); leave group_by_length out, or set packing instead"
            )
            yield Problem(path=path, message=message)


def _hiding(manifest: Manifest) -> Iterator[Problem]:
    if not manifest.train.parallel_boxes:
        return
    path = "train.parallel_boxes"
    if COORD_TOKENS not in manifest.capabilities():
        message = f"no section has examples with coord tokens ({COORD_TOKENS!r}), so no box has corners to be hidden"
        yield Problem(path=path, message=f"{message}; leave it out")
        return
    try:
        form = answer_format(manifest)
    except InputError:
        return  # reported where the format is looked at
    if KIND not in form.places:
        yield Problem(path=path, message=f"answers in the format {form.name} hold no {KIND}; leave it out")


def _precision(manifest: Manifest) -> Iterator[Problem]:
    if manifest.tuner.type == "full" and manifest.model.dtype == "float16":
        yield Problem(
            path="model.dtype",
            message="the full tuner cannot train float16 weights, whose gradients would have to be scaled; "
            'set "bfloat16" or "float32"',
        )


# --- the base checkpoint --------------------------------------------------------------------------------------------


def _base(manifest: Manifest, *, needs_vocab: bool) -> Iterator[Problem]:
    from coordcore_train.checkpoint.folder import read_checkpoint_info

    path = "model.base"
    try:
        base = resolve_base(manifest.model.base)
        if base is None:
            yield from _names(manifest)
            return
        trusted = manifest.model.trust_remote_code
        yield from (Problem(path=path, message=message) for message in refusals(base, trusted=trusted))
        if wrong := _family(manifest, base):
            yield wrong
            return
        yield from (Problem(path=path, message=message) for message in (*_weights(base), *_processor(base)))
        if needs_vocab:
            yield from _vocab(manifest, base)
        yield from _targets(manifest, base)
        yield from _max_pixels(manifest, base)
        info = read_checkpoint_info(base)
    except InputError as error:
        yield Problem(path=path, message=str(error))
        return
    wanted = quantisation(manifest.coords.quantisation)
    if info is not None and info.quantisation != wanted:
        message = f"{base} was made with {info.quantisation}, this run says {wanted}; use one convention throughout"
        yield Problem(path="coords.quantisation", message=message)


def _family(manifest: Manifest, base: Path) -> Problem | None:
    """What speaks against training this model with ms-swift, as far as its configuration tells."""
    model = manifest.model
    if not model_types():
        return None  # `notes` says so
    if wrong := next(_names(manifest), None):
        return wrong
    named = "model.type" if model.type != AUTO else "model.base"
    try:
        family = family_of(base, model_type=model.type, template=model.template, name=model.base)
    except UnknownTemplateError as error:
        return Problem(path="model.template", message=str(error))
    except InputError as error:
        return Problem(path=named, message=str(error))
    if reason := NOT_TRAINED.get(family.type):
        return Problem(path=named, message=f"models of type {family.type!r} cannot be trained: {reason}")
    message = _unfit(base) or _missing(family.type)
    return Problem(path="model.base", message=message) if message else None


def _names(manifest: Manifest) -> Iterator[Problem]:
    """Names of `[model]` that ms-swift does not know, whatever the base."""
    model = manifest.model
    if not model_types():
        return  # `notes` says so
    for key, names in (("type", (model.type, AUTO)), ("template", (AUTO, model.template))):
        try:
            require_names(*names)
        except InputError as error:
            yield Problem(path=f"model.{key}", message=str(error))


def _unfit(base: Path) -> str | None:
    """Why no vocabulary of this model can be trained and merged."""
    from coordcore_train.checkpoint.folder import read_json, text_config

    config = read_json(base / "config.json")
    text = text_config(config)
    if config.get("is_encoder_decoder") or text.get("is_encoder_decoder"):
        return (
            f"{base} is an encoder-decoder ({config.get('model_type')!r}): encoder and decoder have an embedding each, "
            "and coord rows would reach only one; take a decoder-only model"
        )
    for quantised in _quantisations(config):
        method = quantised.get("quant_method") or "an unnamed method"
        return (
            f"{base} has quantised weights ({method}): LoRA could train beside them, but neither new rows nor the "
            "adapter could be written into them; take the unquantised checkpoint, and quantise the merged folder"
        )
    return None


def _quantisations(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a configuration, or that of a part of the model, says of quantised weights. A "not" is passed over."""
    for key, value in config.items():
        if not isinstance(value, dict):
            continue
        if key not in ("quantization_config", "compression_config"):
            yield from _quantisations(value)
        elif value.get("quant_method") or any(item is not False for item in value.values()):
            yield value


def _missing(model_type: str) -> str | None:
    """What ms-swift needs for a type and is not installed, or not in a version that it takes."""
    from packaging.requirements import InvalidRequirement, Requirement

    wrong = []
    for text in model_types()[model_type].requires:
        try:
            requirement = Requirement(text)
            found = metadata.version(requirement.name)
        except InvalidRequirement:
            continue
        except metadata.PackageNotFoundError:
            if requirement.name in OPTIONAL:
                continue
            wrong.append(f"{text}, which is not installed")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{text}, and {found} is installed")
    if not wrong:
        return None
    return f"models of ms-swift's type {model_type!r} need {'; '.join(wrong)}: install it, or take another base"


def _targets(manifest: Manifest, base: Path) -> Iterator[Problem]:
    """Names of `tuner.target_modules` that no weight of the base belongs to.

    The model may put words in front of a weight's name, so only the last two of a name are looked for.
    """
    from coordcore_train.checkpoint.weights import weight_files, weights_entry

    patterns = manifest.tuner.target_modules
    if manifest.tuner.type != "lora" or all(name in ALL_OF_A_KIND for name in patterns) or weights_entry(base) is None:
        return
    modules = [name.rpartition(".")[0].split(".") for name in weight_files(base)]
    ends = {end for parts in modules for end in (parts[-1], ".".join(parts[-2:]))} | {"lm_head"}  # which may be tied
    for index, name in enumerate(patterns):
        if name not in ALL_OF_A_KIND and ".".join(name.split(".")[-2:]) not in ends:
            hint = did_you_mean(name, sorted({parts[-1] for parts in modules if not parts[-1].isdecimal()}))
            yield Problem(
                path=f"tuner.target_modules[{index}]", message=f"no module of {base} is called {name!r}; {hint}"
            )


def _max_pixels(manifest: Manifest, base: Path) -> Iterator[Problem]:
    """A limit of pixels that leaves nothing of an image, or that no server could keep to, because the base's image
    processor knows none."""
    from coordcore_train.checkpoint.image_size import other_limits, token_pixels

    limit = manifest.train.max_pixels
    if limit is not None and limit < (least := token_pixels(base) or 0):
        message = f"{limit} pixels are fewer than the {least} of one visual token of {base}; set {least} at least, "
        message += "and more for images that are not square"
        yield Problem(path="train.max_pixels", message=message)
    if limit is not None and (others := other_limits(base)):
        message = (
            f"the image processor of {base} knows no limit of pixels, so a server would not show images as training "
            f"does; leave max_pixels out, and set there what limits them: {others}"
        )
        yield Problem(path="train.max_pixels", message=message)


def _weights(base: Path) -> Iterator[str]:
    from coordcore_train.checkpoint.weights import weight_files

    try:
        weight_files(base)
    except InputError as error:
        yield str(error)


def _processor(base: Path) -> Iterator[str]:
    """Without these files transformers gives a tokenizer in place of a processor."""
    from coordcore_train.checkpoint.image_size import FILES

    if not any((base / name).is_file() for name in FILES):
        yield f"{base}: has neither {' nor '.join(FILES)}, which say how images are read; download it again"


def _vocab(manifest: Manifest, base: Path) -> Iterator[Problem]:
    try:
        read_vocab(base, manifest.coords.format)
    except MissingCoordTokensError:
        if manifest.vocab is None:
            cure = "add a [vocab] section, or expand it with coordcore expand"
            message = f"{base} has no coord tokens {manifest.coords.format}; {cure}{preset_hint(base)}"
            yield Problem(path="model.base", message=message)


# --- ms-swift's arguments -------------------------------------------------------------------------------------------


def _swift(manifest: Manifest) -> Iterator[Problem]:
    if manifest.train.swift:
        from coordcore_train.swift import passed_on  # and with it two tables, which most runs do without

        yield from passed_on.problems(manifest, _trainable(manifest))


def _trainable(manifest: Manifest) -> Path | None:
    """The base, where ms-swift can build its arguments with it: one that is here, trains, and brings no Python."""
    try:
        base = resolve_base(manifest.model.base)
        return None if base is None or next(code_in(base), None) or _family(manifest, base) else base
    except InputError:
        return None  # `_base` reports it
