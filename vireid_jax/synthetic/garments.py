"""Surfaces: how skin, hair, cloth and leather look in each of the three bands.

The rule that makes the task a task: a garment's NIR albedo and its warmth come from
its material, which is drawn from a stream that never sees its colour.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

# Rows of a person's surface table.
SKIN, HANDS, FACE, HAIR, TOP, INNER, BOTTOM, SHOES, SOCKS = range(9)
HAT, BAG, STRAP, TRIM, BELT, SCARF, GLASSES, PRINT, EYES = range(9, 18)
NUM_SURFACES = 18

# Columns: visible colours a and b (0 to 1), NIR albedos a and b, warmth (0: ambient
# temperature, 1: that of skin), then the weave: two waves (cycles per metre along
# and across), their weights, and the sharpness of the pattern.
RGB_A, RGB_B = slice(0, 3), slice(3, 6)
NIR_A, NIR_B, WARMTH = 6, 7, 8
WAVES = slice(9, 16)
NUM_COLUMNS = 16

_NEUTRALS = np.array([
    (28, 29, 33), (52, 54, 60), (104, 106, 110), (163, 165, 168), (232, 231, 226),
    (30, 40, 70), (62, 84, 122), (104, 130, 165), (192, 172, 136), (112, 84, 60),
    (84, 92, 66), (214, 203, 182),
]) / 255.0  # fmt: skip
_SKINS = np.array([
    (243, 205, 178), (230, 184, 151), (212, 161, 124), (184, 132, 95), (146, 98, 66),
    (103, 68, 47), (72, 48, 36),
]) / 255.0  # fmt: skip
_HAIRS = np.array([
    (24, 20, 19), (41, 29, 23), (70, 46, 30), (110, 76, 45), (170, 131, 80),
    (128, 58, 32), (150, 148, 146),
]) / 255.0  # fmt: skip

_PATTERNED = {TOP: 0.42, INNER: 0.25, BOTTOM: 0.2, SCARF: 0.5}
"""Probability of stripes, checks or a print."""
_WARMTHS = {
    INNER: (0.55, 0.9), BOTTOM: (0.24, 0.74), SHOES: (0.05, 0.4), SOCKS: (0.35, 0.7),
    HAT: (0.2, 0.55), BAG: (-0.03, 0.12), STRAP: (0.02, 0.25), BELT: (0.1, 0.4),
    SCARF: (0.2, 0.6),
}  # fmt: skip
"""Lowest and highest warmth of a kind of garment; others have 0.15 to 0.55."""


def luma(rgb: Float[np.ndarray, "*colours 3"]) -> Float[np.ndarray, "*colours"]:
    """Return the luminance of colours, with the weights of ITU-R BT.601."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    return np.asarray(0.299 * red + 0.587 * green + 0.114 * blue)


