"""Decoding under the grammar of the answer format."""
