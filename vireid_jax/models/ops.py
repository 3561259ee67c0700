"""Five operations in a form for CPUs and an ordinary one, for GPUs and TPUs.

Only `_per_platform` chooses, while lowering: one traced program can be compiled, or
exported, for CPU, GPU and TPU. Both forms take the same parameters and agree to
rounding (tested in float64).

Why: XLA:CPU runs a grouped convolution 10 to 40 times slower than its nine shifted
products, computes a convolution's weight gradient in one pass over buffers that are no
longer in the cache, and transposes a complete map for that of a 1x1 convolution.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vireid_jax.models.precision import widen

_GROUP_BYTES = 2**19  # images handled together on CPU: half of a core's L2 cache


def _per_platform(cpu: Callable, ordinary: Callable, *args: Array) -> Any:
    """Call `cpu` in a program that is compiled for a CPU, else `ordinary`.

    Profiles show the form by its name.
    """
    with jax.named_scope(cpu.__name__.strip("_")):
        return lax.platform_dependent(*args, cpu=cpu, default=ordinary)


def _with_gradient(op: jax.custom_vjp, cpu: Callable, ordinary: Callable) -> None:
    """Set the gradients of `op(x, kernel)` to a form's `backward(x, kernel, g)`."""
    op.defvjp(
        lambda x, kernel: (op(x, kernel), (x, kernel)),
        lambda saved, g: _per_platform(cpu, ordinary, *saved, g),
    )


def _own_gradient(forward: Callable) -> Callable:
    """Return jax's backward pass of `forward(x, kernel)`, as a form."""
    return lambda x, kernel, g: jax.vjp(forward, x, kernel)[1](g)


def _conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolve with zero padding; the kernel's shape decides it and the groups."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(size // 2, size // 2) for size in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def _groups(x: Array, bytes_per_image: int) -> Array:
    """Split `[B, ...]` into `[groups, B / groups, ...]` that fit the cache."""
    batch = x.shape[0]
    size = max(1, min(batch, _GROUP_BYTES // bytes_per_image))
    while batch % size:
        size -= 1
    return x.reshape(batch // size, size, *x.shape[1:])


# --- pointwise (1x1) ------------------------------------------------------------------


@jax.custom_vjp
def pointwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "1 1 C D"]
) -> Float[Array, "B H W D"]:
    """Multiply every pixel's channels by a matrix."""
    return x @ kernel[0, 0]


def _pointwise_flat_backward(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    # A product of two matrices is one call of a library, and copies nothing.
    of_kernel = x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])
    return g @ kernel[0, 0].T, of_kernel[None, None]


def _pointwise_backward(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    return g @ kernel[0, 0].T, jnp.einsum("bhwc,bhwd->cd", x, g)[None, None]


_with_gradient(pointwise, _pointwise_flat_backward, _pointwise_backward)


# --- depthwise 3x3, stride 1, padding 1 -----------------------------------------------


@jax.custom_vjp
def depthwise3x3(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 1 C"]
) -> Float[Array, "B H W C"]:
    """Convolve each channel with its own 3x3 kernel, zero padding 1, stride 1."""
    return _per_platform(_depthwise_shifts, _conv, x, kernel)


def _pad1(x: Array) -> Array:
    # Without the barrier XLA fuses the pad into all nine reads, a branch per element.
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _shifts(padded: Array, height: int, width: int) -> list[Array]:
    return [
        padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)
    ]


def _depthwise_shifts(x: Array, kernel: Array) -> Array:
    taps = kernel.reshape(9, -1)
    shifts = _shifts(_pad1(x), *x.shape[1:3])
    return sum(s * t for s, t in zip(shifts, taps, strict=True))


def _depthwise_kernel_gradient(x: Array, g: Array) -> Array:
    """Sum, per tap, the product of the shifted input and the output's gradient.

    Rows are summed by a product with ones: half the time of a sum in XLA:CPU.
    """
    height, width, channels = x.shape[1:]
    bytes_per_image = height * width * channels * x.dtype.itemsize
    groups = _groups(_pad1(x), bytes_per_image), _groups(g, bytes_per_image)
    ones = jnp.ones(groups[1].shape[1] * height, g.dtype)

    def add_group(total, xg):
        padded, g = xg
        products = [s * g for s in _shifts(padded, height, width)]
        columns = [ones @ p.reshape(len(ones), width * channels) for p in products]
        return total + jnp.stack(columns), None

    total = jnp.zeros((9, width * channels), g.dtype)
    total, _ = lax.scan(add_group, total, groups)
    return total.reshape(9, width, channels).sum(1).reshape(3, 3, 1, channels)