def cloth_colour(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Draw the visible colour of a cloth, 0 to 1."""
    kind, which, hue, saturation, value, *noise = rng.random(8).tolist()
    if kind < 0.55:
        rgb = _NEUTRALS[int(which * len(_NEUTRALS))] + 0.12 * (np.array(noise) - 0.5)
    else:
        saturation, value = 0.3 + 0.52 * saturation, 0.28 + 0.62 * value
        wheel = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
        rgb = value * (1 - saturation * (1 - np.minimum(np.maximum(wheel, 0), 1)))
    return np.minimum(np.maximum(rgb, 0.04), 0.96)


def weave(rng: np.random.Generator) -> np.ndarray:
    """Draw stripes, checks or a print, as the `WAVES` columns `[7]`."""
    kind = rng.choice(3, p=(0.4, 0.28, 0.32))
    cycles, sharp = rng.uniform(7, 22), rng.uniform(1.5, 6)
    if kind == 0:  # stripes, mostly along or across
        angle = rng.choice([0.0, 0.0, np.pi / 2, rng.uniform(0.3, 1.2)])
        along, across = np.cos(angle) * cycles, np.sin(angle) * cycles
        return np.array([along, across, 0, 0, 1, 0, sharp])
    if kind == 1:  # checks
        return np.array([cycles, 0, 0, cycles * rng.uniform(0.8, 1.3), 0.5, 0.5, sharp])
    first, second = rng.uniform(0, np.pi, 2)
    return np.array([
        np.cos(first) * cycles, np.sin(first) * cycles,
        np.cos(second) * cycles * 1.3, np.sin(second) * cycles * 1.3, 0.6, 0.5, 2,
    ])  # fmt: skip


def plain(rgb: Iterable[float], nir: float, warmth: float) -> np.ndarray:
    """Return the row of a surface without a pattern, `[NUM_COLUMNS]`."""
    return np.array([*rgb, *rgb, nir, nir, warmth, 0, 0, 0, 0, 0, 0, 0])


def surface_table(
    looks: np.random.Generator, matter: np.random.Generator, thick: float, gap: float
) -> Float[np.ndarray, "surfaces columns"]:
    """Draw a person's surfaces, float64 `[NUM_SURFACES, NUM_COLUMNS]`.

    `looks` draws colours and patterns; `matter` draws materials (NIR albedo, warmth),
    a stream of its own, so that nothing in it can follow a colour. `thick` is that of
    the top, which its shape shows too: a coat (1) insulates, a shirt (0) less.
    NIR is gap * material + (1 - gap) * luminance: at `gap` 0 it is the grey image.
    """
    warmths = {**_WARMTHS, TOP: (0.5 - 0.38 * thick, 0.84 - 0.36 * thick)}
    table = np.zeros((NUM_SURFACES, NUM_COLUMNS))
    for surface in range(NUM_SURFACES):
        low, high = warmths.get(surface, (0.15, 0.55))
        nir, yarn, shift, warmth = matter.random(4).tolist()
        nir, warmth = 0.16 + 0.76 * nir, low + (high - low) * warmth
        rgb = cloth_colour(looks)
        row = plain(rgb, nir, warmth)
        if looks.random() < _PATTERNED.get(surface, 0.0):
            other, pattern = cloth_colour(looks), weave(looks)
            if np.abs(luma(rgb - other)) < 0.12:
                other = np.clip(1 - other, 0.04, 0.96)
            row[RGB_B], row[WAVES] = other, pattern
            # Most dyes vanish in the near infrared; a few patterns are woven from
            # two yarns and stay.
            shift = (0.35 if yarn < 0.25 else 0.05) * (2 * shift - 1)
            row[NIR_B] = min(max(nir + shift, 0.1), 0.95)
        table[surface] = row
    skin = np.clip(looks.choice(_SKINS) + looks.normal(0, 0.015, 3), 0.1, 0.97)
    hair = np.clip(looks.choice(_HAIRS) + looks.normal(0, 0.02, 3), 0.03, 0.9)
    skin_nir, hair_nir = matter.uniform(0.6, 0.72), matter.uniform(0.14, 0.45)
    table[SKIN] = plain(skin, skin_nir, matter.uniform(0.84, 0.93))
    table[HANDS] = plain(skin, skin_nir, matter.uniform(0.72, 0.9))
    table[FACE] = plain(np.clip(skin * 1.03, 0, 1), skin_nir, 1.0)
    table[HAIR] = plain(hair, hair_nir, matter.uniform(0.4, 0.62))
    table[EYES] = plain(skin * 0.45, skin_nir * 0.55, 1.04)
    table[GLASSES] = plain((0.07, 0.07, 0.09), 0.12, matter.uniform(0.2, 0.4))
    # Retro-reflective tape: pale grey, bright under a flash, and it mirrors the sky.
    table[TRIM] = plain((0.82, 0.83, 0.8), 0.97, matter.uniform(-0.05, 0.1))
    # A print is dye on the same cloth: only the visible colour differs.
    table[PRINT] = table[TOP]
    table[PRINT, RGB_A] = table[PRINT, RGB_B] = cloth_colour(looks)
    table[PRINT, WAVES] = 0
    for nir, rgb in ((NIR_A, RGB_A), (NIR_B, RGB_B)):
        table[:, nir] = gap * table[:, nir] + (1 - gap) * luma(table[:, rgb])
    return table
