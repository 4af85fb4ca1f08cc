"""What a data builder gives wrongly stops the run with its section, its plugin and what to give instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import attrs
import numpy
import pytest
import support
from PIL import Image

from coordcore import COORD_SUPERVISION, Example, Geometry, kinds
from coordcore.components import Selected
from coordcore.coords import DEFAULT_COORDS
from coordcore.errors import InputError, RunError
from coordcore.manifest import Loaded
from coordcore.records.answers import COORDJSON, Format
from coordcore.records.answers.format import Coords, Label
from coordcore_train.run.built import asked
from coordcore_train.run.folder import RunDir
from coordcore_train.run.given import counted, example_of, require_unplaced, require_written
from coordcore_train.run.plan import plan_of
from coordcore_train.run.session import run
from coordcore_train.swift import pipeline
from coordcore_train.swift.pipeline import sampled
from coordcore_train.swift.rows import Rows

ARROWS = Format(
    name="arrows",
    label=(Label(without="<;>"),),
    amid=" -> ",
    places={"bbox_2d": (Coords("bbox_2d", between=" "),)},
    between="; ",
    nothing="nothing",
)
LISTED = attrs.evolve(COORDJSON, name="listed", opening="[", closing="]")
WHO = "data.mine of plugin strange"
RIGHT = Example.boxes(
    [("ring", (1, 2, 30, 40))], image=Image.new("RGB", (64, 64)), image_size=(64, 64), prompt="Find.", source="a:1"
)
BOX = RIGHT.geometries[0]


def messages(question: Any = "<image>Find.", answer: Any = "yes", role: str = "assistant") -> Any:
    return ({"role": "user", "content": question}, {"role": role, "content": answer})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no answer": ({"messages": messages()[:1]}, "must end with an answer"),
    "a question last": ({"messages": (*messages(), messages()[0])}, "must end with an answer"),
    "another role": ({"messages": messages(role="gpt")}, r"messages\[1\]: role must be one of .*, got 'gpt'"),
    "no text": ({"messages": messages(answer=None)}, r"messages\[1\]: content must be text, got None"),
    "parts": ({"messages": messages(question=[{"type": "image"}])}, r"messages\[0\]: content must be text"),
    "one message": ({"messages": {"role": "user"}}, "messages must be a list, got a table"),
    "a text": ({"messages": ("hello",)}, r"messages\[0\] must be a dict of role and content, got 'hello'"),
    "no place for an image": ({"messages": messages("Find.")}, "hold 0 <image> for 1 images; write one where"),
    "two places": ({"messages": messages("<image><image>")}, "hold 2 <image> for 1 images"),
    "an array": ({"images": (numpy.zeros((4, 4, 3)),)}, "got ndarray; PIL.Image.fromarray makes one"),
    "no image": ({"images": (None,)}, r"images\[0\] must be a path, encoded bytes or a PIL image, got NoneType"),
    "one path": ({"images": "a.png"}, "images must be a list, got 'a.png'"),
    "another kind": ({"geometries": (attrs.evolve(BOX, kind="bbox"),)}, "kind must be one of .*, got 'bbox'"),
    "two in one": ({"geometries": (attrs.evolve(BOX, values=BOX.values * 2),)}, "has 4 values, got 8; give one Geom"),
    "half a one": ({"geometries": (attrs.evolve(BOX, values=BOX.values[:2]),)}, "has 4 values, got 2"),
    "no number": ({"geometries": (attrs.evolve(BOX, values=(float("nan"),) * 4),)}, "must be finite numbers in bin"),
    "corners in another order": ({"geometries": (attrs.evolve(BOX, values=BOX.values[::-1]),)}, "with x1 <= x2"),
    "no values": ({"geometries": (attrs.evolve(BOX, values=None),)}, r"values must be a tuple, got None"),
    "values alone": ({"geometries": (BOX.values,)}, r"geometries\[0\] must be a .*Geometry, got \["),
    "one size": ({"image_size": (64,)}, r"image_size must be width and height in pixels, or None, got \[64\]"),
    "texts for a size": ({"image_size": ("64", "64")}, "image_size must be width and height"),
    "no pixels": ({"max_pixels": 0}, "max_pixels must be a number of pixels, or None, got 0"),
    "pixels in words": ({"max_pixels": "many"}, "max_pixels must be a number of pixels"),
    "uncharged elsewhere": ({"uncharged": (1,)}, r"uncharged must hold numbers of its 1 geometries, .*, got \[1\]"),
    "one number": ({"uncharged": 0}, "uncharged must hold numbers"),
    "another task": ({"task": "detection"}, "task must be one of detect, .*, got 'detection'"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_an_example_that_is_none_is_told_with_its_builder(change: dict[str, Any], message: str) -> None:
    source: Any = [RIGHT, attrs.evolve(RIGHT, **change)]
    with pytest.raises(RunError, match=rf"^a:1: .*{message}.* \(its example 1, given by {WHO}\)$"):
        Rows(source, giver=WHO)[1]


@pytest.mark.parametrize("given", [None, {"messages": []}, "a.png"])
def test_what_is_no_example_is_told(given: Any) -> None:
    with pytest.raises(
        RunError, match=rf"^{WHO}: its example 0 must be a coordcore\.Example, got .*; tell its authors"
    ):
        example_of(WHO, [given], 0)


def test_what_many_builders_give_is_right() -> None:
    values = numpy.array(BOX.values)
    right = [
        RIGHT,
        attrs.evolve(RIGHT, messages=list(RIGHT.messages), geometries=[Geometry(kind="bbox_2d", values=values)]),
        attrs.evolve(RIGHT, images=[Path("a.png")], image_size=(numpy.int64(64), 64), uncharged=[0], max_pixels=9),
        attrs.evolve(RIGHT, images=[PurePosixPath("a.png")]),
        Example(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "loss": False}] * 2),
        Example(messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]),
    ]
    assert [example_of(WHO, right, index) for index in range(len(right))] == right


@attrs.frozen
class Raises:
    """A source that raises."""

    error: BaseException

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Example:
        raise self.error

    def in_epoch(self, epoch: int, index: int) -> Example:
        raise self.error


@pytest.mark.parametrize("error", [IndexError("out of range"), SystemExit(0), AttributeError("width")], ids=repr)
def test_what_a_source_raises_is_told(error: BaseException) -> None:
    with pytest.raises(RunError, match=rf"^{WHO}: its example 2 of epoch 1 raised {type(error).__name__}"):
        Rows(Raises(error), giver=WHO)[5]


def test_what_is_wrong_with_the_user_s_data_stays_so() -> None:
    with pytest.raises(InputError, match=r"^a\.csv:3: no box$"):
        example_of(WHO, Raises(InputError("a.csv:3: no box")), 0)
    with pytest.raises(InputError, match=rf"^{WHO}: its example 0 failed: .*a\.png"):
        example_of(WHO, Raises(FileNotFoundError(2, "No such file", "a.png")), 0)
    with pytest.raises(KeyboardInterrupt):
        example_of(WHO, Raises(KeyboardInterrupt()), 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "gave None, which has no __len__, no __getitem__"),
        (iter([RIGHT]), "which has no __len__"),
        (type("Long", (list,), {"__len__": lambda self: 2.0})(), "raised TypeError: 'float' object"),
    ],
)
def test_what_is_no_source_is_told(source: Any, message: str) -> None:
    with pytest.raises(RunError, match=rf"^{WHO}: .*{message}.*; tell its authors$"):
        counted(WHO, source, "train()")


def with_data(loaded: Loaded, builder: Any) -> Loaded:
    """The same run, whose section builds another thing."""

    def other(selected: Selected) -> Selected:
        component = attrs.evolve(selected.component, build=lambda _config, _context: builder)
        return attrs.evolve(selected, component=component)

    manifest = loaded.manifest
    selected = tuple(other(item) if item.kind == kinds.DATA else item for item in manifest.selected)
    return attrs.evolve(loaded, manifest=attrs.evolve(manifest, selected=selected))


def builder_of(train: Callable[[], Any], **members: Any) -> Any:
    return SimpleNamespace(train=train, validation=lambda: None, **members)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_names_section_and_plugin(coord_base: Path, tmp_path: Path, workers: int) -> None:
    loaded = support.loaded(tmp_path, coord_base, train={"workers": workers})
    loaded = with_data(loaded, builder_of(lambda: Raises(KeyError("width"))))
    with pytest.raises(RunError, match=r"^data\.fake_boxes of plugin \S+: its example 0 .*raised KeyError: 'width'; "):
        run(loaded, output=tmp_path / "run")
    assert RunDir(tmp_path / "run").last_checkpoint() is None


def test_a_builder_that_raises_or_names_no_groups_is_told(coord_base: Path, tmp_path: Path) -> None:
    loaded = support.loaded(tmp_path, coord_base)
    plan = plan_of(with_data(loaded, builder_of(lambda: {}["annotations"])).manifest, tmp_path, coord_base)
    with pytest.raises(RunError, match=r"^data\.fake_boxes of plugin \S+: train\(\) raised KeyError: 'annotations'"):
        _ = plan.training
    plan = plan_of(with_data(loaded, builder_of(list, groups="coco")).manifest, tmp_path, coord_base)
    with pytest.raises(RunError, match="its groups must be a sequence of names, got 'coco'"):
        _ = plan.groups


def test_a_right_answer_is_handed_on() -> None:
    assert asked(WHO, lambda: 3, "len(train())") == 3


# --- the format of the answers ----------------------------------------------------------------------------------------


def boxes(form: Format) -> list[Example]:
    size = (64, 64)
    image = Image.new("RGB", size)
    return [Example.boxes([("ring", (1, 2, 30, 40))], image=image, image_size=size, prompt="?", form=form, source="a")]


def sample(examples: list[Example]) -> Any:
    return partial(sampled, Rows(examples, giver=WHO), 0)


@attrs.frozen
class NotHere:
    """Examples that opening a file in this process would spoil, as data-loader processes would share it."""

    home: int

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Example:
        assert os.getpid() != self.home
        return boxes(ARROWS)[0]


def test_a_builder_is_asked_where_the_data_loader_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "require_charged", lambda *_, **__: None)
    manifest = SimpleNamespace(capabilities=lambda: [COORD_SUPERVISION])
    plan = SimpleNamespace(format=ARROWS, coords=DEFAULT_COORDS, manifest=manifest)
    args, template = SimpleNamespace(dataloader_num_workers=2), SimpleNamespace(data_collator=None)
    session: Any = SimpleNamespace(plan=plan, args=args, template=template)
    rows = Rows(NotHere(os.getpid()), giver=WHO)
    pipeline.CoordSft._show_dataset(session, SimpleNamespace(dataset=rows), None)


@pytest.mark.parametrize("named", [ARROWS, LISTED], ids=lambda form: form.name)
def test_answers_of_another_format_than_the_manifest_names_are_told(named: Format) -> None:
    require_written(WHO, sample(boxes(named)), named, DEFAULT_COORDS)
    with pytest.raises(RunError, match=rf"^{WHO}: none of 1 answers is of the format {named.name} that .*, of a: '{{"):
        require_written(WHO, sample(boxes(COORDJSON)), named, DEFAULT_COORDS)


def test_the_default_format_may_be_named_and_answers_in_words_have_none() -> None:
    require_written(WHO, sample(boxes(COORDJSON)), COORDJSON, DEFAULT_COORDS)
    words = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    require_written(WHO, sample([Example(messages=words)]), ARROWS, DEFAULT_COORDS)
    one_is_enough = [*boxes(COORDJSON), *boxes(ARROWS)]
    require_written(WHO, sample(one_is_enough), ARROWS, DEFAULT_COORDS)


def test_a_few_answers_of_the_format_among_many_of_chats_are_found() -> None:
    """A mixture with one record in fifty of the format: none may be among the few that are looked at first."""
    source = boxes(COORDJSON) * 500
    source[7::50] = boxes(ARROWS) * 10
    require_written(WHO, sample(source), ARROWS, DEFAULT_COORDS)


def test_coord_tokens_that_no_loss_supervises_are_told() -> None:
    require_unplaced(WHO, sample([attrs.evolve(RIGHT, geometries=())]))
    with pytest.raises(
        RunError, match=rf"^{WHO}: a:1 has geometries, so coord .* no loss .*COORD_SUPERVISION.*COORD_TOKENS"
    ):
        require_unplaced(WHO, sample([attrs.evolve(RIGHT, geometries=()), RIGHT]))
