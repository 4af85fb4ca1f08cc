"""A checkpoint asked about images: `asking` does it, and prediction files hold the answers."""
