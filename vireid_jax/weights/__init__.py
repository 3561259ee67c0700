"""Weights as files: what is shipped, and torchreid's names for them."""
