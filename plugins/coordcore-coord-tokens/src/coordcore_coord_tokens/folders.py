"""Whether image files are there: asked file by file at first, then by listing the folder they lie in."""

from __future__ import annotations

import os
import stat
from itertools import islice

from coordcore_coord_tokens.files import Stamp

ASKED = 64
"""Files of one folder that are asked for singly. On a network, listing a folder is cheaper than asking for more."""

NAMES = 200_000
"""Names that are held in memory; of folders beyond them, every file is asked for."""

FOLDERS = 10_000
"""Folders that are remembered, at most."""


class ImageFolders:
    """The folders that images were looked for in. `root` is what their paths start from.

    A folder that stays in one state holds the same files: its stamp, taken before it is looked into, stands for them.
    Not for what links in it point to, so a folder in which one was seen has none.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._stamps: dict[str, Stamp | None] | None = {}
        self._asked: dict[str, int] = {}
        self._there: set[str] = set()

    def has(self, image: str) -> bool:
        """Whether there is a file at `image`."""
        return image in self._there or self._look(image)

    def take_stamps(self) -> dict[str, Stamp | None] | None:
        """The state of each folder that was visited since the last call, by its full path.

        None for one that is not at rest, or holds a link.
        None for all of them once there are too many.
        """
        taken = self._stamps
        if taken is not None:
            self._stamps = {}
        return taken

    def _look(self, image: str) -> bool:
        folder = image[: image.rfind("/") + 1]
        asked = self._asked.get(folder, 0)
        if asked or len(self._asked) < FOLDERS:
            self._asked[folder] = asked + 1
        if asked == 0:
            self._stamp(folder)
        elif asked == ASKED:
            self._list(folder)
        path = os.path.join(self.root, image)
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):
            return False
        if not stat.S_ISLNK(mode):
            return stat.S_ISREG(mode)
        self._unstamp(folder)
        return os.path.isfile(path)

    def _whole(self, folder: str) -> str:
        return os.path.join(os.getcwd(), self.root, folder)  # as it is written: ".." may follow a link

    def _stamp(self, folder: str) -> None:
        if self._stamps is None or len(self._asked) == FOLDERS:
            self._stamps = None
            return
        whole = self._whole(folder)
        try:
            stamp = Stamp.of(os.stat(whole))
        except (OSError, ValueError):  # no such folder, or a name that no file system allows
            self._stamps[whole] = None
        else:
            self._stamps[whole] = stamp if stamp.at_rest() else None

    def _unstamp(self, folder: str) -> None:
        if self._stamps is not None:
            self._stamps[self._whole(folder)] = None

    def _list(self, folder: str) -> None:
        """Remember the files of a folder, unless there are more than there is room for."""
        room = NAMES - len(self._there)
        try:
            with os.scandir(os.path.join(self.root, folder) or ".") as entries:
                files = [entry for entry in islice(entries, room + 1) if entry.is_file()]
        except (OSError, ValueError):
            return
        if len(files) <= room:
            self._there.update([folder + entry.name for entry in files])
            if any(entry.is_symlink() for entry in files):
                self._unstamp(folder)
