"""The floor under all plugins: examples, records, answers and geometry. Torch-free; import its modules."""
