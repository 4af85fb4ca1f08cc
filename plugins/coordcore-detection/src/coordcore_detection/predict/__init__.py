"""From a checkpoint to predicted boxes."""
