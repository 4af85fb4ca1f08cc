"""Checkpoint folders and their weights: reading, expanding, merging."""
