"""The plan of a run's resources: memory for each way of sharding, the least that fits, and what would make it fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from coordcore.assemble import answer_format
from coordcore.check import check
from coordcore.components import BuildContext
from coordcore.errors import InputError, ManifestError
from coordcore.manifest import Loaded, load
from coordcore.manifest.sections import Manifest
from coordcore.quantisation import quantisation
from coordcore_train.engine import Skeleton, planning_of
from coordcore_train.estimate.activations import EAGER, Activations, language_model
from coordcore_train.estimate.base import WeightlessBase, weightless
from coordcore_train.estimate.memory import (
    GIB,
    SHARDINGS,
    GpuMemory,
    ModelMemory,
    Sharding,
    StepMemory,
    gpu_memory,
)
from coordcore_train.estimate.model import ALIGNER, VISION, model_memory, objective_shape
from coordcore_train.estimate.objective import accelerator_chunks, objective_memory
from coordcore_train.estimate.optimizers import state_of
from coordcore_train.estimate.settings import Asked, Setting, Way, changes, chosen, is_file
from coordcore_train.estimate.steps import Examples, Steps, sampled, steps_of
from coordcore_train.estimate.vision import Tower, patches_of, tower_of
from coordcore_train.run.plan import Plan


@attrs.frozen(kw_only=True)
class Estimate:
    """What `coordcore plan` tells.

    shardings: of the setting in the manifest, the least first. refused: those that a plugin of the run does not take,
    with its reason. chosen: that of `[launch]`. least: the first that fits, None where none does without a change.
    cure: the first change that makes one fit, where it takes one.
    """

    name: str
    architecture: str
    manifest: Manifest
    gpus: int
    gpu_memory: int
    model: ModelMemory
    setting: Setting
    examples: Examples
    steps: Steps
    shardings: tuple[GpuMemory, ...]
    refused: Mapping[Sharding, str]
    chosen: Sharding | None
    least: Way | None
    cure: Way | None
    notes: tuple[str, ...]


def estimate(file: Path, overrides: Iterable[str] | None, asked: Asked) -> Estimate:
    """The estimate for a manifest file. Raises InputError, with the cure, for what fits nowhere."""
    if fault := asked.fault():
        raise InputError(fault)
    loaded = load(file, overrides or ())
    _require_right(loaded)
    manifest = loaded.manifest
    gpus = _gpus(manifest, asked)
    state_of(manifest.train.optim)
    longest = manifest.train.max_length
    if asked.tokens is not None and asked.tokens > longest:
        raise InputError(
            f"--tokens-per-example {asked.tokens} are more than train.max_length {longest}, which stops the run; raise "
            "that, or lower train.max_pixels"
        )
    with weightless(manifest) as base, tempfile.TemporaryDirectory(prefix="coordcore-plan-") as folder:
        plan = plan_of_base(manifest, base, Path(folder).resolve())
        skeleton = planning_of(loaded.plugins).skeleton(plan)
        planner = _Planner(
            plan=plan, skeleton=skeleton, asked=asked, gpus=gpus, base=base, refused=refused_shardings(loaded)
        )
        return planner.estimate()


def _require_right(loaded: Loaded) -> None:
    """Raise ManifestError for what `coordcore check` finds, less what a plan does without: weights and data files."""
    problems = [
        problem
        for problem in check(loaded)
        if problem.path not in ("model.base", "train.optim") and not _is_of(problem.path, loaded)
    ]
    if problems:
        raise ManifestError(problems)


def _is_of(path: str, loaded: Loaded) -> bool:
    return any(path == missing.path for missing in loaded.missing)


def refused_shardings(loaded: Loaded) -> dict[Sharding, str]:
    """What the run's plugins say against a sharding, which `coordcore check` would say once `[launch]` has it."""
    manifest, refused = loaded.manifest, dict[Sharding, str]()
    plain = attrs.evolve(manifest, launch=attrs.evolve(manifest.launch, deepspeed=None, fsdp=None))
    before = {problem.path for problem in loaded.hooks.check(plain)}
    for sharding in SHARDINGS:
        if sharding == "nothing":
            continue
        change: dict[str, Any] = {"fsdp" if sharding == "fsdp2" else "deepspeed": sharding}
        sharded = attrs.evolve(plain, launch=attrs.evolve(plain.launch, **change))
        for problem in loaded.hooks.check(sharded):
            if problem.path not in before:
                refused.setdefault(sharding, problem.message)
    return refused


