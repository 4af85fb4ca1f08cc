"""From a checkpoint or run folder to a model that can be asked, and to the question it was trained on. Needs torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from coordcore.coords import DEFAULT_COORDS, PRESETS, CoordFormat, CoordVocab, MissingCoordTokensError
from coordcore.errors import InputError, RunError
from coordcore.quantisation import DEFAULT_QUANTISATION, Quantisation, require_same
from coordcore.records.answers import COORDJSON, Format
from coordcore_train.chat import Question, question_in
from coordcore_train.checkpoint.code import require_no_code
from coordcore_train.checkpoint.folder import own_tokens, read_checkpoint_info, require_ids, require_same_coords
from coordcore_train.run.folder import RunDir

if TYPE_CHECKING:
    from coordcore_detection.predict.corners import Proposer, Together
    from coordcore_train.run.plan import Plan


class Loaded(NamedTuple):
    """A model in eval mode on its device, and what is needed to ask it.

    vocab: None for a model that answers in plain numbers. max_pixels: to which images are reduced before the processor
    sees them, where that cannot be told to the processor. format: in which it was trained to answer. together: whether
    it has learned to say the corners of a box together. proposer: what tells them beforehand, where it is to be asked.
    """

    model: Any
    processor: Any
    vocab: CoordVocab | None
    quantisation: Quantisation
    max_pixels: int | None = None
    format: Format = COORDJSON
    together: bool = False
    proposer: Proposer | Together | None = None

    @property
    def coords(self) -> CoordFormat:
        """Its coord tokens; the default where it has none."""
        return self.vocab.format if self.vocab else DEFAULT_COORDS


NUMBERS = attrs.evolve(COORDJSON, name="numbers", numbers=True)
"""How a model answers that was not trained here and writes plain numbers: in some list of JSON, or tags."""


def load(
    path: Path,
    device: str,
    *,
    quantisation: Quantisation | None = None,
    coords: CoordFormat | None = None,
    numbers: bool = False,
) -> Loaded:
    """Load a plain checkpoint folder, a run folder (its merged checkpoint, else its newest one, the adapter live), or
    one of a run's checkpoints.

    A model in a run's folder sees images as large as in training and, on a CPU, runs on as many threads.

    quantisation: of the answers; needed for a plain folder that records none and is not nearest_999. coords: its
    coord tokens, needed for a plain folder that records none and has others than the default. numbers: a plain folder
    that records nothing answers in plain numbers.
    Raises InputError for a folder that is none of these, for files that are missing, broken or incomplete, for a model
    without coord tokens, for a `quantisation` or `coords` other than the recorded ones, for "cuda" without a GPU, and
    for a folder that names Python to run, unless it is that of a run whose manifest trusts it.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: torch sees no GPU; use cpu")
    run, folder = run_and_folder(path)
    if (folder / "config.json").is_file() and not _is_live(folder):
        info = read_checkpoint_info(folder)
        recorded = info.quantisation if info else None
        said = info.vocab.format if info and info.vocab else None
        form = info.format if info else COORDJSON
        together = info is not None and info.parallel_boxes
        # On a CPU half precision costs speed and saves nothing.
        dtype = torch.float32 if device == "cpu" else "auto"
        trusted = run is not None and manifest_of(run).get("model", {}).get("trust_remote_code") is True
        require_no_code(folder, trusted=trusted)
        with _readable(folder):
            model, report = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, trust_remote_code=trusted
            )
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trusted)
        # transformers fills them with random numbers, and goes on.
        if absent := sorted(report["missing_keys"]):
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise InputError(f"{folder}: its files lack the weights {absent[0]}{more}; merge or copy it again")
    elif run is not None:
        plan = _plan(run)
        recorded, said, form = plan.quantisation, plan.coords, plan.format
        together = plan.manifest.train.parallel_boxes > 0
        with _readable(folder):
            model = _live(plan, folder)
        processor = AutoProcessor.from_pretrained(plan.base, trust_remote_code=plan.trusted)
    else:
        raise _no_checkpoint(path)
    if recorded is not None and quantisation is not None:
        require_same(recorded, quantisation, str(folder), "the quantisation asked for")
    if said is not None and coords is not None:
        require_same_coords(said, coords, str(folder), "the run")
    config = model.config.get_text_config()
    if numbers and not form.numbers:
        if recorded is not None:
            raise InputError(
                f"{folder}: was trained to write coord tokens; leave plain numbers to models that write them"
            )
        form = NUMBERS
    max_pixels = None if run is None else _as_trained(processor, run, device)
    model = model.eval().requires_grad_(False).to(device)
    found = Loaded(model, processor, None, recorded or quantisation or DEFAULT_QUANTISATION, max_pixels, form, together)
    return found if form.numbers else found._replace(vocab=_coord_tokens(folder, processor, config, said or coords))


def _no_checkpoint(path: Path) -> InputError:
    return InputError(
        f"{path}: neither a checkpoint (config.json) nor a run folder (manifest.resolved.toml); "
        "give runs/NAME, or a merged checkpoint"
    )


