"""Merging a run into its base: file by file where its parts allow it, else in memory. Importing this is cheap."""

from __future__ import annotations


class NotStreamedError(Exception):
    """This run cannot be merged file by file, for the reason given; it must be merged in memory."""
