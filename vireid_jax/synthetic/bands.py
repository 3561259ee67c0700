"""Three bands of one scene: visible, near infrared and thermal, sensors included."""

import functools
import math

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.random import Generator

from vireid_jax.synthetic import background, garments
from vireid_jax.synthetic.raster import Raster
from vireid_jax.synthetic.scene import Scene

Size = tuple[int, int]
Image = UInt8[np.ndarray, "height width 3"]

_SKIN_TEMPERATURE = 33.0  # degrees C
_COLDEST = 5000  # hundredths of a degree, added to keep temperatures positive
_TILE = 1024
_Y, _X = np.mgrid[-1:1:32j, -1:1:64j]
_FOOTING = np.round(255 * np.exp(-3.2 * (_X * _X + _Y * _Y))).astype(np.uint8)
"""A soft disk that darkens the ground at the feet."""
_SINE = np.sin(np.arange(1024) * (2 * math.pi / 1024)).astype(np.float32)


@functools.cache
def _tile(smooth: bool) -> Float32[np.ndarray, "tile tile"]:
    """Return a tile of noise: smooth, the folds of cloth, or unit normal, the grain."""
    if smooth:
        return background.cloud(np.random.default_rng(32), _TILE, _TILE, 24)
    return np.random.default_rng(31).standard_normal((_TILE, _TILE), np.float32)


