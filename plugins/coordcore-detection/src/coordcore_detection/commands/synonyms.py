"""`coordcore synonyms`: a table of synonyms, proposed by a text embedding model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coordcore_detection.evaluate.embedding import Meant


def command(
    evaluation: Annotated[
        Path, typer.Argument(metavar="EVALUATION", help="An evaluation file or a run: its labels are looked at.")
    ],
    model: Annotated[Path, typer.Option(metavar="DIR", help="Folder of a text embedding model (a BERT or the like).")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the table goes (TOML).")],
    least: Annotated[float, typer.Option(min=-1.0, max=1.0, help="Cosine from which on two labels are one.")] = 0.8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
) -> None:
    """Propose a table of synonyms: for each predicted label that no true box has, the nearest true label.

    The table says every cosine, for a person to read and correct; `coordcore eval --synonyms FILE` takes it.
    """
    from coordcore import InputError
    from coordcore.files import require_writable
    from coordcore_detection.evaluate import embedding, results
    from coordcore_detection.extra import require_train

    if not -1 <= least <= 1:  # nan passes typer's bounds
        raise InputError(f"--least: {least} is no cosine; give a number from -1 to 1")
    require_train("a table of synonyms by embeddings")
    from coordcore_train.run.quiet import quiet, quiet_transformers

    quiet()
    quiet_transformers()
    require_writable(output, results.file_in(evaluation), overwrite=overwrite)
    detail = results.read(evaluation).detail
    true = {detail.labels[number] for number in detail.truth_label}
    names = sorted(filter(str.strip, true))  # a label without a letter means nothing
    labels = sorted(filter(str.strip, {detail.labels[number] for number in detail.label} - true))
    if not labels or not names:
        missing = "predicted label that no true box has" if names else "true box"
        raise InputError(f"{evaluation}: has no {missing}, so there is nothing to propose")
    found = embedding.nearest(labels, names, embedding.embed(model, [*labels, *names]))
    results.write_text(table(found, least), output)
    taken = sum(item.cosine >= least for item in found)
    typer.echo(f"{output}: {taken} of {len(found)} labels are taken for one of {len(names)} names; read it before use")


def table(found: list[Meant], least: float) -> str:
    """TOML of what is meant, with the cosines as comments; labels that mean no name are comments too."""
    lines = []
    kept = [item for item in found if item.cosine >= least]
    for name in sorted({item.name for item in kept}):
        meant = sorted((item for item in kept if item.name == name), key=lambda item: -item.cosine)
        lines += [f"# {_quoted(item.label)}: {item.cosine:.3f}" for item in meant]
        lines.append(f"{_quoted(name)} = [{', '.join(_quoted(item.label) for item in meant)}]")
    lines += [
        f"# {_quoted(item.label)} stays itself: the nearest name is {_quoted(item.name)}, {item.cosine:.3f}"
        for item in found
        if item.cosine < least
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of TOML on one line; JSON's are, but for characters that only TOML wants escaped."""
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
