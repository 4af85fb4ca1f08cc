"""About which labels a model is asked, and the table that its answer makes."""

from __future__ import annotations

from pathlib import Path

from embedding_support import BOX, row, truth

from coordcore_detection.evaluate import synonyms
from coordcore_label_embeddings.embedding import Meant
from coordcore_label_embeddings.proposal import merged, table, unknown_and_known

HARD_HAT = Meant(label="hard hat", name="helmet", cosine=0.9)
CASQUE = Meant(label="casque", name="helmet", cosine=0.95)
SOFA = Meant(label="sofa", name="dog", cosine=0.4)


def test_predicted_labels_that_the_truth_does_not_have_are_asked_about() -> None:
    rows = [row("a", [("hard hat", BOX), ("dog", BOX)]), row("b", [("cat", BOX)])]
    images = [truth("a", [("helmet", BOX)]), truth("b", [("dog", BOX)])]
    assert unknown_and_known(images, rows) == (["cat", "hard hat"], ["dog", "helmet"])


def test_labels_that_somebody_looked_for_are_known() -> None:
    images = [
        truth("a", [], points=(("eye", 1.0, 2.0),), absent=("cat",)),
        truth("b", [], incomplete=("bird",), categories=("cow",)),
    ]
    rows = [row("a", [(label, BOX) for label in ("eye", "cat", "bird", "cow", "kitten")])]
    assert unknown_and_known(images, rows) == (["kitten"], ["bird", "cat", "cow", "eye"])


def test_labels_without_a_letter_are_left_alone() -> None:
    assert unknown_and_known([truth("a", [("", BOX)])], [row("a", [(" ", BOX)])]) == ([], [])


def test_a_given_table_is_read_first() -> None:
    images = [truth("a", [("hard hat", BOX)])]
    rows = [row("a", [("casque", BOX), ("toque", BOX), ("hot dog", BOX)])]
    given = {"helmet": ("casque", "hard hat"), "hot dog": ()}
    assert unknown_and_known(images, rows, given) == (["toque"], ["helmet", "hot dog"])


def test_labels_from_least_on_are_alternatives() -> None:
    assert merged([CASQUE, HARD_HAT, SOFA], 0.9) == {"helmet": ("casque", "hard hat")}
    assert merged([CASQUE, HARD_HAT, SOFA], 0.91, {"helmet": ("toque",)}) == {"helmet": ("casque", "toque")}
    assert merged([], 0.5, {"hot dog": ()}) == {"hot dog": ()}


def test_the_file_is_the_table_that_was_merged(tmp_path: Path) -> None:
    path = tmp_path / "names.toml"
    given = {"helmet": ("toque",), "hot dog": ()}
    path.write_text(table([CASQUE, HARD_HAT, SOFA], 0.5, given), encoding="utf-8")
    assert synonyms.read(path) == merged([CASQUE, HARD_HAT, SOFA], 0.5, given)
    assert path.read_text(encoding="utf-8").splitlines() == [
        '# "casque": 0.950',
        '# "hard hat": 0.900',
        '"helmet" = ["toque", "casque", "hard hat"]',
        '"hot dog" = []',
        '# "sofa" stays itself: the nearest name is "dog", 0.400',
    ]
