"""Heads that propose the corners of a box together."""

__version__ = "0.1.0"
