"""The training rows of `chat_jsonl` as they differ from epoch to epoch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import attrs

from coordcore import Example
from coordcore.records.images import open_upright
from coordcore.records.record import RecordError
from coordcore_coord_tokens.augment.changes import Draws, Move, coloured, is_mirrored, moved_picture, resized
from coordcore_coord_tokens.augment.words import LeftRight, told_left_right
from coordcore_coord_tokens.chat.reader import ChatReader, Said, Size
from coordcore_coord_tokens.chat.sizes import upright_size

if TYPE_CHECKING:
    from coordcore_coord_tokens.augment.config import ChatAugmentConfig
    from coordcore_coord_tokens.chat.builder import ChatSource
    from coordcore_coord_tokens.chat.rows import ChatRow


@attrs.frozen(slots=False)
class Mirroring:
    """What rows say beside mirrored images: their places moved, and left and right as the settings say."""

    reader: ChatReader
    augment: ChatAugmentConfig

    @cached_property
    def words(self) -> LeftRight:
        return LeftRight(self.augment.left_right_words)

    def say(self, row: ChatRow, sizes: Sequence[Size]) -> Said | None:
        """What a row says; None for one that is not mirrored: it has no image, or is kept for its words.

        Raises RecordError for one that cannot be.
        """
        if not sizes:
            return None
        # Each turn by itself: what ends one and what begins the next are no word together.
        if self.augment.left_right == "keep" and any(
            self.words.found(message["content"]) for message in self.reader.say(row, sizes).messages
        ):
            return None
        return self.reader.say(row, sizes, mirrored=self._turned)

    def _turned(self, text: str, path: str) -> str:
        if self.augment.left_right == "exchange":
            return self.words.exchanged(text)
        if word := self.words.found(text):
            keep = '"keep", which leaves such rows as they are, '
            raise RecordError(path, told_left_right(text, word, cure=keep), reason=f"says {word!r}")
        return text


@attrs.frozen(kw_only=True, slots=False)
class AugmentedRows:
    """The examples of a `ChatSource`, changed in each epoch as the run's seed, the epoch and the line say.

    All images of a row are mirrored, or none, and resized by one factor: where a place lies that a text gives in shares
    of an image, without saying of which, it then says of each. By an index alone, they are as the file has them.
    """

    plain: ChatSource
    augment: ChatAugmentConfig
    seed: int

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int, /) -> Example:
        return self.plain[index]

    @cached_property
    def mirroring(self) -> Mirroring:
        return Mirroring(self.plain.reader, self.augment)

    def in_epoch(self, epoch: int, index: int) -> Example:
        """As it is in that epoch. Raises InputError as the plain source does."""
        line = self.plain.file.line_of(index)
        draws = self._draws(epoch, line)
        with self.plain.told(line):
            row, images = self.plain.read(line, open_upright)
            said, moves = self._moved(row, [image.size for image in images], draws)
        changed = [
            coloured(moved_picture(image, move), self.augment, draws) for image, move in zip(images, moves, strict=True)
        ]
        return self.plain.example(line, said, changed)

    def length(self, epoch: int, index: int) -> tuple[int, list[Size]]:
        """As of the plain source, in that epoch."""
        line = self.plain.file.line_of(index)
        with self.plain.told(line):
            said, moves = self._moved(*self.plain.read(line, upright_size), self._draws(epoch, line))
        return self.plain.reader.coords.rough_length(said.text), [move.size for move in moves]

    def _draws(self, epoch: int, line: int) -> Draws:
        return Draws(f"{self.seed} {self.plain.file.lines.path.name} {epoch} {line}")

    def _moved(self, row: ChatRow, sizes: Sequence[Size], draws: Draws) -> tuple[Said, list[Move]]:
        """What a row says in an epoch, and how each of its images moves. Raises RecordError."""
        mirrored = self.mirroring.say(row, sizes) if is_mirrored(self.augment, draws) else None
        moves = [
            Move(mirrors=mirrored is not None, window=(0, 0, *size), size=resized(self.augment, draws, size), shapes=())
            for size in sizes
        ]
        return mirrored or self.plain.reader.say(row, sizes), moves
