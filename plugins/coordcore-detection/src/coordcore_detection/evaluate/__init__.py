"""Predictions against the truth: `evaluation` measures them, `compare` puts two results side by side. Torch-free."""
