"""Python that a checkpoint folder brings along: told, and refused where the manifest does not trust it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coordcore.errors import InputError, shortened
from coordcore.manifest.types import show
from coordcore_train.checkpoint.folder import read_json

KEY = "trust_remote_code"

_CURE = f"delete the key, or read that code and, if you trust it, set {KEY} = true under [model]"


def code_in(folder: Path) -> Iterator[str]:
    """Each place in `folder` that names Python which transformers or PEFT would run: file, key, name and reason.

    `auto_map` is looked for at any depth of every configuration that transformers reads: of the model, tokenizer and
    processors, and older versions of them ("config.4.0.0.json"). It names a class in a file of the folder, or, as
    "OWNER/NAME--module.Class", of somebody's repository on the hub; an attention implementation with a "/" names a
    kernel there. PEFT imports whatever `megatron_core` names. Raises InputError for a configuration that is not JSON.
    """
    for file in sorted(Path(folder).glob("*config*.json")):
        if not file.is_file():
            continue
        for key, value in _keys(read_json(file)):
            last = key.rpartition(".")[2]
            if last == "auto_map" and value:
                named = value.items() if isinstance(value, Mapping) else [("", value)]
                for name, reference in named:
                    place = shortened(f"{key}.{name}" if name else key, 200)
                    yield f"{file}: {place} names the class {show(reference)}: its Python would be run"
            elif last.endswith("attn_implementation") and isinstance(value, str) and "/" in value:
                yield f"{file}: {shortened(key, 200)} names the kernel {show(value)}, which would be fetched and run"
            elif last == "megatron_config" and value and file.name == "adapter_config.json":
                yield f"{file}: {shortened(key, 200)} makes PEFT import the module that megatron_core names"


def require_no_code(folder: Path, *, trusted: bool) -> None:
    """Raise InputError where `folder` names Python to run and the manifest's `[model]` does not trust it."""
    found = None if trusted else next(code_in(folder), None)
    if found is not None:
        raise InputError(f"{found}; {_CURE}")


def refusals(folder: Path, *, trusted: bool) -> Iterator[str]:
    """What `require_no_code` refuses, all of it."""
    if not trusted:
        yield from (f"{found}; {_CURE}" for found in code_in(folder))


def tell_of_trust(folder: Path, base: Path) -> None:
    """Say in the model card of a merged folder that the run trusted Python of its base, and what names it."""
    card = folder / "README.md"
    before = card.read_text(encoding="utf-8").rstrip() + "\n\n" if card.is_file() else ""
    card.write_text(before + trust_section(base), encoding="utf-8")


def trust_section(folder: Path) -> str:
    """What a model card says of a run that trusted Python, with what names it in `folder`."""
    named = [f"- `{found.removeprefix(f'{folder}/')}`\n" for found in code_in(folder)]
    return f"## Code\n\nMade with `{KEY} = true`: Python that lies in the base was run.\n\n{''.join(named)}"


def _keys(document: Any) -> Iterator[tuple[str, Any]]:
    """Every dotted key of a JSON document, with its value."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        path, value = waiting.pop()
        entries = value.items() if isinstance(value, Mapping) else ()
        for name, inner in entries:
            key = f"{path}.{name}" if path else name
            yield key, inner
            waiting.append((key, inner))
        if isinstance(value, list):
            waiting += [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
