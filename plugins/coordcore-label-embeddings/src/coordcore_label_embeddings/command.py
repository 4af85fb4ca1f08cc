"""`coordcore synonyms`: a table of synonyms, proposed by a text embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    from coordcore_detection.evaluate import results
    from coordcore_label_embeddings import embedding, proposal
    from coordcore_label_embeddings.evaluator import BY_TEXT

    if not -1 <= least <= 1:  # nan passes typer's bounds
        raise InputError(f"--least: {least} is no cosine; give a number from -1 to 1")
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
        by_text = results.file_in(evaluation).with_name(BY_TEXT)
        cure = f"; it was measured with synonyms, and by equal text in {by_text}" if by_text.is_file() else ""
        raise InputError(f"{evaluation}: has no {missing}, so there is nothing to propose{cure}")
    try:
        found = embedding.nearest(labels, names, embedding.embed(model, [*labels, *names]))
    except InputError as error:
        raise InputError(f"--model: {error}") from error
    results.write_text(proposal.table(found, least), output)
    taken = sum(item.cosine >= least for item in found)
    typer.echo(f"{output}: {taken} of {len(found)} labels are taken for one of {len(names)} names; read it before use")
