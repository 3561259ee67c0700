"""Losses as plain functions of features, labels and modalities; each a mean."""

from vireid_jax.losses.identity import accuracy, cross_entropy
from vireid_jax.losses.metric import cross_modal_infonce, hetero_center_triplet

__all__ = ["accuracy", "cross_entropy", "cross_modal_infonce", "hetero_center_triplet"]
