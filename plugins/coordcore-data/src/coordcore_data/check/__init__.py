"""What the numbers of a record file give away about their convention. Torch-free."""
