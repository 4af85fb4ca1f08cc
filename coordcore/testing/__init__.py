"""Helpers for the tests of coordcore and of its plugins. Nothing heavy is imported here."""
