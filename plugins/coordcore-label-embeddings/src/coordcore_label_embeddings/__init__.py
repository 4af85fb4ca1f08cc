"""Labels matched by what they mean, as a text embedding model has it."""

__version__ = "0.1.0"
