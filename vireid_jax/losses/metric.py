"""Losses that shape the space: they compare features of one batch with each other.

All take `features [rows, dim]`, `labels [rows]` and `modalities [rows]` (0 visible,
1 infrared) in any order: identities are grouped by label, never by position. All
compute in float32 or wider, and their gradients stay finite at distance zero.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from vireid_jax.precision import EXACT, widen


def hetero_center_triplet(
    features: Float[Array, "rows dim"],
    labels: Int[Array, " rows"],
    modalities: Int[Array, " rows"],
    margin: ArrayLike = 0.3,
) -> Float[Array, ""]:
    """Pulls an identity's two modality centers together, other centers apart.

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


def cross_modal_infonce(
    features: Float[Array, "rows dim"],
    labels: Int[Array, " rows"],
    modalities: Int[Array, " rows"],
    temperature: ArrayLike = 0.1,
) -> Float[Array, ""]:
    """Classifies, for each row, which rows of the other modality show its identity.

    Cross entropy over cosine similarity / temperature, its target spread evenly over
    the rows of the same identity; the mean of both directions. A row without a partner
    does not count. Source: CLIP (Radford et al. 2021), SupCon (Khosla et al. 2020).
    """
    features = widen(features)
    length = lax.rsqrt(jnp.maximum((features * features).sum(1, keepdims=True), 1e-12))
    unit = features * length
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
    """Measures all distances; one that rounds to zero has a zero gradient, not NaN."""
    # An offset that all share would eat up the digits of the difference below.
    offset = lax.stop_gradient(y.mean(0))
    x, y = x - offset, y - offset
    products = jnp.matmul(x, y.T, precision=EXACT)
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * products
    far = squares > 1e-12
    return jnp.where(far, jnp.sqrt(jnp.where(far, squares, 1)), 0)
