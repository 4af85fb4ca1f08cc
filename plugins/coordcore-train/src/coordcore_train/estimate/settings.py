"""What is asked of a plan, and the settings and shardings that it may propose. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from coordcore.errors import InputError
from coordcore.manifest import Loaded
from coordcore.manifest.sections import Manifest
from coordcore_train.estimate.memory import GIB, SHARDINGS, GpuMemory, Sharding


@attrs.frozen(kw_only=True)
class Asked:
    """The options of `coordcore plan`; None where the user leaves them out. gpu_memory, reserve: GiB."""

    gpus: int | None = None
    gpu_memory: float = 80.0
    reserve: float | None = None
    tokens: int | None = None
    image_tokens: int | None = None
    examples: int | None = None

    def fault(self) -> str | None:
        """What is wrong with the numbers."""
        for name, value in (("--gpu-memory", self.gpu_memory), ("--reserve", self.reserve)):
            if value is not None and not 0 <= value <= 2**20:  # NaN is neither
                return f"{name} must be a number of GiB, got {value}"
        if self.gpu_memory < 1:
            return f"--gpu-memory must be at least 1 GiB, got {self.gpu_memory}"
        if self.reserve is not None and self.reserve >= self.gpu_memory:
            return f"--reserve {self.reserve} leaves nothing of --gpu-memory {self.gpu_memory}"
        if self.tokens is not None and self.image_tokens is not None and self.image_tokens > self.tokens:
            return f"--image-tokens {self.image_tokens} are more than --tokens-per-example {self.tokens}"
        return None

    @property
    def reserved(self) -> int:
        """Bytes: for the CUDA context and NCCL, and for what the allocator cannot use."""
        gigabytes = 1 + 0.05 * self.gpu_memory if self.reserve is None else self.reserve
        return int(gigabytes * GIB)


@attrs.frozen(kw_only=True)
class Setting:
    """What the memory of a step depends on that a user may change without changing the run's result."""

    checkpointing: bool
    batch_size: int
    accumulation: int


@attrs.frozen(kw_only=True)
class Way:
    """A setting and a sharding that fit, and the memory that they take."""

    setting: Setting
    memory: GpuMemory


def changes(setting: Setting) -> Iterator[Setting]:
    """Settings that take less memory and give the same steps, the least change first."""
    if not setting.checkpointing:
        setting = attrs.evolve(setting, checkpointing=True)
        yield setting
    examples = setting.batch_size * setting.accumulation
    batch = setting.batch_size
    while batch > 1:
        batch = next(size for size in range(batch // 2, 0, -1) if examples % size == 0)
        yield attrs.evolve(setting, batch_size=batch, accumulation=examples // batch)
    if setting.batch_size == 1:
        yield setting


def is_file(setting: str | None) -> bool:
    """Whether a setting of `[launch]` is a file, or the text of one."""
    return setting is not None and ("." in setting or "/" in setting or setting.lstrip().startswith("{"))


def chosen(manifest: Manifest) -> Sharding | None:
    """What `[launch]` shards, None for a file of settings."""
    launch = manifest.launch
    if launch.fsdp is not None:
        return None if is_file(launch.fsdp) else "fsdp2"
    if launch.deepspeed is None:
        return "nothing"
    name = launch.deepspeed.removesuffix("_offload")
    of_deepspeed: dict[str, Sharding] = {"zero0": "nothing", "zero1": "zero1", "zero2": "zero2", "zero3": "zero3"}
    return of_deepspeed.get(name)


def refused_shardings(loaded: Loaded) -> dict[Sharding, str]:
    """What the run's plugins say against a sharding, which `coordcore check` would say once `[launch]` has it."""
    manifest, refused = loaded.manifest, dict[Sharding, str]()
    plain = attrs.evolve(manifest, launch=attrs.evolve(manifest.launch, deepspeed=None, fsdp=None))
    before = {problem.path for problem in loaded.hooks.check(plain)}
    for sharding in SHARDINGS[1:]:
        fsdp, deepspeed = (sharding, None) if sharding == "fsdp2" else (None, sharding)
        sharded = attrs.evolve(plain, launch=attrs.evolve(plain.launch, fsdp=fsdp, deepspeed=deepspeed))
        for problem in loaded.hooks.check(sharded):
            if problem.path not in before:
                refused.setdefault(sharding, problem.message)
    return refused


def gpus_of(manifest: Manifest, asked: Asked) -> int:
    """How many GPUs are planned for. Raises InputError for fewer than `[launch]` starts processes."""
    launch = manifest.launch
    ranks = launch.nproc_per_node * launch.nnodes
    if asked.gpus is not None and asked.gpus < ranks:
        raise InputError(
            f"--gpus {asked.gpus} are fewer than launch.nproc_per_node {launch.nproc_per_node} x launch.nnodes "
            f"{launch.nnodes} = {ranks} processes, of which each takes one; lower them, or plan for {ranks}"
        )
    return asked.gpus or ranks
