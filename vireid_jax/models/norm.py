"""Batch normalisation as torch does it, and instance norms; shared or per modality."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vireid_jax.models.precision import widen
from vireid_jax.models.views import Views, columns_by_modality


class BatchNorm(nn.Module):
    """Normalises each channel over all other axes; statistics are float32 or wider.

    Under jit on a mesh the mean runs over the global batch. Differs from flax's in one
    point: the running variance is the unbiased one, as torch stores it.
    """

    use_bias: bool = True
    zero_scale: bool = False
    momentum: float = 0.1  # the share of the new batch, as torch counts it
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... C"], train: bool) -> Float[Array, "... C"]:
        """Normalises with the batch's statistics if `train`, else the running ones."""
        channels = x.shape[-1:]
        wide = widen(x)
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", scale_init, channels)
        bias = (
            self.param("bias", nn.initializers.zeros, channels) if self.use_bias else 0
        )
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)

        if train:
            axes = tuple(range(x.ndim - 1))
            mean = wide.mean(axes)
            var = jnp.maximum((wide * wide).mean(axes) - mean * mean, 0)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                keep = 1 - self.momentum
                running_mean.value = keep * running_mean.value + self.momentum * mean
                running_var.value = keep * running_var.value + self.momentum * unbiased
        else:
            mean, var = running_mean.value, running_var.value

        gain = scale * lax.rsqrt(var + self.epsilon)
        return (wide * gain + (bias - mean * gain)).astype(x.dtype)


class InstanceNorm(nn.Module):
    """Normalises each channel of each image over its pixels, in float32 or wider."""

    zero_scale: bool = False
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "... H W C"], train: bool
    ) -> Float[Array, "... H W C"]:
        """Normalises, scales and shifts; the same in training and at test."""
        channels = x.shape[-1:]
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", scale_init, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        # In two passes: over few pixels the mean's square can swallow the variance.
        centred = widen(x) - widen(x).mean((-3, -2), keepdims=True)
        var = (centred * centred).mean((-3, -2), keepdims=True)
        gain = scale * lax.rsqrt(var + self.epsilon)
        return (centred * gain + bias).astype(x.dtype)


def norm(
    x: Float[Array, "rows ... C"],
    views: Views,
    train: bool,
    *,
    name: str,
    per_modality: bool,
    layer: type[nn.Module] = BatchNorm,
    **kwargs,
) -> Float[Array, "rows ... C"]:
    """Normalises rows with one `layer` of this name, or one `name_MODALITY` each.

    Called inside a compact method, whose module then owns the parameters. Row `r` shows
    view `r % len(views)`: views lie side by side, so that a batch sharded over devices
    keeps all views of an image pair on one device. An instance norm has no statistics
    to share: per modality its scale and bias are doubled, which is our choice.
    """
    if not per_modality:
        return layer(name=name, **kwargs)(x, train)
    by_view = x.reshape(-1, len(views), *x.shape[1:])
    parts = []
    for modality, columns in columns_by_modality(views).items():
        own = layer(name=f"{name}_{modality}", **kwargs)
        parts.append(own(by_view[:, columns], train))
    return jnp.concatenate(parts, axis=1).reshape(x.shape)
