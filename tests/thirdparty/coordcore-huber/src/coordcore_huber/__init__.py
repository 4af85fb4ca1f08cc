"""Expected Huber distance for coordinate tokens: a coordcore loss."""
