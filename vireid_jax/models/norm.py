"""Batch normalisation as in torch, and instance norms; shared or one per modality."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vireid_jax.models.precision import widen
from vireid_jax.models.views import Views, columns_by_modality

_EPSILON = 1e-5  # of all norms, as in torch
_MOMENTUM = 0.1  # weight of the new batch in the running statistics, as in torch


def _scale_init(zero: bool) -> nn.initializers.Initializer:
    return nn.initializers.zeros if zero else nn.initializers.ones


class BatchNorm(nn.Module):
    """Normalise each channel over all other axes; statistics are float32 or wider.

    Under jit on a mesh the mean is that of the global batch. Unlike flax's, the running
    variance is the unbiased one, as in torch.
    """

    use_bias: bool = True
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... C"], train: bool) -> Float[Array, "... C"]:
        """Normalise with the batch's statistics if `train`, else the running ones."""
        channels = x.shape[-1:]
        wide = widen(x)
        scale = self.param("scale", _scale_init(self.zero_scale), channels)
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, channels) if self.use_bias else 0
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)

        if train:
            axes = tuple(range(x.ndim - 1))
            mean = wide.mean(axes)
            var = jnp.maximum((wide * wide).mean(axes) - mean * mean, 0)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                for running, new in ((running_mean, mean), (running_var, unbiased)):
                    running.value = (1 - _MOMENTUM) * running.value + _MOMENTUM * new
        else:
            mean, var = running_mean.value, running_var.value

        gain = scale * lax.rsqrt(var + _EPSILON)
        return (wide * gain + (bias - mean * gain)).astype(x.dtype)


class InstanceNorm(nn.Module):
    """Normalise each channel of each image over its pixels, in float32 or wider.

    Unlike flax's, any number of axes may come before height and width.
    """

    zero_scale: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "... H W C"], train: bool
    ) -> Float[Array, "... H W C"]:
        """Normalise, scale and shift; the same in training and at test."""
        channels = x.shape[-1:]
        scale = self.param("scale", _scale_init(self.zero_scale), channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        # In two passes: over few pixels the mean's square can swallow the variance.
        centred = widen(x) - widen(x).mean((-3, -2), keepdims=True)
        var = (centred * centred).mean((-3, -2), keepdims=True)
        gain = scale * lax.rsqrt(var + _EPSILON)
        return (centred * gain + bias).astype(x.dtype)


def norm(
    x: Float[Array, "rows ... C"],
    views: Views | None,
    train: bool,
    *,
    name: str,
    layer: type[nn.Module] = BatchNorm,
    **options: bool,
) -> Float[Array, "rows ... C"]:
    """Normalise rows with one `layer` if `views` is None, else one per modality.

    Called inside a compact method, whose module then owns the parameters; those of a
    modality are named `name_MODALITY`. Row `r` is of view `r % len(views)`: the views
    of an image pair are neighbouring rows, so a batch sharded over devices keeps them
    on one device. Instance norms have no statistics to share: per modality they have
    their own scale and bias, which is our choice.
    """
    if views is None:
        return layer(name=name, **options)(x, train)
    by_view = x.reshape(-1, len(views), *x.shape[1:])
    parts = []
    for modality, columns in columns_by_modality(views).items():
        own = layer(name=f"{name}_{modality}", **options)
        parts.append(own(by_view[:, columns], train))
    return jnp.concatenate(parts, axis=1).reshape(x.shape)
