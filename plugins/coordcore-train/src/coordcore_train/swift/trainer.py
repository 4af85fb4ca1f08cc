"""The ms-swift trainer of a run: the objective inside the model's forward, exact counts, per-part metrics."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from swift.trainers import Seq2SeqTrainer
from torch import Tensor, nn
from transformers import TrainerCallback

from coordcore.errors import InputError, RunError
from coordcore_train.checkpoint.origin import Origin, read_origin, write_origin
from coordcore_train.objective import loss_in_forward
from coordcore_train.run.folder import PARTIAL, checkpoints_in, newest_checkpoint
from coordcore_train.run.launch import world_size
from coordcore_train.run.progress import BOXES_PER_SECOND, EXAMPLES_PER_SECOND
from coordcore_train.run.resume import readable
from coordcore_train.surgery.bind import bind_for_training
from coordcore_train.surgery.saving import as_it_is, signed
from coordcore_train.surgery.zero3 import whole
from coordcore_train.swift.encode import grouping_of
from coordcore_train.swift.rows import Rows, shared_out
from coordcore_train.swift.sharded import keep_precision, require_same_inputs, shard_on_cpu, without_ties
from coordcore_train.swift.template import CoordTemplate
from coordcore_train.swift.trained import Start, not_finite, trained


class CoordTrainer(Seq2SeqTrainer):
    """Trains the objective of the run that its template belongs to."""

    def __init__(self, model: nn.Module, args: Any, *rest: Any, template: Any, **kwargs: Any) -> None:
        if not isinstance(template, CoordTemplate):
            name = getattr(model.model_meta, "template", None)
            raise InputError(f"--template {name} is missing: the targets of the losses are made by it")
        self.plan = template.plan
        wanted = world_size()
        if args.world_size != wanted:
            raise RunError(
                f"{wanted} processes were started (WORLD_SIZE), but the trainer sees {args.world_size}: each would "
                'train a model of its own; set train.device = "cpu" for CPU ranks, or start one process'
            )
        with whole(model):
            bind_for_training(model, self.plan, args.device)
        super().__init__(model, args, *rest, template=template, **kwargs)
        self.checkpoints = Path(args.output_dir)
        parts = len(self.plan.objective.parts)
        # Per mode and part, of all examples and then of each group: sums and denominators, on the device until they are
        # logged.
        size = parts * (1 + len(self.plan.groups))
        self.sums = {mode: torch.zeros(size, dtype=torch.float64, device=args.device) for mode in ("train", "eval")}
        self.seen = {mode: torch.zeros_like(sums) for mode, sums in self.sums.items()}
        self.step_counts: list[float] = [0.0] * parts
        self.steps_logged = 0  # with the next line
        # Micro-batches and boxes of this rank since the last line, and when it was.
        self.batches_seen, self.boxes_seen, self.last_line = 0, 0, time.monotonic()
        # Steps with their sums and, last, their gradient norm: kept on the device, looked at before anything is logged
        # or saved.
        self.pending: list[tuple[int, Tensor]] = []
        self.moved = False
        self.add_callback(_Beginning(self))

    def create_accelerator_and_postprocess(self) -> None:
        shard_on_cpu(self.args)
        super().create_accelerator_and_postprocess()
        keep_precision(self.accelerator, adapter=self.plan.manifest.tuner.type == "lora")

    # --- the examples ---

    def get_train_dataloader(self, skip_batches: int = 0) -> Any:
        """ms-swift's, but for the order in which the rows of an epoch come."""
        rows = getattr(self.train_dataset, "dataset", None)
        grouped = self.plan.manifest.train.group_by_length
        if not isinstance(rows, Rows):
            return super().get_train_dataloader(skip_batches)
        step = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        grouping = grouping_of(rows.source, self.template, step) if grouped else None
        return shared_out(super().get_train_dataloader(), rows, skip_batches, grouping)

    # --- the loss ---

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """The parts' denominators over all micro-batches and ranks of this step."""
        if self.is_fsdp_enabled:
            require_same_inputs(batch_samples, lambda names: self.accelerator.gather(names.to(device)))
        total = torch.tensor([batch["counts"] for batch in batch_samples], dtype=torch.float64).sum(0)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total.to(device), reduction="sum").cpu()
        self.step_counts = total.tolist()
        return total.sum()  # transformers only asks whether anything was counted

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # DeepSpeed runs cast every float of a batch to the model's dtype; in bfloat16 bin 517.3 would become 516.
        targets, counts, of_groups = (inputs.pop(name) for name in ("targets", "counts", "group_counts"))
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        prepared["counts"], prepared["group_counts"] = counts, of_groups
        prepared["targets"] = {key: tensor.to(self.args.device) for key, tensor in targets.items()}
        return prepared

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        targets, counts, of_groups = (inputs.pop(name) for name in ("targets", "counts", "group_counts"))
        text_positions = inputs.pop("text_position_ids", None)
        for unused in ("labels", "compute_loss_func", "loss_scale", "channel", "logits_to_keep"):
            inputs.pop(unused, None)
        if self.plan.manifest.train.packing:
            # transformers' masks tell by them where an example ends and the next begins, unless there is a cache. The
            # others are of pictures.
            inputs["position_ids"] = torch.cat([text_positions[None], inputs["position_ids"]])
            inputs["use_cache"] = False
        plan, unwrapped = self.plan, self.accelerator.unwrap_model(model)
        mode = "train" if self.model.training else "eval"
        step = self.state.global_step, self.state.max_steps
        weights = plan.objective.weights_at(*step) if mode == "train" else None
        with loss_in_forward(
            unwrapped, plan.objective, targets, self.step_counts, weights, surgeries=plan.surgeries
        ) as outputs:
            result = model(**inputs)
        if len(outputs) != 1:
            raise RunError(
                f"the model called its output head {len(outputs)} times in one forward instead of once; "
                "a setting computes the loss past the head (check [train.swift])"
            )
        self.sums[mode] += torch.cat([outputs[0].sums, outputs[0].group_sums.flatten()])
        self.seen[mode] += torch.tensor([*counts, *of_groups], dtype=torch.float64).to(self.args.device)
        if mode == "train":
            self.batches_seen += 1
            self.boxes_seen += len(targets["boxes"])
            sums = outputs[0].sums
            self.pending.append((self.state.global_step + 1, torch.cat([sums, sums.new_zeros(1)])))
        # DDP and its kin average gradients over ranks; the counts are global already.
        loss = result.logits.sum() * (self.accelerator.num_processes if mode == "train" else 1)
        result.logits = None
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Called for every batch of an evaluation, whose loss is a ratio of sums at the end.
        return super().prediction_step(model, inputs, True)

    # --- metrics ---

    def _reduced(self, mode: str) -> tuple[list[dict[str, float]], bool]:
        """Since the last call, over all ranks: the mean of every part over its positions, weighed as in the loss, and
        whether any of them is trained. The means are of all examples, and then of each group."""
        state = torch.cat([self.sums[mode], self.seen[mode]])
        if self.args.world_size > 1:
            state = self.accelerator.reduce(state, reduction="sum")
        self.sums[mode].zero_()
        self.seen[mode].zero_()
        parts = self.plan.objective.parts
        rows = state.view(2, -1, len(parts)).transpose(0, 1).tolist()
        means = [
            {part.name: total / count for part, total, count in zip(parts, sums, seen, strict=True) if count}
            for sums, seen in rows
        ]
        return means, self.plan.objective.is_charged(rows[0][1])

    def _of_groups(self, means: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
        """Of each group, unless nothing of it was seen, its parts and `loss@coco`: the loss of its positions alone."""
        by_part = {part.name: weight for part, weight in zip(self.plan.objective.parts, weights, strict=True)}
        said = {}
        for group, found in zip(self.plan.groups, means, strict=True):
            if found:
                said[f"loss@{group}"] = sum(by_part[name] * mean for name, mean in found.items())
                said.update({f"{name}@{group}": mean for name, mean in found.items()})
        return said

    def require_charged(self, steps: int) -> None:
        """The losses have charged nothing in the last `steps` steps: raise RunError where these are a whole logging
        interval, of which the first step has a line of its own, or the whole run.
        """
        last, state = self.state.global_step, self.state
        is_all = last == state.max_steps and steps >= last - 1
        if last % state.logging_steps == 0 or is_all:
            raise RunError(
                f"steps {last - steps + 1} to {last}: no position that a loss charges, so they trained nothing; "
                f"{self._last_good()}; look at these examples, or raise train.log_every (it is {state.logging_steps}) "
                "where so many in a row have nothing to charge: the same command then goes on"
            )

    def origin(self) -> Origin:
        """What the checkpoint of this step is to say of itself. The same on every rank."""
        own = torch.cat([self._tr_loss.double()[None], self.sums["train"], self.seen["train"]])
        every = self.accelerator.gather(own[None]) if self.args.world_size > 1 else own[None]
        return Origin(
            fingerprint=self.plan.fingerprint,
            moved=self.moved,
            steps=self.state.global_step - self._globalstep_last_logged,
            sums=tuple(tuple(sums) for sums in every.tolist()),
        )

    def continue_from(self, origin: Origin) -> None:
        """Go on summing up where a checkpoint was saved, so that the next line of metrics is of as many steps."""
        own = torch.tensor(origin.sums[self.args.process_index], dtype=torch.float64, device=self.args.device)
        sums, seen = own[1:].chunk(2)
        self._tr_loss += own[0]
        # A run that began before there were metrics of groups saved none.
        self.sums["train"][: len(sums)] += sums
        self.seen["train"][: len(seen)] += seen
        self._globalstep_last_logged = self.state.global_step - origin.steps
        self.moved = origin.moved

    def check_finite(self) -> None:
        """Stop the run if a part or the gradient became NaN or infinite since the last look. The same on every rank."""
        if not self.pending:
            return
        steps = [step for step, _ in self.pending]
        bad = ~torch.stack([sums for _, sums in self.pending]).isfinite()
        self.pending.clear()
        # One row per step and part, so that ranks with different micro-batches still agree on the first bad step.
        watched = [*(part.name for part in self.plan.objective.parts), "the gradient norm"]
        first = torch.full((len(watched),), torch.inf, dtype=torch.float64)
        for step, row in zip(steps, bad.tolist(), strict=True):
            for part, is_bad in enumerate(row):
                if is_bad:
                    first[part] = min(first[part], torch.tensor(step, dtype=torch.float64))
        if self.args.world_size > 1:
            gathered = self.accelerator.gather(first.to(self.args.device)[None]).cpu()
            first = gathered.amin(0)
        if not first.isfinite().any():
            return
        step = int(first.min())
        bad_first = [name for name, when in zip(watched, first.tolist(), strict=True) if when == step]
        # A bad loss makes a bad gradient; only the cause is worth a word.
        names = bad_first[:-1] if bad_first[-1] == watched[-1] and len(bad_first) > 1 else bad_first
        raise RunError(
            f"step {step}: NaN or infinity in {', '.join(names)}; {self._last_good()}; "
            "lower train.learning_rate or look at the examples of this step"
        )

    def _last_good(self) -> str:
        kept = newest_checkpoint(self.checkpoints)
        return f"the last good checkpoint is {kept}" if kept else "no checkpoint had been written yet"

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        # ms-swift drops an update whose gradient norm is NaN, and clipping an infinite one makes NaN weights. In
        # float16 the gradient scaler skips such steps itself.
        if grad_norm is not None and not self.args.fp16:
            entry = torch.zeros_like(self.pending[-1][1]) if self.pending else None
            if entry is not None:
                entry[-1] = grad_norm
                self.pending.append((self.state.global_step, entry))
        self.steps_logged = self.state.global_step - self._globalstep_last_logged
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            self.check_finite()
            [means, *of_groups], is_charged = self._reduced("train")
            if not is_charged:
                self.require_charged(self.steps_logged)
            logs.update(means)
            objective = self.plan.objective
            weights = objective.weights_at(self.state.global_step - 1, self.state.max_steps)  # of the step just done
            by_part = zip(objective.parts, weights, strict=True)
            logs.update({f"weight/{part.name}": weight for part, weight in by_part if part.scheduled})
            logs.update(self._of_groups(of_groups, weights))
            for group in self.optimizer.param_groups:
                if "name" in group:
                    logs[f"lr/{group['name']}"] = float(group["lr"])
            logs.update(self._speed())
        super().log(logs, *args, **kwargs)

    def _speed(self) -> dict[str, float]:
        """Examples and boxes a second since the last line: those of this rank times the ranks."""
        now = time.monotonic()
        share = self.args.world_size / max(now - self.last_line, 1e-9)
        examples, boxes = self.batches_seen * self._train_batch_size, self.boxes_seen
        self.batches_seen, self.boxes_seen, self.last_line = 0, 0, now
        return {EXAMPLES_PER_SECOND: examples * share, BOXES_PER_SECOND: boxes * share}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self.check_finite()
        self.sums["eval"].zero_()
        self.seen["eval"].zero_()
        began = time.monotonic()
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        self.last_line += time.monotonic() - began  # no part of the speed of training
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        [means, *of_groups], _ = self._reduced("eval")
        weights = {part.name: part.weight for part in self.plan.objective.parts}
        output.metrics.update({f"eval_{name}": value for name, value in means.items()})
        output.metrics["eval_loss"] = sum(weights[name] * value for name, value in means.items())
        said = self._of_groups(of_groups, [*weights.values()])
        output.metrics.update({f"eval_{name}": value for name, value in said.items()})
        return output

    # --- checkpoints ---

    def check_weights(self) -> None:
        """Stop the run if what it trains became NaN or infinite; else look whether it moved. The same on every rank."""
        tensors = trained(self.model)
        if bad := not_finite(tensors, self._sum):
            more = f" and {len(bad) - 1} more of {len(tensors)} trained tensors" if len(bad) > 1 else ""
            raise RunError(
                f"step {self.state.global_step}: NaN or infinity in {bad[0]}{more}, so no checkpoint was kept; "
                f"{self._last_good()}; lower train.learning_rate"
            )
        self.moved = self.moved or self.start.moved(tensors, self._sum)

    def _sum(self, tensor: Tensor) -> Tensor:
        """Over all ranks."""
        if self.args.world_size == 1:
            return tensor
        total: Tensor = self.accelerator.reduce(tensor.to(self.args.device), reduction="sum")
        return total

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(Path(checkpoint or "") / "rng_state.pth"):
            super()._load_rng_state(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with readable(Path(checkpoint or "") / "optimizer.pt and scheduler.pt"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, without_ties(self.model, state_dict))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write the checkpoint beside, then rename: a folder named checkpoint-N is always whole."""
        self.check_finite()
        self.check_weights()
        final, partial = self.checkpoints, self.checkpoints / PARTIAL
        name = f"checkpoint-{self.state.global_step}"
        origin = self.origin()
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            shutil.copy(final / "args.json", partial / "args.json")
        self.accelerator.wait_for_everyone()
        self.args.output_dir = str(partial)
        # The best one is not kept: transformers would look for it where it was written beside, where train.keep is 1.
        self.state.best_global_step = None
        try:
            with as_it_is(self.model), signed(origin.fingerprint):
                super()._save_checkpoint(model, trial)
            if self.args.should_save:
                write_origin(partial / name, origin)
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch's writer has no error class of its own; any other RuntimeError is no matter of the disk.
            if type(error) is RuntimeError and not any(word in str(error) for word in ("Writer", "unexpected pos")):
                raise
            raise RunError(
                f"step {self.state.global_step}: the checkpoint could not be written: {error}; {self._last_good()}; "
                "make room, and the same command continues from there"
            ) from error
        finally:
            self.args.output_dir = str(final)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(final / name, ignore_errors=True)
            (partial / name).rename(final / name)
            shutil.rmtree(partial)
            keep = self.args.save_total_limit
            if keep is not None:
                for old in checkpoints_in(final)[:-keep]:
                    shutil.rmtree(old)
        self.state.last_model_checkpoint = str(final / name)
        self.accelerator.wait_for_everyone()


class _Beginning(TrainerCallback):
    """When transformers has loaded the weights, and set everything else back to the start."""

    def __init__(self, trainer: CoordTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, *_args: Any, **_kwargs: Any) -> None:
        self.trainer.start = Start(trained(self.trainer.model))
        origin = read_origin(Path(args.resume_from_checkpoint)) if args.resume_from_checkpoint else None
        if origin is not None:
            self.trainer.continue_from(origin)
        self.trainer.last_line = time.monotonic()
