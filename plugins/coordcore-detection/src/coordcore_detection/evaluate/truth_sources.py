"""Ground truth from record files (docs/reference/records.md) and from the examples of a data builder. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import attrs
import msgspec
import numpy as np

from coordcore import Geometry, InputError
from coordcore.coords import DEFAULT_COORDS, CoordFormat
from coordcore.quantisation import Outside, Quantisation
from coordcore.records.annotations import Annotation, Rules, Space, read_annotation
from coordcore.records.answers import COORDJSON, Format, answered, parse_answer
from coordcore.records.geometry import bounds, misordered
from coordcore.records.images import image_path, open_example_image, open_upright
from coordcore.records.record import Record, RecordError, parse_objects, parse_record
from coordcore.records.source import all_lines
from coordcore.tasks import TASKS
from coordcore_detection.evaluate.truth import TruthImage
from coordcore_detection.evaluate.truth_areas import areas_in_answer, known_areas
from coordcore_detection.evaluate.truth_records import Objects, image_id, looked_for, read_objects
from coordcore_detection.evaluate.truth_tasks import Asking

if TYPE_CHECKING:
    from coordcore import Example
    from coordcore.protocols import ExampleSource

SHOWN_PROBLEMS = 20
"""Problems of a file that are reported one by one; the rest is counted."""

_SAYS_MORE = re.compile(rb'"metadata".*"(?:absent_categories|incomplete_categories|category_frequencies|object_areas)"')


def truth_from_records(
    path: Path,
    *,
    space: str = "bin",
    quantisation: Quantisation,
    image_root: Path | None = None,
    images_within: Path | None = None,
    question: str,
    system: str | None = None,
    prompts: Mapping[str, str] | None = None,
    coord_tokens: bool = True,
    outside: Outside = "error",
    coords: CoordFormat | None = None,
) -> Sequence[TruthImage]:
    """The images of the record file `path`. Images are opened when they are used.

    space: what the numbers are. quantisation: decodes bins; a record that declares another one is an error.
    coords: the tokens that records may have in place of bins; the default's form when None.
    image_root: where image paths begin, the folder of `path` by default. images_within: the folder that all images must
    lie below, `image_root` by default; opening one elsewhere raises InputError. question, system: what is asked.
    prompts: by task, what records that name one are asked; the usual prompt of a task that is not there. coord_tokens:
    whether places in questions are.
    outside: what becomes of corners outside the image, an error or "clip". An image that has several records gets the
    keys "a.jpg", "a.jpg#2" ... in the order of the file.

    Raises InputError with up to 20 problems, each as "train.jsonl:17: objects[2].bbox_2d: ...".
    """
    if space not in get_args(Space):
        raise InputError(f"space must be {', '.join(get_args(Space))}, got {space!r}")
    coords = coords or CoordFormat(bins=quantisation.bins)
    rules = Rules(space=space, outside=outside, coords=coords)  # type: ignore[arg-type]  # looked at above
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"<image>{question}"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    root = path.parent if image_root is None else image_root
    images: list[TruthImage] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    asking = Asking(
        prompts={**(prompts or {}), "detect": question},
        rules=rules,
        quantisation=quantisation,
        coord_tokens=coord_tokens,
    )
    tasks: dict[int, tuple[int, Record]] = {}
    for number, line in all_lines(path):
        try:
            record = parse_record(line)
            objects = read_objects(record, rules, quantisation)
            lists = looked_for(record)
            areas = known_areas(record, objects.boxes, objects.places)
        except InputError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if record.task is not None or record.question is not None:
            tasks[len(images)] = number, record
        name = record.images[0]
        seen[name] = seen.get(name, 0) + 1
        images.append(
            TruthImage(
                key=name if seen[name] == 1 else f"{name}#{seen[name]}",
                width=record.width,
                height=record.height,
                open=partial(_open, root, name, images_within, width=record.width, height=record.height),
                messages=tuple(messages),
                path=root / name,
                in_bins=space == "bin",
                id=image_id(record),
                areas=areas,
                **objects.as_arguments(),
                **lists,
            )
        )
    labels = {
        label
        for _, record in tasks.values()
        if record.task == "named"
        for label in (*(record.categories or ()), *(item.desc for item in record.objects or ()))
    }
    for place, (number, record) in tasks.items():
        try:
            images[place] = asking.asked(images[place], record, number, tuple(labels))
        except InputError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        rest = len(problems) - SHOWN_PROBLEMS
        more = [f"{path}: {rest} more records have problems"] if rest > 0 else []
        raise InputError("\n".join([*problems[:SHOWN_PROBLEMS], *more]))
    if not images:
        raise InputError(f"{path}: holds no records; write one a line, or name another file")
    return images


def _open(root: Path, name: str, within: Path | None, *, width: int, height: int) -> Any:
    return open_upright(image_path(root, name, within), width=width, height=height)


# --- examples -------------------------------------------------------------------------------------------------------


class NotMeasuredError(InputError):
    """An example whose answer names no objects that could be compared, as of a conversation in free words."""


@attrs.frozen
class Chosen(Sequence[TruthImage]):
    """Some of the images, each made when it is asked for. places: of them in `whole`."""

    whole: Sequence[TruthImage]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.places[index]
        return Chosen(self.whole, chosen) if isinstance(chosen, Sequence) else self.whole[chosen]


def measured(truth: Sequence[TruthImage], most: int | None) -> tuple[Chosen, list[str]]:
    """The images that can be measured, the first `most` of them, and why of each before the last that cannot.

    Raises InputError where none can.
    """
    places: list[int] = []
    reasons: list[str] = []
    for index in range(len(truth)):
        if len(places) == most:
            break
        try:
            _ = truth[index]
        except NotMeasuredError as error:
            reasons.append(str(error))
        else:
            places.append(index)
    if reasons and not places:
        raise InputError(
            f"none of the {len(truth)} examples held out can be measured, the first: {reasons[0]}; hold out records "
            "(`coordcore data convert --from swift` makes them of chat rows), or leave out the evaluation"
        )
    return Chosen(truth, places), reasons


def truth_from_examples(
    examples: ExampleSource,
    quantisation: Quantisation,
    coords: CoordFormat = DEFAULT_COORDS,
    form: Format = COORDJSON,
) -> Sequence[TruthImage]:
    """The examples of a data builder, each made into a TruthImage when it is asked for; example 17 is "example-17".

    The last message must be an answer in `form`, CoordJSON's being `{"objects": [{"desc": ..., "bbox_2d": [...]}]}`. A
    thought before it (`<think>...</think>`) is passed over. Positions are those of the example's geometries, finer than
    a bin where the builder knows them.
    Reading one raises NotMeasuredError, with the example's source in front, for any other answer.
    """
    return _Examples(examples, quantisation, coords, form)


def example_key(index: int) -> str:
    """The key of an example in prediction files."""
    return f"example-{index}"


class _Examples(Sequence[TruthImage]):
    def __init__(self, examples: ExampleSource, quantisation: Quantisation, coords: CoordFormat, form: Format) -> None:
        self._examples = examples
        self._form = form
        self._coords = coords
        self._quantisation = quantisation
        self._lines: dict[str, dict[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        example = self._examples[number]
        try:
            image = _from_example(example, number, self._quantisation, self._coords, self._form)
            line = (
                None if image.is_text else self._line_that_says_more(example.source.removeprefix(f"{example.group}: "))
            )
            if line is None:
                return image
            record = parse_record(line)
            size = (image.width, image.height)
            areas = areas_in_answer(record, image.labels, image.boxes, size, self._coords)
            return attrs.evolve(image, areas=areas, **looked_for(record))
        except InputError as error:
            kind = NotMeasuredError if isinstance(error, NotMeasuredError) else InputError
            raise kind(f"{example.source or f'example {number}'}: {error}") from error

    def _line_that_says_more(self, source: str) -> bytes | None:
        """The record that an example was made of, "val.jsonl:17", if it says what an example cannot."""
        path, _, number = source.rpartition(":")
        if not number.isdecimal() or not path.endswith(".jsonl"):
            return None
        if path not in self._lines:
            lines = all_lines(Path(path)) if Path(path).is_file() else iter(())
            self._lines[path] = {place: line for place, line in lines if _SAYS_MORE.search(line)}
        return self._lines[path].get(int(number))


def _from_example(
    example: Example, number: int, quantisation: Quantisation, coords: CoordFormat, form: Format
) -> TruthImage:
    if len(example.images) != 1:
        raise NotMeasuredError(f"has {len(example.images)} images; boxes refer to one image")
    if not example.messages or example.messages[-1]["role"] != "assistant":
        raise InputError("does not end with an answer")
    source = example.images[0]
    opener = partial(open_example_image, source)
    text, is_text = example.messages[-1]["content"], TASKS[example.task].is_text
    begin, end = answered(text)
    said = text[begin:end].strip()
    objects = [] if is_text else _answer(said, coords) if form is COORDJSON else _answer_in(form, said, coords)
    image = opener()  # of an answer that can be measured; others need none
    size = np.array([image.width, image.height], dtype=np.float64)
    units = [item.values for item in objects]
    if example.geometries:  # the answers hold coord tokens; what the builder says of them may be finer
        geometries = _geometries_behind(example, begin, coords)
        if len(geometries) != len(objects):
            raise InputError(f"has {len(geometries)} geometries, but its answer speaks of {len(objects)}")
        units = [geometry.values for geometry in geometries]
    found = Objects.sorted(
        [(item.desc, item.kind, values, False) for item, values in zip(objects, units, strict=True)],
        boxes=lambda regions: quantisation.decode(
            np.array([bounds(units[place]) for place in regions], dtype=np.float64).reshape(-1, 4), np.tile(size, 2)
        ),
        outline=lambda values: quantisation.decode(np.array(values, dtype=np.float64).reshape(-1, 2), size),
    )
    return TruthImage(
        key=example_key(number),
        width=image.width,
        height=image.height,
        **found.as_arguments(),
        id=number,
        open=opener,
        messages=tuple(dict(message) for message in example.messages[:-1]),
        path=Path(source) if isinstance(source, str | Path) else None,
        in_bins=all(float(value).is_integer() for values in units for value in values),
        task=example.task,
        categories=example.categories,
        answer=said if is_text else "",
        max_pixels=example.max_pixels,
    )


def _geometries_behind(example: Example, begin: int, coords: CoordFormat) -> list[Geometry]:
    """The geometries of the last answer from its character `begin` on: none of earlier answers, none of a thought."""
    texts = [message["content"] for message in example.messages if message["role"] == "assistant"]
    texts[-1] = texts[-1][:begin]
    before = sum(token in coords.bin_of for text in texts for token in re.findall(coords.pattern(), text))
    geometries = list(example.geometries)
    while geometries and before > 0:
        before -= len(geometries.pop(0).values)
    return geometries


def _answer(text: str, coords: CoordFormat) -> list[Annotation]:
    """What an answer in CoordJSON says, with bins as coord tokens or as numbers; read as strictly as a record."""
    try:
        # Tokens as texts, as records have them.
        objects = parse_objects(msgspec.json.decode(re.sub(coords.pattern(), r'"\g<0>"', text)))
    except (msgspec.DecodeError, RecordError) as error:
        raise NotMeasuredError(f"the answer is no list of objects in CoordJSON ({error}): {text[:80]!r}") from error
    # Order is judged once x is first.
    rules = Rules(space="bin", coords=coords, ordered=False)
    found = [read_annotation(item, f"objects[{index}]", rules) for index, item in enumerate(objects)]
    found = [
        msgspec.structs.replace(item, values=coords.arranged(item.values)) if item.tokens else item for item in found
    ]
    for item in found:
        if item.kind == "bbox_2d" and (wrong := misordered(item.values)):
            raise RecordError(item.path, wrong)
    return found


def _answer_in(form: Format, text: str, coords: CoordFormat) -> list[Annotation]:
    """What an answer in another format says. Raises InputError for one with a part that is not of the format."""
    answer = parse_answer(text, form, numbers=form.json, coords=coords)
    if answer.unread:
        first = answer.unread[0]
        raise NotMeasuredError(f"the answer is not of the format {form.name}: {f'{first.at} {first.reason}'.strip()}")
    return [
        Annotation(
            path=item.at, index=index, desc=item.desc, kind=item.kind, values=item.bins or item.numbers, tokens=True
        )
        for index, item in enumerate(answer.objects)
    ]
