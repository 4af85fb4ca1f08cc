"""The table of kinds of component: what a manifest section can select. A new kind is one row. Torch-free.

Hooks, manifest sections, `coordcore schema` and `plugins`, the conformance kit and the table in docs/reference/hooks.md
are made from these rows.
"""

from __future__ import annotations

from typing import Any, Literal

HowMany = Literal["one", "some", "any"]
"""How many components of a kind a run has: exactly one, at least one, or any number."""


class Kind(str):
    """A row of the table. It is the name of its manifest section, too: `[loss.<name>]` belongs to the kind "loss".

    noun, plural: what messages call one and several; the plural is the noun with an "s" unless given.
    protocol: the class in `coordcore.protocols` that a component of this kind builds.
    how_many: in a run. default: the component of a run that names none, None where it must name one or has none.
    order: what the order in the file means, for `coordcore schema`; empty where there can be only one.
    changes_weights: whether a run that was cut off must continue with the same ones.
    kit: whether `coordcore.testing.<section>_checks` has checks of this kind beside those of every kind.
    note: what an author of such a component must know, the end of the hook's documentation.
    """

    noun: str
    plural: str
    protocol: str
    how_many: HowMany
    default: str | None = None
    order: str = ""
    changes_weights: bool = True
    kit: bool = True
    note: str = ""

    def __new__(cls, section: str, **columns: Any) -> Kind:
        if unknown := columns.keys() - cls.__annotations__.keys():
            raise TypeError(f"the table of kinds has no column {', '.join(sorted(unknown))}")
        kind = super().__new__(cls, section)
        vars(kind).update({"plural": f"{columns['noun']}s", **columns})
        return kind

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:  # for copies and pickles
        return (str(self),), vars(self)

    @property
    def hook(self) -> str:
        """The function by which a plugin offers components of this kind."""
        return f"coordcore_{self.plural.replace(' ', '_')}"

    @property
    def required(self) -> bool:
        """Whether a manifest must name one."""
        return self.how_many != "any" and self.default is None

    @property
    def single(self) -> bool:
        """Whether a run has exactly one, so that a manifest's replaces the one of the manifest it extends."""
        return self.how_many == "one"

    @property
    def amount(self) -> str:
        """How many a manifest names, in words."""
        if self.default is not None:
            return f"one; {self.default} when absent"
        words = {"one": "exactly one", "some": "at least one", "any": "any number"}[self.how_many]
        return f"{words}, {self.order}" if self.order else words


_SUPERVISION = """`build` may give a list of terms. A loss that supervises coord positions says so:
`provides=lambda config: [coordcore.COORD_SUPERVISION]`."""
_BUILT = "Built without a run, too: what `build` gives depends on the config alone."
_MERGED = "Called when the run is merged. A run that was cut off can be continued with others."
_AFTER: Any = {"changes_weights": False, "kit": False}  # what it finds depends on a trained checkpoint
_APPLIED, _CALLED = "applied in the order of the file", "called in the order of the file"

DATA = Kind("data", noun="data builder", protocol="DataBuilder", how_many="one")
FORMAT = Kind("format", noun="answer format", protocol="AnswerFormat", how_many="one", default="coordjson", note=_BUILT)
TEMPLATE = Kind("template", noun="template adapter", protocol="TemplateAdapter", how_many="one", default="plain")
SURGERY = Kind("surgery", noun="surgery", plural="surgeries", protocol="RowSurgery", how_many="any", order=_APPLIED)
LOSS = Kind("loss", noun="loss", plural="losses", protocol="LossTerm", how_many="some", note=_SUPERVISION)
OPTIMIZER = Kind("optimizer", noun="optimizer", protocol="OptimizerFactory", how_many="one", default="adamw")
EVAL = Kind("eval", noun="evaluator", protocol="Evaluator", how_many="any", order=_CALLED, note=_MERGED, **_AFTER)

KINDS: tuple[Kind, ...] = (DATA, FORMAT, TEMPLATE, SURGERY, LOSS, OPTIMIZER, EVAL)
"""Every kind, in the order in which a run builds and lists them."""
