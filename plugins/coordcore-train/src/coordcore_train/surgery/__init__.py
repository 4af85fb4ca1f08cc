"""Surgeries in a live model: installed, bound, proven."""
