"""What a run will need before it starts: memory per GPU, tokens per step, what to shard. `coordcore plan`."""
