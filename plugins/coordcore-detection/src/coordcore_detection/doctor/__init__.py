"""`coordcore doctor`: what silently ruins a run, looked for before it starts. Torch-free; the checks import it."""
