"""The model card of a merged checkpoint: README.md with front matter, written from `Facts` alone. Torch-free."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tomli_w

from coordcore.coords import DEFAULT_COORDS
from coordcore.errors import printable
from coordcore.quantisation import Quantisation
from coordcore.records.answers import Located, answer_text
from coordcore.records.geometry import COUNTS
from coordcore_train.checkpoint.folder import CheckpointInfo
from coordcore_train.hub.facts import Facts, RunFacts

_MARK = re.compile(r"\n<!-- written by coordcore push: ([0-9a-f]{64}) -->\n\Z")


def card(facts: Facts, name: str, repository: str, revision: str | None, code: str) -> str:
    """The text of the card. name: of the model. code: a section on Python that the base brought along, or nothing.

    Ends with a mark by which `is_untouched` knows it again.
    """
    parts = [_front_matter(facts), f"# {name}\n", *_opening(facts), *_use(facts, repository, revision)]
    if facts.info is not None:
        parts += _answers(facts.info)
    if facts.run is not None:
        parts += [*_training(facts.run), *_evaluation(facts.run)]
    parts += [*_limits(facts), *([code] if code else [])]
    if facts.run is not None:
        parts += ["## Manifest\n", f"```toml\n{tomli_w.dumps(facts.run.manifest)}```\n"]
    text = "\n".join(parts)
    return f"{text}\n<!-- written by coordcore push: {_hash(text)} -->\n"


def is_untouched(text: str) -> bool:
    """Whether `text` is a card as `card` wrote it, without a change since."""
    mark = _MARK.search(text)
    return mark is not None and _hash(text[: mark.start()]) == mark[1]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _front_matter(facts: Facts) -> str:
    from huggingface_hub import ModelCardData

    own = {"base_model": facts.run.base_id, "base_model_relation": "finetune"} if facts.run else {}
    data = ModelCardData(
        **(own if own.get("base_model") else {}),
        **facts.licence,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["coordcore", "visual-grounding", *(["coord-tokens"] if facts.info and facts.info.vocab else [])],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _opening(facts: Facts) -> Iterator[str]:
    run, info = facts.run, facts.info
    if run is not None:
        at = f" (at commit {run.commit})" if run.commit else ""
        base = f"[{run.base}](https://huggingface.co/{run.base_id})" if run.base_id else _code(run.base)
        name = _code(run.manifest["name"])
        yield f"{base}{at}, fine-tuned with coordcore {run.versions['coordcore']}: the run {name}.\n"
    if info is not None and info.vocab is not None:
        tokens = info.vocab.format.written
        yield f"It writes coordinates as tokens, `{tokens[0]}` to `{tokens[-1]}`.\n"
    elif info is not None:
        yield "It writes coordinates as plain numbers.\n"
    if facts.licence.get("license"):
        yield "The licence in the head of this card is the one that the base's card names.\n"


def _use(facts: Facts, repository: str, revision: str | None) -> Iterator[str]:
    at = f', revision="{revision}"' if revision else ""
    trust = ", trust_remote_code=True" if facts.trusted else ""
    question = facts.info.question if facts.info else None
    asked = repr(question.text) if question else '"..."  # each example of its training asked a question of its own'
    system = f'    {{"role": "system", "content": {question.system!r}}},\n' if question and question.system else ""
    yield "## Use\n"
    yield f"""\
```python
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("{repository}"{at}{trust})
model = AutoModelForImageTextToText.from_pretrained("{repository}"{at}{trust}, dtype="auto")
image = Image.open("picture.jpg").convert("RGB")
question = {asked}
messages = [
{system}    {{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": question}}]}},
]
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
inputs = processor(text=[text], images=[image], return_tensors="pt").to(model.device)
with torch.no_grad():
    output = model.generate(**inputs, do_sample=False, max_new_tokens=2048)
answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=False)
```
"""
    if facts.info is not None:
        at = f" --revision {revision}" if revision else ""
        yield "With coordcore, which asks the same, keeps answers to their format, and gives boxes in pixels:\n"
        yield f"""\
