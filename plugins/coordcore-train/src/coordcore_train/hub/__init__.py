"""A merged checkpoint on a hub: what of it goes up, its model card, and the upload. Torch-free."""