def _coord_tokens(folder: Path, processor: Any, config: Any, coords: CoordFormat | None) -> CoordVocab:
    """The coord tokens of a checkpoint. config: of its language model. Raises InputError."""
    wanted = coords or DEFAULT_COORDS
    try:
        vocab = CoordVocab.from_tokenizer(processor.tokenizer, wanted, config_vocab_size=config.vocab_size)
    except MissingCoordTokensError as error:
        own = [f"--coords {name}" if name in PRESETS else "leave out --coords" for name in own_tokens(folder)]
        hint = f"; it has its own: {' or '.join(own)}" if own else "; if it answers in plain numbers, say --numbers"
        raise InputError(f"{folder}: {wanted}: {error}{hint}") from error
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    require_ids(folder, dict(zip(vocab.format.written, vocab.ids, strict=True)))
    return vocab


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Name the folder when its files are missing, cut off, or do not belong together. Raises InputError."""
    from safetensors import SafetensorError

    try:
        yield
    except (InputError, RunError):
        raise
    # What transformers, tokenizers and peft raise for such files.
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot be loaded: {' '.join(str(error).split())}") from error


def question_of(path: Path) -> tuple[str, str | None]:
    """The question and the system message that the model at `path` was trained on: those that its `coordcore.json` has,
    or the run that it belongs to, or those of the first example of that run.

    Raises InputError for a folder that is no checkpoint, and when neither tells: for a folder of no run, when the run's
    data cannot be read, and when its examples are no single question on one image.
    """
    cure = "give the question with --question"
    run, folder = run_and_folder(path)
    if (asked := _recorded(run, folder)) is not None:
        return asked.text, asked.system
    if run is None and not (folder / "config.json").is_file():
        raise _no_checkpoint(path)
    if run is None:
        raise InputError(f"{path}: belongs to no run, so that the question it was trained on is not known; {cure}")
    plan = _plan(run)
    try:
        examples = plan.data.validation() or plan.data.train()
        messages = list(examples[0].messages)
    except (InputError, IndexError) as error:
        raise InputError(
            f"{run}: the question is read from the run's data, which cannot be: {error}; {cure}"
        ) from error
    question = question_in(messages)
    if question is None:
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"{run}: its examples are no single question on one image ({roles}); {cure}")
    return question.text, question.system


def prompts_of(path: Path) -> Mapping[str, str]:
    """By task, the prompts that the model at `path` was trained on; empty where it was trained on no tasks, or where
    neither its `coordcore.json` nor a run tells."""
    asked = _recorded(*run_and_folder(path))
    return (asked.prompts if asked is not None else None) or {}


def _recorded(run: Path | None, folder: Path) -> Question | None:
    """What `coordcore.json` or the run says that was asked."""
    info = read_checkpoint_info(folder)
    if info is not None and info.question is not None:
        return info.question
    return None if run is None else RunDir(run).question()


def weights_digest(path: Path) -> str:
    """A short digest of the names, sizes and times of the weight files, to tell two trainings in one folder apart."""
    _, folder = run_and_folder(path)
    files = sorted(item for item in folder.glob("*") if item.suffix in (".safetensors", ".bin"))
    text = "\n".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_and_folder(path: Path) -> tuple[Path | None, Path]:
    """The run that `path` is or lies in, if any, and the folder with the weights. Raises InputError."""
    path = path.absolute()
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    run = next((item for item in (path, path.parent, path.parent.parent) if RunDir(item).manifest.is_file()), None)
    if run != path:
        return run, path
    folder = RunDir(path)
    if (folder.merged / "config.json").is_file():
        return run, folder.merged
    newest = folder.last_checkpoint()
    if newest is None:
        raise InputError(f"{path}: has no complete checkpoint yet; train it with `coordcore run`")
    return run, newest


def _is_live(folder: Path) -> bool:
    """Whether the folder is a run's checkpoint, which needs the run's adapters and surgeries."""
    return (folder / "trainer_state.json").is_file() or (folder / "adapter_config.json").is_file()


def _plan(run: Path) -> Plan:
    from coordcore_train.run.plan import load_run

    return load_run(run)


def _live(plan: Plan, checkpoint: Path) -> Any:
    """The model as it trained. The adapter's layers sit in the plain model, which `generate` knows how to drive."""
    from coordcore.discovery import discover
    from coordcore_train.engine import engine_of

    model: Any = engine_of(discover()).bind(plan, checkpoint)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _as_trained(processor: Any, run: Path, device: str) -> int | None:
    """Show images as large as training did; on a CPU, use as many threads.

    Returns to how many pixels images are to be reduced beforehand, None where the processor itself does it.
    """
    from coordcore_train.run.launch import set_threads

    train = manifest_of(run).get("train", {})
    if device == "cpu":
        set_threads(train.get("threads"))
    max_pixels: int | None = train.get("max_pixels")
    if max_pixels is None or RunDir(run).image_tokens() is None:
        return max_pixels
    size = processor.image_processor.size
    size["longest_edge"] = min(size["longest_edge"], max_pixels)
    return None


def manifest_of(run: Path) -> dict[str, Any]:
    """The manifest of a run, as it is: a merged checkpoint can be asked without the plugins that it names."""
    import tomli

    return tomli.loads(RunDir(run).manifest.read_text(encoding="utf-8"))
