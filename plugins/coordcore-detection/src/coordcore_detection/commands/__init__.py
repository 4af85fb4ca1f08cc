"""The commands: Typer functions that import what they need when they run."""
