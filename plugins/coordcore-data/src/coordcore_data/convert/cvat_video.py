"""Tracks of CVAT for video 1.1: every Nth frame as an image, with what each track shows there.

Between the frames that a track lists, boxes, ellipses and single points move along straight lines and turn the shorter
way, other points stay as they were; so CVAT does it (`TrackManager` of its `dataset_manager/annotation.py`), and
polygons as `cvat_polygons` says. `outside` ends what a track shows until its next frame; one that is not ended lasts to
the end.
A frame on which no track shows anything says that nothing is there. Its file is frame_000010.png, as CVAT exports it,
with the frame's number in the whole video. Not carried: occluded, tracks as such.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from coordcore import InputError
from coordcore_data.convert.core import Account, Shape, SourceImage
from coordcore_data.convert.cvat_polygons import between
from coordcore_data.convert.text import number, numbers

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MOST = 10**7  # frames: more than four days of video
_MOVING = {"box": ("xtl", "ytl", "xbr", "ybr"), "ellipse": ("cx", "cy", "rx", "ry"), "points": ("points",)}
_WITHOUT = "without its numbers, on a frame between two"

ShapeOf = Callable[["Element", str], Shape | str]
"""The shape of an element that has a label, or why there is none."""


@attrs.frozen(kw_only=True)
class Video:
    """Which frames of a video are images, by their numbers in the whole of it. width, height: of each."""

    taken: range
    last: int
    width: float | None
    height: float | None


@attrs.frozen(kw_only=True)
class Track:
    """What one object shows, by frame. begins: its first. frames: in order, as many as elements; those that tell what
    is on the frames that are taken."""

    name: str
    begins: int
    frames: list[int]
    elements: list[Element]


def read_video(meta: Element | None, every: int, source: Path) -> Video:
    """Raises InputError for a head without one task, or without its count of frames."""
    tasks = [item for item in meta.iter() if item.tag in ("task", "job")] if meta is not None else []
    if len(tasks) != 1:
        raise InputError(f"{source}: tracks of {len(tasks)} tasks; export each task on its own, as CVAT for video 1.1")
    task = tasks[0]
    filtered = (task.findtext("frame_filter") or "").strip().removeprefix("step=").strip()
    frames, first, step = (
        _whole(text) for text in (task.findtext("size"), task.findtext("start_frame") or "0", filtered or "1")
    )
    if frames is None or first is None or not step or frames > _MOST:
        raise InputError(
            f"{source}: <meta> says size {task.findtext('size')!r}, start_frame {task.findtext('start_frame')!r}, "
            f"frame_filter {task.findtext('frame_filter')!r}: which frames the video has is not clear"
        )
    width, height = (_whole(task.findtext(f"original_size/{side}")) for side in ("width", "height"))
    last = first + (frames - 1) * step
    return Video(taken=range(first, last + 1, every * step), last=last, width=width, height=height)


def _whole(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else None


def read_track(element: Element, video: Video, source: Path) -> Track:
    """Raises InputError for a frame that is none: where the object is then, nothing tells."""
    name = f"track {element.get('id', '')}"
    listed: dict[int, Element] = {}
    for item in element:
        frame = _whole(item.get("frame"))
        if frame is None:
            raise InputError(
                f"{source}: {name}: <{item.tag[:40]}> with frame={item.get('frame')!r}, which is no number"
            )
        item.set("label", element.get("label") or "")
        listed[frame] = item
        del item[:]  # its attributes
    ordered = sorted(listed)
    # A long video lists far more than is looked at.
    needed = [
        frame
        for before, frame, after in zip([None, *ordered], ordered, [*ordered[1:], None], strict=False)
        if _any_taken(video, frame, after) or (before is not None and _any_taken(video, before + 1, frame))
    ]
    return Track(
        name=name, begins=min(ordered, default=-1), frames=needed, elements=[listed[frame] for frame in needed]
    )


def _any_taken(video: Video, start: int, stop: int | None) -> bool:
    """Whether a frame that is taken lies in start, ..., stop - 1."""
    if not video.taken:
        return False
    past = -(-(max(start, video.taken.start) - video.taken.start) // video.taken.step)
    return past < len(video.taken) and (stop is None or video.taken[past] < stop)


def images(tracks: list[Track], video: Video, shape_of: ShapeOf, account: Account) -> Iterator[SourceImage]:
    """shape_of: what reads an element with its label."""
    for track in tracks:
        if not video.taken.start <= track.begins <= video.last:
            account.note("track that begins on no frame of the task", track.name, f"frame {track.begins}")
    for frame in video.taken:
        account.images.read += 1
        file = f"frame_{frame:06d}.png"
        shapes: list[Shape] = []
        lost = 0
        for track in tracks:
            name = f"{track.name} on frame {frame}"
            element = _at(track, frame)
            if element is None:
                continue
            account.objects.read += 1
            shape = element if isinstance(element, str) else shape_of(element, name)
            if isinstance(shape, str):
                account.drop_object(shape, file, name)
                lost += 1
            else:
                shapes.append(shape)
        yield SourceImage(
            file=file, stem=file[:-4], width=video.width, height=video.height, shapes=shapes, lost=lost, id=frame
        )


def _at(track: Track, frame: int) -> Element | str | None:
    """What the track shows on a frame, None for nothing, or why that cannot be told."""
    index = bisect_right(track.frames, frame) - 1
    if index < 0 or track.elements[index].get("outside") == "1":
        return None
    before = track.elements[index]
    if track.frames[index] == frame or index + 1 == len(track.frames):
        return before
    after = track.elements[index + 1]
    share = (frame - track.frames[index]) / (track.frames[index + 1] - track.frames[index])
    if before.tag != after.tag:
        return f"{before.tag} that becomes a {after.tag}: what it is between is not said"
    if before.tag == "polygon":
        return _polygon_between(before, after, share)
    # What does not move has no place in records either, or is a mask, which is taken as it was.
    return _between(before, after, share) if before.tag in _MOVING else before


def _polygon_between(before: Element, after: Element, share: float) -> Element | str:
    from xml.etree.ElementTree import Element

    start, end = numbers(before.get("points", "")), numbers(after.get("points", ""))
    moved = None
    if start and end and len(start) % 2 == len(end) % 2 == 0:
        moved = between(start, end, share)
    return f"polygon {_WITHOUT}" if moved is None else Element("polygon", dict(before.attrib, points=_text(moved)))


def _text(values: list[float]) -> str:
    return ",".join(map(str, values))


def _between(before: Element, after: Element, share: float) -> Element | str:
    from xml.etree.ElementTree import Element

    moved = dict(before.attrib)
    for key in _MOVING[before.tag]:
        start, end = numbers(before.get(key, "")), numbers(after.get(key, ""))
        if not start or not end:
            return f"{before.tag} {_WITHOUT}"
        if before.tag == "points" and (len(start) != 2 or len(end) != 2):
            break
        if len(start) != len(end):
            return f"{before.tag} {_WITHOUT}"
        moved[key] = _text([a + (b - a) * share for a, b in zip(start, end, strict=True)])
    try:
        start_angle, end_angle = (float(number(item.get("rotation", "0"))) for item in (before, after))
    except ValueError:
        return f"{before.tag} {_WITHOUT}"
    turn = (end_angle - start_angle + 180) % 360 - 180
    if start_angle or turn:
        moved["rotation"] = str((start_angle + turn * share) % 360)
    return Element(before.tag, moved)
