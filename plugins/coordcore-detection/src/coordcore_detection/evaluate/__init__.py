"""Predictions against the truth: matching, metrics, results."""
