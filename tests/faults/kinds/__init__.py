"""What is fuzzed: a module for each kind of input, with a `case` for `pool.run` and `warm`, called once before it."""
