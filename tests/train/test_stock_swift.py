"""ms-swift's own commands, given a run's swift_plugin.py, use the run's model, template, optimizer and trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from PIL import Image

from coordcore.testing.closeness import assert_close_to_scale

STEPS = {"steps": 2, "learning_rate": 1e-2, "schedule": "constant", "warmup": 0.0}

# What `swift infer` and `swift sft` call with the arguments of their command lines.
SCRIPT = """
import json, sys
from coordcore_train.run.quiet import quiet
quiet()
import torch
torch.set_num_threads(1)
arguments = json.loads(sys.argv[1])
report = {}

from swift.pipelines.infer.infer import SwiftInfer
infer = SwiftInfer(arguments["infer"])
answers = infer.main()
model = infer.infer_engine.model
with torch.no_grad():
    torch.save(model(**torch.load(arguments["inputs"])).logits, arguments["logits"])
report["infer"] = {"answers": len(answers), "template": type(infer.template).__qualname__}

from swift.pipelines.train.sft import SwiftSft
class Spying(SwiftSft):
    def train(self, trainer):
        result = super().train(trainer)
        report["sft"] = {
            "trainer": type(trainer).__qualname__,
            "template": type(self.template).__qualname__,
            "groups": [group["name"] for group in trainer.optimizer.param_groups],
            "steps": trainer.state.global_step,
            "parts": sorted(key for key in trainer.state.log_history[0] if "/" in key and "lr/" not in key),
            "surgery": [name for name, one in model_of(trainer).named_parameters()
                        if one.requires_grad and "row_offset" in name and bool(one.any())],
        }
        return result
def model_of(trainer):
    return trainer.accelerator.unwrap_model(trainer.model)
Spying(arguments["sft"]).main()
print("REPORT" + json.dumps(report))
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, coord_base: Path) -> dict[str, Any]:
    """What the two commands used, and the logits of the model that `swift infer` serves beside the live ones."""
    from coordcore_train.checkpoint.merge.in_memory import load_live
    from coordcore_train.run.plan import load_run

    root = tmp_path_factory.mktemp("stock")
    run = support.train(root, coord_base, train=STEPS)
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    plan = load_run(run.path)
    assert plan.vocab is not None
    inputs = {"input_ids": torch.tensor([[72, *plan.vocab.ids[:4], plan.vocab.ids[999], 65]])}
    torch.save(inputs, root / "inputs.pt")
    with torch.no_grad():
        live = load_live(plan, checkpoint)(**inputs).logits

    Image.new("RGB", (32, 32), (9, 40, 90)).save(root / "image.png")
    answer = "[<|coord_5|>, <|coord_37|>, <|coord_500|>, <|coord_900|>]"
    row = {
        "messages": [{"role": "user", "content": "<image>find"}, {"role": "assistant", "content": answer}],
        "images": [str(root / "image.png")],
    }
    (root / "rows.jsonl").write_text((json.dumps(row) + "\n") * 4)
    arguments = {
        "inputs": str(root / "inputs.pt"),
        "logits": str(root / "logits.pt"),
        "infer": [
            *("--adapters", str(checkpoint), "--infer_backend", "transformers", "--max_new_tokens", "3"),
            *("--val_dataset", str(root / "rows.jsonl"), "--result_path", str(root / "result.jsonl")),
            *("--use_hf", "true"),
        ],
        "sft": [
            *("--model", str(coord_base), "--external_plugins", str(run.path / "swift_plugin.py")),
            *("--model_type", "coordcore_qwen3_vl", "--template", "coordcore_qwen3_vl"),
            *("--optimizer", "coordcore", "--modules_to_save", "row_offset"),
            *("--dataset", str(root / "rows.jsonl"), "--output_dir", str(root / "output"), "--max_steps", "2"),
            *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1", "--torch_dtype", "float32"),
            *("--fp16", "false", "--use_cpu", "true", "--report_to", "none", "--save_total_limit", "1"),
            *("--save_steps", "1", "--add_version", "false", "--use_hf", "true", "--check_model", "false"),
        ],
    }
    (root / "stock.py").write_text(SCRIPT)
    before = support.weights(run)
    done = support.python(str(root / "stock.py"), json.dumps(arguments), MODELSCOPE_CACHE=str(root / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout.rpartition("REPORT")[2])
    return {
        **report,
        "live": live,
        "served": torch.load(root / "logits.pt"),
        "untouched": all(torch.equal(tensor, before[key]) for key, tensor in support.weights(run).items()),
        "saved": sorted(path.name for path in (root / "output").iterdir() if path.is_dir()),
    }


def test_swift_infer_uses_the_runs_template(stock: dict[str, Any]) -> None:
    assert stock["infer"] == {"answers": 4, "template": "Template_qwen3_vl"}


def test_swift_infer_serves_the_live_surgery(stock: dict[str, Any]) -> None:
    assert_close_to_scale(stock["served"], stock["live"], ulps=64.0, what="the logits")


def test_swift_sft_trains_with_everything_of_the_run(stock: dict[str, Any]) -> None:
    assert stock["sft"] == {
        "trainer": "CoordTrainer",
        "template": "Template_qwen3_vl",
        "groups": ["decay"],
        "steps": 2,
        "parts": ["fake_bins/ce", "fake_bins/miss", "text_ce/ce"],
        "surgery": ["base_model.model.row_offset.modules_to_save.default.rows"],
    }


def test_swift_sft_saves_where_it_is_told(stock: dict[str, Any]) -> None:
    assert (stock["saved"], stock["untouched"]) == (["checkpoint-2"], True)
