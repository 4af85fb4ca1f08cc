"""ms-swift behind the engine: the only package that imports it."""
