"""Augment and normalise images on the device, inside the jitted train step.

Each image of the global batch owns one row of random numbers, each purpose one column
of it. `jax.random` (partitionable threefry, jax's default) computes number i from the
key and i alone, so the result does not depend on the number of devices, each device
computes only its own rows, and switching a part off changes no other.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float32, Key, UInt8

# Of ImageNet, RGB, for pixels scaled to 0..1; the pretrained weights expect them.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

ERASED_AREA = (0.02, 0.4)  # of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height over width
_ERASING_TRIALS = 10
_NUMBERS = 4 + 4 * _ERASING_TRIALS  # random ones an image: see `augment`
_CHANNEL, _RESPONSE = 1 << 30, 2 << 30  # folded into keys; callers use small numbers


def normalise(
    images: UInt8[Array, "batch height width 3"],
) -> Float32[Array, "batch height width 3"]:
    """Scale RGB by ImageNet's mean and standard deviation, both modalities alike."""
    return images.astype(jnp.float32) * (1 / (255 * STD)) - MEAN / STD


def third_view(
    key: Key[Array, ""], images: UInt8[Array, "batch height width 3"]
) -> UInt8[Array, "batch height width 3"]:
    """Copy one random channel of each visible image to all three.

    Source: random channel exchange of CAJ (Ye et al., ICCV 2021), without its grey
    option. `augment` the result with a key of its own.
    """
    key = jax.random.fold_in(key, _CHANNEL)
    channel = jax.random.randint(key, (len(images), 1, 1, 1), 0, 3)
    red, green, blue = images[..., 0:1], images[..., 1:2], images[..., 2:3]
    chosen = jnp.where(channel == 0, red, jnp.where(channel == 1, green, blue))
    return jnp.broadcast_to(chosen, images.shape)


def pseudo_infrared(
    key: Key[Array, ""],
    images: UInt8[Array, "batch height width 3"],
    signed: ArrayLike = 0.5,
) -> UInt8[Array, "batch height width 3"]:
    """Convert visible images to grey by a random linear response to colour.

    Brightness is a weighted sum of the channels, scaled to mean 127.5 and standard
    deviation 64. With probability `signed` an image draws weights of any sign, which
    keep the borders between garments, but not which side is brighter; otherwise one
    channel. Our choice, after RLE (Tan et al., NeurIPS 2024).
    """
    key = jax.random.fold_in(key, _RESPONSE)
    weights = jax.random.normal(key, (len(images), 1, 1, 3))
    one_channel = weights == weights.max(-1, keepdims=True)
    chosen = jax.random.uniform(jax.random.fold_in(key, 1), (len(images), 1, 1, 1))
    weights = jnp.where(chosen < signed, weights, one_channel)
    brightness = (images.astype(jnp.float32) * weights).sum(-1, keepdims=True)
    mean = brightness.mean((1, 2, 3), keepdims=True)
    spread = brightness.std((1, 2, 3), keepdims=True)
    grey = 127.5 + 64 * (brightness - mean) / jnp.maximum(spread, 1)
    grey = jnp.clip(jnp.round(grey), 0, 255).astype(jnp.uint8)
    return jnp.broadcast_to(grey, images.shape)


def augment(
    key: Key[Array, ""],
    images: UInt8[Array, "batch height width 3"],
    *,
    pad: int = 10,
    flip: ArrayLike = 0.5,
    erase: ArrayLike = 0.5,
) -> Float32[Array, "batch height width 3"]:
    """Crop, flip and erase at random, and normalise; the same for both modalities.

    - Pad each side by `pad` black pixels, then crop the original size at random.
      Static: another value compiles again. The usual 10 belongs to 288x144.
    - Mirror left to right with probability `flip`.
    - With probability `erase`, set a rectangle to 0, the mean, in the result. Its area
      is uniform in ERASED_AREA of the image and its aspect uniform in ERASED_ASPECT,
      drawn up to 10 times until the rectangle fits, else nothing is erased.

    The probabilities may be traced scalars, so changing them compiles nothing. Source:
    CAJ (Ye et al., ICCV 2021), which fills with CIFAR's mean, un-normalised.
    """
    # One call for all purposes: each would add its own generator to compile.
    numbers = jax.random.uniform(key, (len(images), _NUMBERS))
    if pad:
        images = _crop(numbers[:, 0:2], images, pad)
    mirrored = (numbers[:, 2] < flip)[:, None, None, None]
    images = jnp.where(mirrored, images[:, :, ::-1], images)
    erased = (numbers[:, 3] < erase)[:, None, None, None]
    erased &= _rectangle(numbers[:, 4:], *images.shape[1:3])
    return jnp.where(erased, 0.0, normalise(images))


def _crop(
    numbers: Float32[Array, "batch 2"],
    images: UInt8[Array, "batch height width 3"],
    pad: int,
) -> UInt8[Array, "batch height width 3"]:
    """Pad with black and cut each image's own window out."""
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corner = jnp.floor(numbers * (2 * pad + 1)).astype(jnp.int32)
    window = lambda image, yx: jax.lax.dynamic_slice(
        image, (yx[0], yx[1], 0), images.shape[1:]
    )
    return jax.vmap(window)(padded, corner)


def _rectangle(
    numbers: Float32[Array, "batch numbers"], height: int, width: int
) -> Bool[Array, "batch height width 1"]:
    """Mask one rectangle an image, from four numbers a trial."""
    trials = numbers.reshape(len(numbers), _ERASING_TRIALS, 4)
    area, aspect, top, left = jnp.moveaxis(trials, -1, 0)
    area = (ERASED_AREA[0] + area * np.ptp(ERASED_AREA)) * height * width
    aspect = ERASED_ASPECT[0] + aspect * np.ptp(ERASED_ASPECT)
    tall, wide = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (tall < height) & (wide < width)
    top = jnp.floor(top * (height - tall + 1))
    left = jnp.floor(left * (width - wide + 1))

    # The first trial that fits, picked by a sum over a one-hot mask: no gather.
    first = fits & (jnp.cumsum(fits, axis=1) == 1)
    pick = lambda x: jnp.sum(jnp.where(first, x, 0), axis=1)[:, None, None, None]
    top, left, tall, wide = map(pick, (top, left, tall, wide))
    y = jnp.arange(height, dtype=jnp.float32)[:, None, None]
    x = jnp.arange(width, dtype=jnp.float32)[:, None]
    return (top <= y) & (y < top + tall) & (left <= x) & (x < left + wide)
