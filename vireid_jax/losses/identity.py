"""The identity loss: classify each image as one of the training identities."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from vireid_jax.models.precision import widen
from vireid_jax.run.errors import UserError


def cross_entropy(
    logits: Float[Array, "rows classes"],
    labels: Int[Array, " rows"],
    smoothing: ArrayLike = 0.1,
) -> Float[Array, ""]:
    """Averages the cross entropy with `(1 - smoothing) onehot + smoothing / classes`.

    Computed in float32 or wider. Raises UserError for a label outside of the classes;
    inside jit, where nobody can look, such a label makes the loss NaN instead. Source:
    label smoothing as torch and torchreid do it.
    """
    classes = logits.shape[1]
    if not isinstance(labels, jax.core.Tracer):
        given = np.asarray(labels)  # within jit jnp would trace even these
        wrong = given[(given < 0) | (given >= classes)]
        if len(wrong):
            raise UserError(
                f"label {wrong[0]} is none of the {classes} classes; labels are"
                f" 0..{classes - 1}, as Records.labels gives them"
            )
    log_p = jax.nn.log_softmax(widen(logits))
    labels = jnp.where(labels < 0, classes, labels)  # else it counts from the end
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -((1 - smoothing) * of_label + smoothing * log_p.mean(1)).mean()


def accuracy(
    logits: Float[Array, "rows classes"], labels: Int[Array, " rows"]
) -> Float[Array, ""]:
    """Averages how often the largest logit is the label's."""
    return (logits.argmax(1) == labels).mean()