def _depthwise_backward(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    g = lax.optimization_barrier(g)  # else it is computed again for each of nine taps
    return _depthwise_shifts(g, kernel[::-1, ::-1]), _depthwise_kernel_gradient(x, g)


_with_gradient(depthwise3x3, _depthwise_backward, _own_gradient(_conv))


# --- the stem: 7x7, stride 2, padding 3 -----------------------------------------------


@jax.custom_vjp
def stem7x7(
    x: Float[Array, "B H W C"], kernel: Float[Array, "7 7 C D"]
) -> Float[Array, "B H/2 W/2 D"]:
    """Convolve with a 7x7 kernel, zero padding 3, stride 2. H and W are even."""
    if not isinstance(x.shape[0], int):  # exported for any batch: `_groups` has no size
        return _stem_conv(x, kernel)
    return _per_platform(_stem_patches, _stem_conv, x, kernel)


_stem_conv = partial(_conv, stride=2)


def _fold(x: Array) -> Array:
    """Fold 2x2 pixels into channels and pads: 16 plain slices replace 64 strided."""
    batch, height, width, channels = x.shape
    h, w = height // 2, width // 2
    folded = x.reshape(batch, h, 2, w, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    folded = folded.reshape(batch, h, w, 4 * channels)
    padded = jnp.pad(folded, ((0, 0), (2, 1), (2, 1), (0, 0)))
    return lax.optimization_barrier(padded)  # once, not once per slice


def _patches(folded: Array) -> Array:
    """Cut the 8x8 windows (the 7x7 ones and a leading row and column) of stride 2."""
    h, w = folded.shape[1] - 3, folded.shape[2] - 3
    windows = [folded[:, i : i + h, j : j + w] for i in range(4) for j in range(4)]
    return jnp.concatenate(windows, axis=-1)


def _stem_matrix(kernel: Array) -> Array:
    """Order the 7x7 kernel, padded to 8x8, as `_patches` orders the pixels."""
    channels, features = kernel.shape[2:]
    padded = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    folded = padded.reshape(4, 2, 4, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return folded.reshape(64 * channels, features)


def _patch_bytes(x: Array) -> int:
    return 16 * x[0].size * x.dtype.itemsize


def _stem_patches(x: Array, kernel: Array) -> Array:
    matrix = _stem_matrix(kernel)
    groups = _groups(_fold(x), _patch_bytes(x))
    maps = lax.map(lambda group: _patches(group) @ matrix, groups)
    return maps.reshape(-1, *maps.shape[2:])


def _stem_backward(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    def add_group(total, xg):
        folded, g = xg
        patches = _patches(folded).reshape(-1, total.shape[0])
        return total + patches.T @ g.reshape(-1, total.shape[1]), None

    matrix, from_matrix = jax.vjp(_stem_matrix, kernel)
    groups = _groups(_fold(x), _patch_bytes(x)), _groups(g, _patch_bytes(x))
    total, _ = lax.scan(add_group, jnp.zeros_like(matrix), groups)
    # Training does not read the image's gradient, so XLA removes it there.
    (dx,) = jax.vjp(lambda x: _stem_conv(x, kernel), x)[1](g)
    return dx, from_matrix(total)[0]


_with_gradient(stem7x7, _stem_backward, _own_gradient(_stem_conv))


# --- pooling --------------------------------------------------------------------------


def max_pool3x3(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Take the maximum of 3x3 windows, stride 2, padding 1 (of minus infinity)."""
    return _per_platform(_max_pool_shifts, _max_pool_window, x)


def _pad_lowest(x: Array) -> Array:
    lowest = jnp.finfo(x.dtype).min
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=lowest)


def _max_pool_window(x: Array) -> Array:
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    padded = _pad_lowest(x)
    return lax.reduce_window(padded, -jnp.inf, lax.max, window, strides, "VALID")


def _max_pool_shifts(x: Array) -> Array:
    """Reduce along columns, then rows: four maxima instead of eight."""
    padded = _pad_lowest(x)

    def halve(x: Array, axis: int) -> Array:
        size = (x.shape[axis] - 3) // 2 + 1
        first, middle, last = (
            lax.slice_in_dim(x, i, i + 2 * size - 1, stride=2, axis=axis)
            for i in range(3)
        )
        return jnp.maximum(jnp.maximum(first, middle), last)

    return halve(halve(padded, 2), 1)


def average_pool2x2(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Take the mean of 2x2 windows, stride 2; an odd last row or column is dropped."""
    return _per_platform(_average_pool_reshape, _average_pool_window, x)


def _average_pool_reshape(x: Array) -> Array:
    batch, height, width, channels = x.shape
    h, w = height // 2, width // 2
    x = x[:, : 2 * h, : 2 * w]
    return x.reshape(batch, h, 2, w, 2, channels).mean((2, 4))


def _average_pool_window(x: Array) -> Array:
    # A third of the cycles of the other form on a TPU: benchmarks/tpu_block.py.
    window = (1, 2, 2, 1)
    total = lax.reduce_window(widen(x), 0.0, lax.add, window, window, "VALID")
    return (total * 0.25).astype(x.dtype)
