"""The operations of `network.py`, done on arrays by JAX.

Every one takes any number of images, also one that is not known while tracing.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from vireid_jax.data import augment
from vireid_jax.export.folding import EPSILON
from vireid_jax.models import heads, ops
from vireid_jax.models.precision import EXACT


class Arrays:
    """Maps are `[batch, H, W, C]`, features `[batch, D]` or `[parts, batch, D]`."""

    def constant(self, _: str, value: Any) -> Array | None:
        """Returns a weight to compute with."""
        return None if value is None else jnp.asarray(value)

    # --- images and maps --------------------------------------------------------------

    def normalise(self, images: Array) -> Array:
        """Turns uint8 pixels into a map."""
        return augment.normalise(images)

    def with_mirror(self, x: Array) -> Array:
        """Puts every image's mirror behind all images."""
        return jnp.concatenate([x, x[:, :, ::-1]])

    def stem7x7(self, x: Array, kernel: Array, bias: Array | None) -> Array:
        """Convolves 7x7, padding 3, stride 2."""
        with ops.ordinary_forms():  # that for CPUs must know the number of images
            x = ops.stem7x7(x.astype(kernel.dtype), kernel)
        return _shifted(x, bias)

    def pointwise(self, x: Array, kernel: Array, bias: Array | None) -> Array:
        """Convolves 1x1."""
        return _shifted(ops.pointwise(x, kernel), bias)

    def depthwise3x3(self, x: Array, kernel: Array, bias: Array | None) -> Array:
        """Convolves each channel by itself 3x3, padding 1."""
        return _shifted(ops.depthwise3x3(x, kernel), bias)

    def max_pool3x3(self, x: Array) -> Array:
        """Takes the maximum of 3x3 windows, padding 1, stride 2."""
        return ops.max_pool3x3(x)

    def average_pool2x2(self, x: Array) -> Array:
        """Takes the mean of 2x2 windows, stride 2."""
        return ops.average_pool2x2(x)

    def instance_norm(self, x: Array, scale: Array, bias: Array) -> Array:
        """Normalises each channel of each image."""
        centred = x - x.mean((1, 2), keepdims=True)
        variance = (centred * centred).mean((1, 2), keepdims=True)
        return centred * (scale * lax.rsqrt(variance + EPSILON)) + bias

    def relu(self, x: Array) -> Array:
        """Takes what is above zero."""
        return jnp.maximum(x, 0)

    def sigmoid(self, x: Array) -> Array:
        """Maps into (0, 1)."""
        return jax.nn.sigmoid(x)

    def mean(self, x: Array) -> Array:
        """Takes the mean of each channel: `[batch, 1, 1, C]`."""
        return x.mean((1, 2), keepdims=True)

    def height(self, x: Array) -> int:
        """Counts a map's rows."""
        return x.shape[1]

    def rows(self, x: Array, rows: slice) -> Array:
        """Cuts a stripe out of a map."""
        return x[:, rows]

    # --- features ---------------------------------------------------------------------

    def generalised_mean(self, x: Array) -> Array:
        """Pools a map: `[batch, C]`."""
        return heads.generalised_mean(x)

    def highest(self, x: Array) -> Array:
        """Takes the maximum of each channel of a map: `[batch, C]`."""
        return x.max((1, 2))

    def concatenate(self, features: Sequence[Array]) -> Array:
        """Puts features beside each other."""
        return jnp.concatenate(features, -1)

    def matmul(self, x: Array, kernel: Array) -> Array:
        """Multiplies by one kernel, or each part by its own."""
        return jnp.matmul(x, kernel, precision=EXACT)

    def stack(self, parts: Sequence[Array]) -> Array:
        """Makes `[parts, batch, D]` of the parts."""
        return jnp.stack(parts)

    def join(self, groups: Sequence[Array]) -> Array:
        """Puts groups of parts behind each other."""
        return jnp.concatenate(groups)

    def sum_over_parts(self, parts: Array) -> Array:
        """Sums all parts: `[1, batch, D]`."""
        return parts.sum(0, keepdims=True)

    def attend(self, query: Array, key: Array, value: Array) -> Array:
        """Finds in all parts of an image what each of them asks for."""
        scores = jnp.einsum("pnd,qnd->npq", query, key, precision=EXACT)
        weights = jax.nn.softmax(scores)
        return jnp.einsum("npq,qnd->pnd", weights, value, precision=EXACT)

    def features_of_parts(self, parts: Array) -> Array:
        """Puts an image's parts beside each other: `[batch, parts D]`."""
        count, _, features = parts.shape
        return parts.transpose(1, 0, 2).reshape(-1, count * features)

    def l2_normalise(self, x: Array) -> Array:
        """Scales features to length 1."""
        return heads.l2_normalise(x)

    def sum_of_mirrors(self, x: Array) -> Array:
        """Adds what was found of an image and of its mirror."""
        return x.reshape(2, -1, x.shape[-1]).sum(0)


def _shifted(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias
