"""The identity loss: classify each image as one of the training identities."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from vireid_jax.models.precision import widen


def cross_entropy(
    logits: Float[Array, "rows classes"],
    labels: Int[Array, " rows"],
    smoothing: ArrayLike = 0.1,
) -> Float[Array, ""]:
    """Average the cross entropy with `(1 - smoothing) onehot + smoothing / classes`.

    Computed in float32 or wider. A label outside of the classes makes the loss NaN.
    Source: label smoothing as in torch and torchreid.
    """
    log_p = jax.nn.log_softmax(widen(logits))
    # A negative label would count from the end; take_along_axis fills with NaN.
    labels = jnp.where(labels < 0, logits.shape[1], labels)
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -((1 - smoothing) * of_label + smoothing * log_p.mean(1)).mean()


def accuracy(
    logits: Float[Array, "rows classes"], labels: Int[Array, " rows"]
) -> Float[Array, ""]:
    """Return the fraction of rows whose largest logit is the label's."""
    return (logits.argmax(1) == labels).mean()
