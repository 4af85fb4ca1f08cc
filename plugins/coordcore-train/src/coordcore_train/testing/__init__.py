"""Tiny checkpoints for tests."""
