"""A run: `session` is its story, `folder` what it leaves, `plan` what it is made of, `launch` where it computes."""