```sh
hf download {repository}{at} --local-dir model
coordcore predict model pictures/ --output predictions.jsonl
```
"""


def _answers(info: CheckpointInfo) -> Iterator[str]:
    yield "## Answers\n"
    if info.question is not None:
        yield f"Asked in every example: {_code(info.question.text)}\n"
        if info.question.system:
            yield f"System message: {_code(info.question.system)}\n"
        if info.question.prompts:
            yield _rows(("task", "question"), [(task, _code(said)) for task, said in info.question.prompts.items()])
    yield f"Format `{info.format.name}`:\n"
    example = _example(info)
    fence = "`" * max(3, _longest_fence(example) + 1)
    yield f"{fence}\n{example}\n{fence}\n"
    coords = info.vocab.format if info.vocab else DEFAULT_COORDS
    order = "y first" if coords.order == "yx" and not info.format.numbers else "x first"
    yield f"Coordinates are bins, {order}. {_decoding(info.quantisation)}\n"
    if info.parallel_boxes:
        yield "It can say the four corners of a box in one pass: `coordcore predict --parallel fast --tolerance 999`.\n"


def _example(info: CheckpointInfo) -> str:
    """An answer with one object in the format of the model."""
    kind = "bbox_2d" if "bbox_2d" in info.format.places else next(iter(info.format.places))
    shares = (0.1, 0.2, 0.4, 0.2, 0.4, 0.6, 0.1, 0.6) if kind != "bbox_2d" else (0.1, 0.2, 0.4, 0.6)
    bins = tuple(int(share * info.quantisation.bins) for share in shares[: COUNTS[kind] or 6])
    coords = info.vocab.format if info.vocab else DEFAULT_COORDS
    located = Located(desc="red circle", kind=kind, bins=bins)
    return answer_text([located], coord_tokens=not info.format.numbers, form=info.format, coords=coords)


def _decoding(spec: Quantisation) -> str:
    inset = f" - {spec.inset:g}" if spec.inset else ""
    shifted = f"(k + {spec.decode_shift:g})" if spec.decode_shift else "k"
    span = f"(size{inset})" if inset else "size"
    return (
        f"Convention {spec}: bin k, of 0 to {spec.bins - 1}, is pixel {shifted} / {spec.decode_scale:g} * {span} of an "
        f"axis of `size` pixels."
    )


def _training(run: RunFacts) -> Iterator[str]:
    train = run.manifest["train"]
    data = ", ".join(f"{_code(name)}: {_told(settings)}" for name, settings in run.manifest.get("data", {}).items())
    examples = ", ".join(f"{count:,} {name}" for name, count in run.examples.items())
    batch = f"{train['batch_size']} examples x {train['accumulation']} micro-batches x {run.ranks} ranks"
    rows = {
        "data": data,
        "files": ", ".join(f"{_code(name)} ({said})" for name, said in run.files.items()),
        "examples": examples,
        "steps": f"{run.training['step']:.9g}" if "step" in run.training else "",
        "epochs": f"{run.training['epoch']:.3g}" if "epoch" in run.training else "",
        "batch": batch,
        "learning rate": f"{train['learning_rate']:g}, {train['schedule']}, warmup {train['warmup']:g}",
        "seed": str(train["seed"]),
        "tuner": _told(run.manifest.get("tuner", {})),
        **{kind: ", ".join(map(_code, run.manifest.get(kind, {}))) for kind in ("surgery", "loss", "optimizer")},
        "made with": ", ".join(f"{name} {version}" for name, version in run.versions.items() if version),
    }
    yield "## Training\n"
    yield _rows(("", ""), [(name, value) for name, value in rows.items() if value])
    if run.training:
        yield _rows(("last logged", "training", "held out"), _losses(run))


def _losses(run: RunFacts) -> Iterator[tuple[str, str, str]]:
    for name, value in run.training.items():
        if name not in ("step", "epoch", "grad_norm", "learning_rate") and not name.startswith("lr/"):
            held = run.held_out.get(f"eval_{name}")
            yield name, f"{value:.4g}", "" if held is None else f"{held:.4g}"


def _evaluation(run: RunFacts) -> Iterator[str]:
    yield "## Evaluation\n"
    if not run.evaluations:
        yield "None was made by the run.\n"
    for name, metrics in run.evaluations.items():
        settings = run.manifest.get("eval", {}).get(name, {})
        yield f"{_code(name)}, on the examples that the run held out: {_told(settings)}\n"
        yield _rows(("metric", ""), [(metric, f"{value:.4g}") for metric, value in metrics.items()])


def _limits(facts: Facts) -> Iterator[str]:
    lines = []
    if facts.pixels is not None:
        lines.append(
            f"The processor reduces images to {facts.pixels:,} pixels{', as in training' if facts.run else ''}."
        )
    elif facts.limits is not None:
        lines.append(f"The processor brings images to a size by `{facts.limits}`.")
    if facts.info is not None:
        lines.append(f"A coordinate is one of {facts.info.quantisation.bins} places along the image, and no finer.")
    if facts.run is not None:
        lines.append(f"An example of its training had at most {facts.run.manifest['train']['max_length']:,} tokens.")
        measured = "What was measured, was measured on examples that its data builder held out."
        lines.append(measured if facts.run.evaluations else "Nothing was measured.")
    yield "## Limits\n"
    yield "".join(f"- {line}\n" for line in lines)


def _told(settings: Any) -> str:
    """Settings in a line: `key = value`, tables in braces."""
    if isinstance(settings, Mapping):
        return ", ".join(f"{key} = {_value(value)}" for key, value in settings.items())
    return _value(settings)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{_told(value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return _code(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value}"


def _rows(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table, whatever its cells hold."""
    titles = list(titles)
    cells = [[printable(" ".join(cell.split())).replace("|", "\\|") for cell in row] for row in (titles, *rows)]
    cells.insert(1, ["---"] * len(titles))
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _longest_fence(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _code(text: str) -> str:
    """A text as code in a line of Markdown, whatever backticks and line breaks it holds."""
    text = printable(" ".join(text.splitlines()))
    fence = "`" * (_longest_fence(text) + 1)
    return f"{fence} {text} {fence}" if "`" in text or not text.strip() else f"{fence}{text}{fence}"
