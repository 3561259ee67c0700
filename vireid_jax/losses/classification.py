"""Losses of a classifier of identities: by labels, and taught by a deeper one."""

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from vireid_jax.models.heads import l2_normalise
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


def distillation(
    student_logits: Float[Array, "rows classes"],
    teacher_logits: Float[Array, "rows classes"],
    student_features: Float[Array, "rows dim"],
    teacher_features: Float[Array, "rows dim"],
    labels: Int[Array, " rows"],
    soft_target: ArrayLike = 0.3,
    softness: ArrayLike = 3.0,
    imitation: ArrayLike = 0.1,
    smoothing: ArrayLike = 0.1,
) -> Float[Array, ""]:
    """Return the loss of a student: labels, the teacher's logits and its features.

    With alpha = `soft_target`, T = `softness` and beta = `imitation`, the mean over the
    rows of `(1 - alpha) CE(z, y) + alpha T^2 KL(softmax(z_T / T) || softmax(z / T))
    + beta |n(f) - n(f_T)|^2`, n scaling to length 1. No gradient reaches the teacher.
    Source: Hinton et al. 2015; Zhang et al., "Be your own teacher", 2019; the
    normalisation is our choice.
    """
    teacher_logits, teacher_features = lax.stop_gradient(
        (widen(teacher_logits), widen(teacher_features))
    )
    label_loss = cross_entropy(student_logits, labels, smoothing)
    log_p = jax.nn.log_softmax(teacher_logits / softness)
    log_q = jax.nn.log_softmax(widen(student_logits) / softness)
    divergence = optax.losses.kl_divergence_with_log_targets(log_q, log_p).mean()
    difference = l2_normalise(widen(student_features)) - l2_normalise(teacher_features)
    return (
        (1 - soft_target) * label_loss
        + soft_target * softness**2 * divergence
        + imitation * (difference * difference).sum(1).mean()
    )
