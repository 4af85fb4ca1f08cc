"""Annotation formats to records and back. `conversion` holds the one call; each format is a module with `read`."""
