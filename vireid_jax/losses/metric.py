"""Metric losses: they compare the features of one batch with each other.

All take `features [rows, dim]`, `labels [rows]` and `modalities [rows]` (0 visible,
1 infrared) in any order: identities are grouped by label, never by position. All
compute in float32 or wider, and their gradients stay finite at distance zero. The four
triplets also share their last argument, so they are interchangeable; each ignores the
arguments it does not need.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from vireid_jax.models.heads import l2_normalise
from vireid_jax.models.precision import EXACT, widen

Features = Float[Array, "rows dim"]
Labels = Int[Array, " rows"]
Loss = Float[Array, ""]


def hetero_center_triplet(
    features: Features, labels: Labels, modalities: Labels, margin: ArrayLike = 0.3
) -> Loss:
    """Pull an identity's two modality centers together, other centers apart.

    Over the centers `c` of each identity in each modality, the mean of
    `[margin + |c - its partner| - min over other identities' centers |c - c'|]_+`,
    Euclidean, un-normalised. A center without a partner does not count. Source: Liu et
    al., "Parameter sharing exploration and hetero-center triplet loss", 2020.
    """
    features = widen(features)
    same_identity = labels[:, None] == labels
    same_modality = modalities[:, None] == modalities
    members = same_identity & same_modality
    count = members.sum(1).astype(features.dtype)
    # Row r holds the center that row r belongs to: a center stands `count` times.
    centers = jnp.matmul(members / count[:, None], features, precision=EXACT)

    distances = euclidean_distances(centers, centers)
    partners = same_identity & ~same_modality
    num_partners = partners.sum(1)
    positive = jnp.where(partners, distances, 0).sum(1) / jnp.maximum(num_partners, 1)
    negative = jnp.where(same_identity, jnp.inf, distances).min(1)
    hinge = jax.nn.relu(margin + positive - negative)
    weight = jnp.where(num_partners > 0, 1 / count, 0)
    return (weight * hinge).sum() / jnp.maximum(weight.sum(), 1e-12)


def batch_hard_triplet(
    features: Features, labels: Labels, modalities: Labels, margin: ArrayLike = 0.3
) -> Loss:
    """Pull each row's furthest positive closer than its nearest negative.

    The mean over all rows of `[margin + max d+ - min d-]_+`, Euclidean, un-normalised;
    `modalities` is ignored. A row without a negative costs 0. Source: Hermans et al.,
    "In defense of the triplet loss for person re-identification", 2017.
    """
    distances = distances_within(widen(features))
    same_identity = labels[:, None] == labels
    positive = jnp.where(same_identity, distances, 0).max(1)
    negative = jnp.where(same_identity, jnp.inf, distances).min(1)
    return jax.nn.relu(margin + positive - negative).mean()


def weighted_triplet(
    features: Features, labels: Labels, modalities: Labels, margin: ArrayLike = 0.3
) -> Loss:
    """Pull positives closer than negatives, softly, the hard ones weighing most.

    The mean over all rows of `softplus(D)`, D from `weighted_gaps`; `modalities` and
    `margin` are ignored. Source: the weighted regularised triplet of AGW, Ye et al.,
    "Deep learning for person re-identification: a survey and outlook", 2021.
    """
    return jax.nn.softplus(weighted_gaps(widen(features), labels)).mean()


def enhanced_triplet(
    features: Features, labels: Labels, modalities: Labels, margin: ArrayLike = 0.3
) -> Loss:
    """Do as `weighted_triplet`, with the gap squared: a wide one weighs more.

    The mean over all rows of `softplus(-y min(D^2, 88))`, y = -1 where D > 0, else 1;
    `modalities` and `margin` are ignored. D = 0 and |D| > 9.4 give no gradient. Source:
    CAJ, Ye et al., "Channel augmented joint learning for visible-infrared
    recognition", 2021.
    """
    gaps = weighted_gaps(widen(features), labels)
    squares = jnp.minimum(gaps * gaps, 88)
    return jax.nn.softplus(jnp.where(gaps > 0, squares, -squares)).mean()


def cross_modal_infonce(
    features: Features, labels: Labels, modalities: Labels, temperature: ArrayLike = 0.1
) -> Loss:
    """Classify, for each row, which rows of the other modality show its identity.

    Cross entropy over cosine similarity / temperature, its target spread evenly over
    the rows of the same identity; the mean of both directions. A row without a partner
    does not count. Source: CLIP (Radford et al. 2021), SupCon (Khosla et al. 2020).
    """
    unit = l2_normalise(widen(features))
    similarity = jnp.matmul(unit, unit.T, precision=EXACT) / temperature
    others = modalities[:, None] != modalities
    # The lowest finite number instead of -inf: a batch of one modality has no NaN.
    lowest = jnp.finfo(similarity.dtype).min
    log_p = jax.nn.log_softmax(jnp.where(others, similarity, lowest))
    partners = others & (labels[:, None] == labels)
    num_partners = partners.sum(1)
    loss = -jnp.where(partners, log_p, 0).sum(1) / jnp.maximum(num_partners, 1)

    def mean_over(modality: int) -> Array:
        counts = (modalities == modality) & (num_partners > 0)
        return jnp.where(counts, loss, 0).sum() / jnp.maximum(counts.sum(), 1)

    return (mean_over(0) + mean_over(1)) / 2


def euclidean_distances(
    x: Float[Array, "rows dim"], y: Float[Array, "columns dim"]
) -> Float[Array, "rows columns"]:
    """Return all distances; one that rounds to zero has a zero gradient, not NaN."""
    # A large common offset would leave few digits for the difference below.
    offset = lax.stop_gradient(y.mean(0))
    x, y = x - offset, y - offset
    products = jnp.matmul(x, y.T, precision=EXACT)
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * products
    far = squares > 1e-12
    return jnp.where(far, jnp.sqrt(jnp.where(far, squares, 1)), 0)


def distances_within(x: Features) -> Float[Array, "rows rows"]:
    """Return all distances within a batch, at least 1e-6, as in AGW."""
    distances = jnp.maximum(euclidean_distances(x, x), 1e-6)
    # In float32 the distance of a row to itself could round to 1e-3.
    return jnp.where(jnp.eye(len(x), dtype=bool), 1e-6, distances)


def weighted_gaps(features: Features, labels: Labels) -> Float[Array, " rows"]:
    """Subtract each row's weighted negative distance from its positive one.

    `D = sum w+ d+ - sum w- d-`, far positives and near negatives weighing most. A row
    is its own positive, too. For distances of a few units: beyond about 14 negatives
    lose their weight to the 1e-6 of `soft_weights`.
    """
    distances = distances_within(features)
    same_identity = labels[:, None] == labels
    positive = jnp.where(same_identity, distances, 0)
    negative = jnp.where(same_identity, 0, distances)
    positive_weights = soft_weights(positive, same_identity)
    negative_weights = soft_weights(-negative, ~same_identity)
    return (positive_weights * positive).sum(1) - (negative_weights * negative).sum(1)


def soft_weights(
    scores: Float[Array, "rows columns"], mask: Bool[Array, "rows columns"]
) -> Float[Array, "rows columns"]:
    """Return a softmax along the rows of `scores`, which are 0 outside of `mask`.

    AGW's form: the shift is the largest score of the row (so 0 for negated
    distances), and 1e-6 keeps the weights finite where the mask is empty.
    """
    weights = jnp.exp(scores - scores.max(1, keepdims=True)) * mask
    return weights / (weights.sum(1, keepdims=True) + 1e-6)
