"""Losses as plain functions of features, labels and modalities; each a mean."""

from vireid_jax.losses.classification import accuracy, cross_entropy, distillation
from vireid_jax.losses.metric import (
    batch_hard_triplet,
    cross_modal_infonce,
    enhanced_triplet,
    hetero_center_triplet,
    weighted_triplet,
)

# Interchangeable: all take `(features, labels, modalities, margin)`.
METRIC_LOSSES = {
    "hetero_center": hetero_center_triplet,
    "batch_hard": batch_hard_triplet,
    "weighted": weighted_triplet,
    "enhanced": enhanced_triplet,
}

__all__ = [
    "METRIC_LOSSES",
    "accuracy",
    "batch_hard_triplet",
    "cross_entropy",
    "cross_modal_infonce",
    "distillation",
    "enhanced_triplet",
    "hetero_center_triplet",
    "weighted_triplet",
]