def _noise(rng: Generator, shape: Size, smooth: bool = False) -> np.ndarray:
    """Return a random window of a tile of noise; a small tile repeats."""
    tile, (height, width) = _tile(smooth), shape
    top, left = rng.integers(0, _TILE, 2)
    if top + height > _TILE or left + width > _TILE:
        top, left = top % max(1, _TILE - height), left % max(1, _TILE - width)
    if height > _TILE or width > _TILE:
        tile = np.tile(tile, (height // _TILE + 1, width // _TILE + 1))
    return tile[top : top + height, left : left + width]


def _folds(raster: Raster, rng: Generator) -> np.ndarray:
    """Return the folds of cloth at the seen pixels."""
    return _noise(rng, raster.labels.shape, smooth=True).reshape(-1)[raster.seen]


def _weave(raster: Raster, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the patterned pixels and how far each is from colour a to colour b."""
    waves = table[:, garments.WAVES]
    patterned = np.flatnonzero(np.any(waves, axis=1)[raster.part])
    part, u = raster.part[patterned], raster.u[patterned]
    # Where on the cloth they lie: metres along and around.
    metre, start, turn = np.take(raster.cloth, part, axis=1)
    along = raster.inside[patterned] * metre + start
    arc = u * (1 + np.float32(0.28) * u * u) + turn  # close to the arc sine
    arc = arc * raster.radius[patterned] * metre
    # In steps of the sine table, 1024 a cycle.
    steps = (waves * [1024, 1024, 1024, 1024, 1, 1, 1]).T.astype(np.float32)
    s1, a1, s2, a2, m1, m2, sharp = np.take(steps, part, axis=1)
    first = _SINE[(s1 * along + a1 * arc).astype(np.int32) & 1023]
    second = _SINE[(s2 * along + a2 * arc).astype(np.int32) & 1023]
    mixed = 0.5 + sharp * (m1 * first + m2 * second)
    return patterned, np.minimum(np.maximum(mixed, 0), 1)


def _lambert(raster: Raster, light: np.ndarray) -> np.ndarray:
    """Return the cosine between each pixel's normal and the light, at least 0."""
    x, y, z = light.astype(np.float32)
    # Written out: a matrix product rounds differently from processor to processor.
    sideways = (raster.across[:, 0] * x + raster.across[:, 1] * y)[raster.part]
    lengthwise = (raster.axis[:, 0] * x + raster.axis[:, 1] * y)[raster.part]
    cosine = raster.u * sideways + raster.w * lengthwise
    return np.maximum(cosine + raster.facing * z, 0)


def _behind(scene: Scene, band: np.ndarray, canvas: Size) -> np.ndarray:
    """Return the scene's window of a place, `[height, width]` or with 3 channels."""
    left, top, tall = scene.window
    wide = round(tall * canvas[1] / canvas[0])
    crop = band[top : top + tall, left : left + wide]
    return cv2.resize(crop, canvas[::-1], interpolation=cv2.INTER_LINEAR)


def _contact_shadow(scene: Scene, behind: np.ndarray, depth: float) -> None:
    """Darken the ground at the person's feet, in place."""
    view = scene.view
    wide, high = int(0.85 * view.scale), max(4, int(0.24 * view.scale))
    left, top = int(view.x - wide / 2), int(view.y - 0.5 * high)
    patch = behind[max(0, top) : max(0, top + high), max(0, left) : max(0, left + wide)]
    dark = 1 - np.float32(depth / 255) * cv2.resize(_FOOTING, (wide, high))
    dark = dark[max(0, -top) :, max(0, -left) :][: patch.shape[0], : patch.shape[1]]
    dark = dark[..., None] if behind.ndim == 3 else dark
    patch[...] = (patch * dark).astype(np.uint8)


def _paint(canvas: np.ndarray, raster: Raster, values: np.ndarray) -> None:
    """Write the values of the seen pixels, clipped, into a uint8 canvas."""
    clipped = np.minimum(np.maximum(values, 0), 255)  # faster than np.clip
    canvas.reshape(-1)[raster.seen] = clipped.astype(np.uint8)


def _albedo(
    raster: Raster, a: np.ndarray, b: np.ndarray, weave: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the albedo of the seen pixels, given the parts' two colours `[parts]`."""
    albedo, (patterned, mixed) = np.take(a.astype(np.float32), raster.part), weave
    change = np.take((b - a).astype(np.float32), raster.part[patterned])
    albedo[patterned] += mixed * change
    return albedo


def _expose(
    small: np.ndarray, scene: Scene, gains: np.ndarray, gamma: float, noise: float
) -> np.ndarray:
    """Return what the sensor makes of light: blur, tone curve, shot and read noise."""
    height, width = small.shape[:2]
    gamma, noise = gamma * scene.camera.gamma, noise * scene.camera.noise
    small = _blur(small, scene.camera.blur * height / 128)
    levels = np.arange(256) / 255
    tones = 4 + 251 * np.minimum(np.outer(levels, gains), 1) ** gamma
    signal = cv2.LUT(small, tones.astype(np.uint8)[None])
    amplitude = (noise * np.sqrt(levels + 0.12)).astype(np.float32)
    grain = _noise(scene.rng, (height, width * len(gains))).reshape(small.shape)
    grain = cv2.multiply(cv2.LUT(small, amplitude), grain)
    return cv2.add(signal, grain, dtype=cv2.CV_8U)  # rounds and saturates


def _reduce(image: np.ndarray, size: Size) -> np.ndarray:
    """Average a canvas, at most twice as large, down to `(height, width)`."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR_EXACT)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by the optics; a kernel of 3 or 5 is wide enough."""
    reach = 3 if sigma < 0.8 else 5 if sigma < 1.5 else 2 * int(2 * sigma) + 1
    return cv2.GaussianBlur(image, (reach, reach), sigma)


def visible(scene: Scene, raster: Raster, size: Size) -> Image:
    """Image the scene in colour: albedo x light, shadow, white balance, noise."""
    image = _behind(scene, scene.place.rgb, raster.labels.shape)
    _contact_shadow(scene, image, 0.55)
    shade = scene.diffuse * (0.62 + 0.38 * raster.facing)
    shade += (1 - scene.diffuse) * 1.35 * _lambert(raster, scene.light)
    shade *= (1 + 0.16 * _folds(raster, scene.rng)) * np.float32(255)
    table = scene.surfaces[raster.surface]
    weave = _weave(raster, table)
    colours = table[:, garments.RGB_A].T, table[:, garments.RGB_B].T
    channels = cv2.split(image)
    for channel, a, b in zip(channels, *colours, strict=True):
        _paint(channel, raster, _albedo(raster, a, b, weave) * shade)
    small = _reduce(cv2.merge(channels), size)
    gains = 1.04 * scene.exposure * scene.camera.gain * scene.camera.tint * scene.tint
    return _expose(small, scene, gains, 1.0, 7.0)


def near_infrared(scene: Scene, raster: Raster, size: Size) -> Image:
    """Image the scene in the near infrared: albedo x (ambient + flash n.v / d^2)."""
    flash, rng = scene.camera.flash, scene.rng
    image = _behind(scene, scene.place.nir, raster.labels.shape)
    # The flash fades with the square of the distance; the wall is further away.
    far = 1 - flash * rng.uniform(0.35, 0.75)
    image = cv2.convertScaleAbs(image, alpha=0.72 * far)
    _contact_shadow(scene, image, 0.3)
    near = flash * (0.15 + 0.85 * raster.facing)
    near += (1 - flash) * (0.5 + 0.5 * _lambert(raster, scene.light))
    table = scene.surfaces[raster.surface]
    a, b = table[:, garments.NIR_A], table[:, garments.NIR_B]
    albedo = _albedo(raster, a, b, _weave(raster, table))
    lit = albedo * near * (1 + 0.1 * _folds(raster, rng)) * np.float32(255)
    _paint(image, raster, lit)
    # The flash falls off towards the corners, too.
    y, x = np.ogrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    vignette = (1 - 0.22 * (0.7 * y * y + 0.3 * x * x)).astype(np.float32)
    small = cv2.multiply(_reduce(image, size), vignette, dtype=cv2.CV_8U)
    gain = 1.05 * scene.exposure * scene.camera.gain
    grey = _expose(small, scene, np.array([gain]), 0.9, 8.0)
    return cv2.merge([grey, grey, grey])


def thermal(scene: Scene, raster: Raster, size: Size) -> Image:
    """Image the scene in the long-wave infrared: T = T_amb + (33 - T_amb) warmth.

    The camera's gain control maps percentiles to 8 bits, its optics blur, and its
    local contrast leaves a dark halo around warm things.
    """
    rng, (height, width) = scene.rng, size
    warmth = scene.surfaces[:, garments.WARMTH]
    # Wind, effort and time outdoors: every garment is a little different each time.
    warmth = warmth * rng.uniform(0.9, 1.06) + rng.normal(0, 0.025, warmth.size)
    warmth = warmth[raster.surface].astype(np.float32)[raster.part]
    above = (_SKIN_TEMPERATURE - scene.ambient) * warmth * (0.86 + 0.14 * raster.facing)
    above += 1.1 * _folds(raster, rng)
    # In hundredths of a degree: integers blur alike on every processor.
    heat = _behind(scene, scene.place.heat, raster.labels.shape).astype(np.float32)
    heat = (_COLDEST + (heat - 128) * rng.uniform(6, 11)).astype(np.uint16)
    heat.reshape(-1)[raster.seen] = (_COLDEST + 100 * above).astype(np.uint16)
    heat = _blur(_reduce(heat, size), 1.1 * scene.camera.blur * height / 128 + 0.25)
    halo = cv2.resize(heat, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    halo = cv2.resize(
        _blur(halo, 1.6), size[::-1], interpolation=cv2.INTER_LINEAR_EXACT
    )
    heat = heat.astype(np.float32) - np.float32(rng.uniform(0.12, 0.3)) * halo
    ranked = np.sort(heat[::2, ::2], axis=None)
    low, high = ranked[int(0.015 * ranked.size)], ranked[int(0.993 * ranked.size)]
    span = max(float(high - low), 400.0) * rng.uniform(0.98, 1.12)
    level = (heat - low) * np.float32(218 / span) + np.float32(rng.uniform(8, 26))
    grain = _noise(rng, (height + 1, width))
    level += (grain[1:] * 2.2 + grain[:1] * 1.5) * np.float32(scene.camera.noise)
    grey = np.minimum(np.maximum(level, 0), 255).astype(np.uint8)
    return cv2.merge([grey, grey, grey])
