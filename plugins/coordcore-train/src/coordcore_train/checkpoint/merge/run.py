"""Merges a run into a plain transformers checkpoint, and proves that it computes what the live model did."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from coordcore.errors import InputError
from coordcore.files import whole_folder
from coordcore_train.checkpoint.code import require_no_code, tell_of_trust
from coordcore_train.checkpoint.folder import copy_files, read_json, text_config, write_checkpoint_info
from coordcore_train.checkpoint.image_size import adopt_image_size, other_limits, own_size
from coordcore_train.checkpoint.merge import NotStreamedError
from coordcore_train.checkpoint.merge.in_memory import compare_logits as compare
from coordcore_train.checkpoint.merge.in_memory import load_live, merge_in_memory
from coordcore_train.checkpoint.merge.streamed import Proof, merge_streamed
from coordcore_train.checkpoint.origin import require_own
from coordcore_train.checkpoint.trained import require_readable
from coordcore_train.run.folder import RunDir
from coordcore_train.run.plan import Plan, load_run
from coordcore_train.run.quiet import quiet_transformers

__all__ = ["MergeReport", "load_live", "merge_run"]


@attrs.frozen(kw_only=True)
class MergeReport:
    """output: the folder. checkpoint: what was merged into the base.

    proof: of the changed layers, None when the run had to be merged `in_memory`, for this reason. logits: largest
    change of a logit by merging, relative to the largest logit; None when whole models were not compared.
    """

    output: Path
    checkpoint: Path
    proof: Proof | None
    in_memory: str | None
    logits: float | None

    def __str__(self) -> str:
        return "\n".join([f"{self.output}: merged from {self.checkpoint}", *self.checks])

    @property
    def checks(self) -> list[str]:
        """What was checked, and why the model was needed if it was, in a line each."""
        lines = []
        if self.proof is not None:
            lines.append(
                f"checked {self.proof.changed} changed layers against the live ones (difference "
                f"{self.proof.difference:.2g} at most), and the written headers"
            )
        else:
            lines.append(f"merged in memory: {self.in_memory}")
        if self.logits is not None:
            lines.append(f"checked the folder's logits against the live model's (difference {self.logits:.2g})")
        return lines


def merge_run(
    run_dir: Path, output: Path, *, checkpoint: Path | None = None, compare_logits: bool = False
) -> MergeReport:
    """Bake the newest checkpoint of a run (or `checkpoint`) into its base, and write a plain checkpoint folder.

    The base's files are copied, in its own layout, with the tensors that training changed: each is compared with the
    live layer, and one is in memory at a time. A run with a part that does not allow this (`MergeReport.in_memory`) is
    merged in memory, and the logits are compared.

    compare_logits: also load the live model and the written folder, one after the other, and compare their logits.
    Raises InputError when there is nothing to merge or `output` exists, RunError when merged and live differ or there
    is no room; then no folder appears.
    """
    output = output.absolute()
    if os.path.lexists(output):
        raise InputError(f"{output}: already exists, and a merge replaces nothing; name a folder that is not there yet")
    quiet_transformers()
    plan = load_run(run_dir.absolute())
    if output.resolve().is_relative_to(plan.base.resolve()):
        raise InputError(f"{output}: lies in the base {plan.base}; choose a folder beside it")
    if checkpoint is not None and (
        checkpoint.resolve().parent != RunDir(run_dir).checkpoints.resolve()
        or not (checkpoint / "trainer_state.json").is_file()
    ):
        raise InputError(f"{checkpoint} is no complete checkpoint of the run in {run_dir}; look into its checkpoints/")
    checkpoint = checkpoint or RunDir(run_dir.absolute()).last_checkpoint()
    if checkpoint is None:
        raise InputError(f"{run_dir} has no complete checkpoint yet; train it with `coordcore run`")
    try:
        require_readable(checkpoint, adapter=plan.manifest.tuner.type == "lora")
    except InputError as error:
        raise InputError(
            f"{error}\n{checkpoint} is damaged: copy it anew, or name an older one with --checkpoint"
        ) from error
    require_own(checkpoint, plan.fingerprint)
    if plan.manifest.tuner.type == "lora":
        RunDir(plan.run_dir).require_same_base(plan.base)
    require_no_code(checkpoint, trusted=plan.trusted)
    config = read_json(plan.base / "config.json")
    if "quantization_config" in config or "quantization_config" in text_config(config):
        raise InputError(
            f"{plan.base}: holds quantised weights; merge into the original checkpoint, quantise afterwards"
        )
    try:
        with whole_folder(output) as folder:
            proof = merge_streamed(plan, checkpoint, folder)
            _copy_files(plan, folder)
            logits = compare(plan, checkpoint, folder) if compare_logits else None
        return MergeReport(output=output, checkpoint=checkpoint, proof=proof, in_memory=None, logits=logits)
    except NotStreamedError as reason:
        with whole_folder(output) as folder:
            merge_in_memory(plan, checkpoint, folder)
            _copy_files(plan, folder)
            logits = compare(plan, checkpoint, folder)
        return MergeReport(output=output, checkpoint=checkpoint, proof=None, in_memory=str(reason), logits=logits)


def _copy_files(plan: Plan, folder: Path) -> None:
    """What belongs to the base and was not written, and what its coord tokens mean."""
    copy_files(plan.base, folder)
    if plan.trusted:
        tell_of_trust(folder, plan.base)
    limits, max_pixels = RunDir(plan.run_dir).image_tokens(), plan.manifest.train.max_pixels
    if limits is not None:
        adopt_image_size(folder, lambda token: limits.size(token, max_pixels))
    elif max_pixels is not None and other_limits(folder) is None:
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=plan.trusted).image_processor
        if hasattr(processor, "merge_size"):
            size = own_size(processor, max_pixels)
            adopt_image_size(folder, lambda _: size)
    if plan.vocab is not None or plan.format.numbers:
        write_checkpoint_info(
            folder,
            quantisation=plan.quantisation,
            vocab=None if plan.format.numbers else plan.vocab,
            form=plan.format,
            question=RunDir(plan.run_dir).question(),
            parallel_boxes=plan.manifest.train.parallel_boxes > 0,
            trusted=plan.trusted,
        )