def _gpus(manifest: Manifest, asked: Asked) -> int:
    launch = manifest.launch
    ranks = launch.nproc_per_node * launch.nnodes
    if asked.gpus is not None and asked.gpus < ranks:
        raise InputError(
            f"--gpus {asked.gpus} are fewer than launch.nproc_per_node {launch.nproc_per_node} x launch.nnodes "
            f"{launch.nnodes} = {ranks} processes, of which each takes one; lower them, or plan for {ranks}"
        )
    return asked.gpus or ranks


def plan_of_base(manifest: Manifest, base: WeightlessBase, run_dir: Path) -> Plan:
    context = BuildContext(
        run_dir=run_dir,
        seed=manifest.train.seed,
        quantisation=quantisation(manifest.coords.quantisation),
        vocab=base.vocab,
        coords=manifest.coords.format,
        format=answer_format(manifest),
    )
    return Plan(manifest=manifest, context=context, base=base.folder)


@attrs.frozen(kw_only=True, slots=False)
class _Planner:
    plan: Plan
    skeleton: Skeleton
    asked: Asked
    gpus: int
    base: WeightlessBase
    refused: Mapping[Sharding, str]

    def estimate(self) -> Estimate:
        manifest, train = self.plan.manifest, self.plan.manifest.train
        setting = Setting(
            checkpointing=train.gradient_checkpointing, batch_size=train.batch_size, accumulation=train.accumulation
        )
        rows = self.shardings(setting)
        fitting = next((row for row in rows if self.fits(row)), None)
        cure = None if fitting is not None else self.cure(setting)
        return Estimate(
            name=manifest.name,
            architecture=type(self.plain).__name__,
            manifest=manifest,
            gpus=self.gpus,
            gpu_memory=int(self.asked.gpu_memory * GIB),
            model=self.model,
            setting=setting,
            examples=self.examples,
            steps=steps_of(train, self.examples, gpus=self.gpus),
            shardings=tuple(rows),
            refused=self.refused,
            chosen=chosen(manifest),
            least=None if fitting is None else Way(setting=setting, memory=fitting),
            cure=cure,
            notes=tuple(self.notes()),
        )

    # --- what it depends on ---

    @cached_property
    def plain(self) -> Any:
        model: Any = self.skeleton.model
        return getattr(model, "get_base_model", lambda: model)()

    @cached_property
    def model(self) -> ModelMemory:
        return model_memory(self.skeleton, self.plan)

    @cached_property
    def examples(self) -> Examples:
        asked, train = self.asked, self.plan.manifest.train
        if asked.tokens is not None:
            return Examples(count=asked.examples, mean=asked.tokens, longest=asked.tokens, sampled=0)
        if not self.base.readable:
            raise InputError(
                "model.base: has no tokenizer.json, so no example can be encoded; give --tokens-per-example (and "
                "--examples, for the number of steps)"
            )
        found = sampled(self.plan, self.skeleton.encoder, count=asked.examples)
        return attrs.evolve(found, longest=min(found.longest, train.max_length))

    @cached_property
    def tower(self) -> Tower | None:
        """Of a vision tower or an aligner that trains."""
        trains = any(part.trained for part in self.model.parts if part.name in (VISION, ALIGNER))
        tuner = self.plan.manifest.tuner
        adapted = tuner.type == "lora" and not (tuner.freeze_vision and tuner.freeze_aligner)
        if not trains and not adapted:
            return None
        return tower_of(
            self.skeleton.model, autocast=self.skeleton.autocast, eager=self.plan.manifest.model.attention == EAGER
        )

    # --- memory ---

    def fits(self, memory: GpuMemory) -> bool:
        """Whether the run can be sharded so, and there is room."""
        return memory.sharding not in self.refused and memory.total <= self.asked.gpu_memory * GIB

    def shardings(self, setting: Setting) -> list[GpuMemory]:
        """Every way of sharding for a setting, the least first."""
        kept = self.activations(setting.batch_size)
        return gpu_memory(
            self.model,
            state_of(self.plan.manifest.train.optim),
            self.step(setting, kept, checkpointing=setting.checkpointing),
            self.step(setting, kept, checkpointing=True),
            gpus=self.gpus,
            reserve=self.asked.reserved,
        )

    def activations(self, batch: int) -> Activations:
        """What one micro-batch of the longest examples keeps."""
        tokens, skeleton = self.examples.longest, self.skeleton
        matrix = self.plain.get_input_embeddings().weight
        if self.asked.activation_bytes is not None:
            outside = batch * tokens * self.asked.activation_bytes
            hidden = batch * tokens * matrix.shape[1] * matrix.element_size()
            return Activations(outside=outside, layers=(), inputs=(), hidden=hidden)
        kind = self.plan.manifest.model.attention
        found = language_model(
            skeleton.model,
            batch=batch,
            tokens=tokens,
            autocast=skeleton.autocast,
            eager=kind == EAGER,
            padded=batch > 1 and kind != "flash_attention_2",
        )
        if self.tower is not None:
            image_tokens = tokens if self.asked.image_tokens is None else self.asked.image_tokens
            found = found.plus(self.tower.at(patches_of(self.plain, batch * image_tokens)))
        return found

    def step(self, setting: Setting, kept: Activations, *, checkpointing: bool) -> StepMemory:
        positions = setting.batch_size * self.examples.longest
        shape = objective_shape(self.skeleton, self.plan, positions=positions, hidden_bytes=kept.hidden)
        objective = objective_memory(shape, accelerator_chunks(shape))
        return StepMemory(
            activations=kept.kept(checkpointing=checkpointing),
            again=kept.again(checkpointing=checkpointing),
            objective=objective.kept + objective.working,
        )

    # --- what would make it fit ---

    def cure(self, setting: Setting) -> Way:
        """The first change with which a sharding fits. Raises InputError where none does."""
        tried: list[GpuMemory] = []
        for changed in changes(setting):
            for memory in self.shardings(changed):
                if self.fits(memory):
                    return Way(setting=changed, memory=memory)
                tried.append(memory)
        best = min((one for one in tried if one.sharding not in self.refused), key=lambda memory: memory.total)
        parts = {name: value for name, value in attrs.asdict(best).items() if isinstance(value, int)}
        largest = sorted(parts, key=lambda name: -parts[name])[:3]
        raise InputError(
            f"nothing fits {self.asked.gpu_memory:g} GiB on {self.gpus} GPU{'s' if self.gpus > 1 else ''}: with "
            f"gradient_checkpointing = true, batch_size = 1 and {best.sharding} sharded it takes "
            f"{best.total / GIB:.1f} GiB ({', '.join(f'{name} {parts[name] / GIB:.1f}' for name in largest)}); "
            + "; ".join(self._further(largest[0]))
        )

    def _further(self, largest: str) -> Iterator[str]:
        manifest = self.plan.manifest
        if largest in ("activations", "objective"):
            yield "shorten the examples: train.max_pixels, train.max_length"
        if manifest.tuner.type == "full":
            yield 'train adapters: tuner.type = "lora"'
        if manifest.model.dtype == "float32":
            yield 'model.dtype = "bfloat16"'
        yield f"more --gpus than {self.gpus}, or GPUs with more memory"

    def notes(self) -> Iterator[str]:
        manifest, launch = self.plan.manifest, self.plan.manifest.launch
        yield from self.base.notes
        ranks = launch.nproc_per_node * launch.nnodes
        if ranks != self.gpus:
            yield (
                f"[launch] starts {ranks} process{'es' if ranks > 1 else ''}: set nproc_per_node and nnodes so that "
                f"their product is {self.gpus}"
            )
        if manifest.train.device == "cpu":
            yield 'train.device is "cpu": the figures are those of a GPU'
        if self.examples.count is None:
            yield "the number of examples is not known: give --examples for steps and epochs"
        if self.tower is not None and self.asked.image_tokens is None and self.asked.activation_bytes is None:
            yield "the vision tower is counted as if every token were an image's; give --image-tokens for less"
        if is_file(launch.deepspeed) or is_file(launch.fsdp):
            yield "settings in a file of [launch] are not looked at: the figures are those of ms-swift's own"
        elif launch.deepspeed and launch.deepspeed.endswith("_offload"):
            yield "what is offloaded to the CPU is counted as if it stayed on the GPU"
        if launch.fsdp or self.gpus > 1:
            yield "ms-swift's fsdp2 checkpoints every layer, whatever train.gradient_checkpointing says"
