"""The report of an evaluation: one self-contained HTML file, and its plots as PNG files. Torch-free."""
