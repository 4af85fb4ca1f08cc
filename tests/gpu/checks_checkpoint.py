"""From a base without coord tokens to predictions: expanded, trained a little, merged, saved, asked by the grammar."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reference import coord_terms, only, text_terms
from setting import Setting, check, error, require
from torch import Tensor

STEPS = 12


def expand_merge_predict(setting: Setting) -> dict[str, Any]:
    """On a tiny Qwen3-VL of random weights, in bfloat16 on a GPU and float32 on the CPU."""
    require("torchvision", "PIL", "peft")
    with tempfile.TemporaryDirectory() as folder:
        return {"checks": _checks(setting, Path(folder))}


def _checks(setting: Setting, folder: Path) -> list[dict[str, Any]]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from coordcore_detection.predict import asking
    from coordcore_train.checkpoint.expand import expand
    from coordcore_train.checkpoint.folder import read_checkpoint_info, write_checkpoint_info
    from coordcore_train.testing.tiny import tiny_qwen3vl

    report = expand(tiny_qwen3vl(folder / "base", coord_tokens=False), folder / "expanded")
    dtype = torch.bfloat16 if setting.cuda else torch.float32
    base = AutoModelForImageTextToText.from_pretrained(report.output, dtype=dtype).to(setting.device)
    losses, live, merged = _trained_and_merged(setting, base, report.vocab)
    base.save_pretrained(folder / "merged")
    AutoProcessor.from_pretrained(report.output).save_pretrained(folder / "merged")
    info = read_checkpoint_info(report.output)
    assert info is not None
    write_checkpoint_info(folder / "merged", quantisation=info.quantisation, vocab=report.vocab)

    loaded = asking.load(folder / "merged", setting.device)
    ids = _ids(report.vocab).to(setting.device)
    with torch.no_grad():
        saved = loaded.model(input_ids=ids, use_cache=False).logits
    settings = asking.PredictSettings(max_new_tokens=setting.size(160, 48), max_objects=3, batch_size=2)
    rows = list(
        asking.predict(
            loaded.model, loaded.processor, _images(3), settings, vocab=loaded.vocab, quantisation=loaded.quantisation
        )
    )
    unread = [row for row in rows if row.unread or not _is_json(row.text)]
    # The merged rows are rounded to the dtype of the weights.
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-4
    return [
        check("last loss, of the first", losses[-1] / losses[0], 0.9),
        check("merged logits against the live model's", error(merged, live), tolerance),
        check("saved and loaded logits against the merged model's", error(saved, merged), 1e-3),
        check("images without an answer", 3 - len(rows), 0),
        check("answers that are not of the format", len(unread), 0),
    ]


def _trained_and_merged(setting: Setting, base: Any, vocab: Any) -> tuple[list[float], Tensor, Tensor]:
    """The losses, the logits of the live model and of `base`, into which adapter and offsets are merged."""
    from peft import LoraConfig, get_peft_model

    from coordcore_coord_offset import CoordOffsetSurgery, merge_coord_offsets
    from coordcore_train.objective import Objective, loss_in_forward, make_targets
    from coordcore_train.surgery.rows import LiveRows

    surgery = LiveRows(CoordOffsetSurgery())
    surgery.install(base, vocab)
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=list(surgery.modules_to_save))
    model = get_peft_model(base, config)
    surgery.rebind(model)
    surgery.verify(model)
    labels = _ids(vocab)
    labels[:, :8] = -100
    targets = {name: target.to(setting.device) for name, target in make_targets(labels, vocab).items()}
    ids = _ids(vocab).to(setting.device)
    every = only(ce_weight=1.0, soft_ce_weight=1.0, w1_weight=1.0, gate_weight=1.0, text_gate_weight=1.0)
    compute = Objective([*text_terms(), *coord_terms(every)], vocab)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=2e-2), []
    for _ in range(STEPS):
        with loss_in_forward(model, compute, targets, surgeries=[surgery]) as outputs:
            model(input_ids=ids, use_cache=False)
        outputs[0].loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(outputs[0].loss))
    model.eval()
    with torch.no_grad():
        live = model(input_ids=ids, use_cache=False).logits
        model.merge_and_unload()
        merge_coord_offsets(base)
        merged = base(input_ids=ids, use_cache=False).logits
    return losses, live, merged


def _ids(vocab: Any) -> Tensor:
    """[2, 32] tokens, half of them coord tokens."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(40, 90, (2, 32), generator=random)
    ids[:, 1::2] = torch.tensor(vocab.ids)[torch.randint(0, 1000, (2, 16), generator=random)]
    return ids


def _images(count: int) -> list[Any]:
    from PIL import Image

    from coordcore_detection.evaluate.truth import TruthImage

    def image(number: int) -> Any:
        width, height = 48 + 8 * number, 64 - 8 * number
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return TruthImage(
            key=f"{number}.png",
            width=width,
            height=height,
            labels=(),
            boxes=np.zeros((0, 4)),
            crowd=np.zeros(0, dtype=bool),
            open=lambda: Image.fromarray(pixels),
            messages=({"role": "user", "content": "<image>Find."},),
        )

    return [image(number) for number in range(count)]


def _is_json(text: str) -> bool:
    try:
        return set(json.loads(re.sub(r"<\|coord_(\d+)\|>", r"\1", text))) == {"objects"}
    except ValueError:
        return False
