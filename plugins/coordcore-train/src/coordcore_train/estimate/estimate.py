"""The plan of a run's resources: memory for each way of sharding, the least that fits, and what would make it fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from coordcore.assemble import answer_format
from coordcore.check import check
from coordcore.components import BuildContext
from coordcore.errors import InputError, ManifestError
from coordcore.manifest import Loaded, load
from coordcore.manifest.sections import Manifest
from coordcore.quantisation import quantisation
from coordcore_train.engine import Skeleton, planning_of
from coordcore_train.estimate.activations import EAGER, Activations, NotFollowedError, bounded, language_model
from coordcore_train.estimate.base import WeightlessBase, weightless
from coordcore_train.estimate.memory import (
    GIB,
    GpuMemory,
    ModelMemory,
    Sharding,
    StepMemory,
    gpu_memory,
)
from coordcore_train.estimate.model import (
    ALIGNER,
    VISION,
    language_layers,
    model_memory,
    objective_shape,
    plain,
    vision_parts,
)
from coordcore_train.estimate.objective import accelerator_chunks, objective_memory
from coordcore_train.estimate.optimizers import state_of
from coordcore_train.estimate.settings import Asked, Setting, Way, changes, chosen, gpus_of, is_file, refused_shardings
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

    def fits(self, memory: GpuMemory) -> bool:
        """Whether the run can be sharded so, and there is room."""
        return _fits(memory, self.refused, self.gpu_memory)


def _fits(memory: GpuMemory, refused: Mapping[Sharding, str], room: int) -> bool:
    return memory.sharding not in refused and memory.total <= room


def estimate(file: Path, overrides: Iterable[str] | None, asked: Asked) -> Estimate:
    """The estimate for a manifest file. Raises InputError, with the cure, for what fits nowhere."""
    if fault := asked.fault():
        raise InputError(fault)
    loaded = load(file, overrides or ())
    _require_right(loaded)
    manifest = loaded.manifest
    gpus = gpus_of(manifest, asked)
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
    spared = {"model.base", "train.optim", *(missing.path for missing in loaded.missing)}
    if problems := [problem for problem in check(loaded) if problem.path not in spared]:
        raise ManifestError(problems)


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
    bounds: set[str] = attrs.field(factory=set)

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
            gpu_memory=self.room,
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
        return plain(self.skeleton)

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
    def trains_tower(self) -> bool:
        """Whether a vision tower or an aligner trains."""
        trains = any(part.trained for part in self.model.parts if part.name in (VISION, ALIGNER))
        tuner = self.plan.manifest.tuner
        return trains or (tuner.type == "lora" and not (tuner.freeze_vision and tuner.freeze_aligner))

    @cached_property
    def tower(self) -> Tower | NotFollowedError:
        """Of the vision tower, or why its forward cannot be followed."""
        eager = self.plan.manifest.model.attention == EAGER
        try:
            return tower_of(self.skeleton.model, autocast=self.skeleton.autocast, eager=eager)
        except NotFollowedError as error:
            return error

    # --- memory ---

    @property
    def room(self) -> int:
        """Bytes of a GPU."""
        return int(self.asked.gpu_memory * GIB)

    def fits(self, memory: GpuMemory) -> bool:
        return _fits(memory, self.refused, self.room)

    def shardings(self, setting: Setting) -> list[GpuMemory]:
        """Every way of sharding for a setting, the least first."""
        kept = self.activations(setting.batch_size)
        return gpu_memory(
            self.model,
            state_of(self.plan.manifest.train.optim),
            self.step(setting, kept),
            gpus=self.gpus,
            reserve=self.asked.reserved,
        )

    def activations(self, batch: int) -> Activations:
        """What one micro-batch of the longest examples keeps."""
        tokens = self.examples.longest
        found = self.of_language_model(batch, tokens)
        if self.trains_tower:
            image_tokens = tokens if self.asked.image_tokens is None else self.asked.image_tokens
            patches = patches_of(self.plain, batch * image_tokens)
            if isinstance(self.tower, Tower):
                return found.plus(self.tower.at(patches))
            found = found.plus(self.bounded(vision_parts(self.skeleton), patches, self.tower))
        return found

    def of_language_model(self, batch: int, tokens: int) -> Activations:
        """What is kept from the embeddings to the head."""
        kind = self.plan.manifest.model.attention
        padded = batch > 1 and kind != "flash_attention_2"
        if self.plan.manifest.train.packing:
            batch, tokens = 1, batch * tokens
        try:
            return language_model(
                self.skeleton.model,
                batch=batch,
                tokens=tokens,
                autocast=self.skeleton.autocast,
                eager=kind == EAGER,
                padded=padded,
            )
        except NotFollowedError as error:
            heads = self.plain.config.get_text_config().num_attention_heads
            scores = batch * tokens**2 * (4 * heads + 1 if kind == EAGER else padded)
            return self.bounded(language_layers(self.skeleton), batch * tokens, error, scores)

    def bounded(self, parts: Iterable[nn.Module], rows: int, error: NotFollowedError, scores: int = 0) -> Activations:
        """More than these keep of so many tokens or patches, whose forward cannot be followed."""
        self.bounds.add(f"{error}: what it keeps is bounded from above, which may be several times too much")
        matrix = self.plain.get_input_embeddings().weight
        size = 2 if self.skeleton.autocast is not None else matrix.element_size()
        return bounded(parts, rows=rows, size=size, hidden=rows * matrix.shape[1] * size, scores=scores)

    def step(self, setting: Setting, kept: Activations) -> StepMemory:
        positions = setting.batch_size * self.examples.longest
        shape = objective_shape(self.skeleton, self.plan, positions=positions, hidden_bytes=kept.hidden)
        objective = objective_memory(shape, accelerator_chunks(shape))
        return StepMemory(
            activations=kept.kept(checkpointing=setting.checkpointing),
            again=kept.again(checkpointing=setting.checkpointing),
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
        yield from sorted(self.bounds)
        train = manifest.train
        if train.batch_size > 1 and not train.packing and manifest.model.attention != "flash_attention_2":
            yield "a batch is counted with the mask that examples of different lengths need"
        if self.trains_tower and self.asked.image_tokens is None:
            yield "the vision tower is counted as if every token were an image's; give --image-tokens for less"
        if is_file(launch.deepspeed) or is_file(launch.fsdp):
            yield "settings in a file of [launch] are not looked at: the figures are those of ms-swift's own"
        elif launch.deepspeed and launch.deepspeed.endswith("_offload"):
            yield "what is offloaded to the CPU is counted as if it stayed on the GPU"
