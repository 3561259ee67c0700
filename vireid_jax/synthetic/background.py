"""Places: long strips of street, wall and foliage, in the three bands at once.

A camera looks at few places; a crop takes a random window of one, drawn per image,
so that a background does not depend on the person in front of it.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

WIDTH, HEIGHT, FOOT = 960, 320, 190
"""Pixels of a place, and the row where its wall meets the ground."""
PIXELS_PER_METRE = 96
_PLACE = 11


class Place(NamedTuple):
    """A place in three bands; `heat` is 128 + 10 per degree above ambient."""

    rgb: UInt8[np.ndarray, "height width 3"]
    nir: UInt8[np.ndarray, "height width"]
    heat: UInt8[np.ndarray, "height width"]


class _Easel:
    """Draws the same shape in all three bands."""

    def __init__(self):
        shape = HEIGHT, WIDTH
        rgb, nir = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
        self.bands = rgb, nir, np.full(shape, 128, np.uint8)

    def _fill(self, draw, shape, rgb, nir, heat, *style):
        """Call OpenCV's `draw` on each band; values 0 to 255, heat in degrees."""
        clip = lambda value: min(max(float(value), 0.0), 255.0)
        colours = tuple(map(clip, rgb)), clip(nir), clip(128 + 10 * heat)
        for band, colour in zip(self.bands, colours, strict=True):
            draw(band, *shape, colour, *style)

    def box(self, left, top, right, bottom, rgb, nir, heat):
        """Fill a rectangle."""
        corners = (int(left), int(top)), (int(right), int(bottom))
        self._fill(cv2.rectangle, corners, rgb, nir, heat, -1)

    def disk(self, x, y, rx, ry, rgb, nir, heat):
        """Fill an ellipse."""
        ellipse = (int(x), int(y)), (int(rx), int(ry)), 0, 0, 360
        self._fill(cv2.ellipse, ellipse, rgb, nir, heat, -1, cv2.LINE_AA)

    def shape(self, points, rgb, nir, heat):
        """Fill a polygon."""
        corners = [np.array(points, np.int32)]
        self._fill(cv2.fillPoly, (corners,), rgb, nir, heat, cv2.LINE_AA)


def cloud(rng: np.random.Generator, height: int, width: int, coarse: int) -> np.ndarray:
    """Return smooth noise of unit range around 0, float32 `[height, width]`."""
    total = np.zeros((height, width), np.float32)
    for octave in range(min(4, coarse.bit_length())):
        grid = coarse >> octave
        small = rng.random((height // grid + 2, width // grid + 2), np.float32) - 0.5
        total += 0.6**octave * cv2.resize(small, (width, height), interpolation=1)
    # Rounded, so that the last bit, which processors compute differently, is gone.
    return np.round(total * 4096) / np.float32(4096)


def _tint(rng, rgb, spread=18.0):
    """Return a colour near the given one."""
    lighter = rng.normal(0, spread * 0.5)
    return np.asarray(rgb, float) + lighter + rng.normal(0, spread * 0.3, 3)


def _ground(easel: _Easel, rng: np.random.Generator) -> None:
    """Draw asphalt, paving or grass from the foot of the wall to the viewer."""
    kinds = ["asphalt", "paving", "grass", "tiles"]
    kind = rng.choice(kinds, p=(0.35, 0.35, 0.12, 0.18))
    rgb, nir, heat = {
        "asphalt": ((92, 92, 95), 70, 1.0), "paving": ((158, 150, 140), 130, 1.5),
        "grass": ((86, 112, 58), 190, -1.0), "tiles": ((186, 182, 174), 150, 0.4),
    }[kind]  # fmt: skip
    rgb, nir = _tint(rng, rgb, 24), nir + rng.normal(0, 18)
    easel.box(0, FOOT, WIDTH, HEIGHT, rgb, nir, heat)
    depth = HEIGHT - FOOT
    if kind in ("paving", "tiles"):
        for y in FOOT + depth * np.linspace(0.05, 1.0, 8) ** 1.7:
            easel.box(0, y, WIDTH, y + 1, rgb * 0.86, nir * 0.88, heat - 0.3)
        for x in range(-WIDTH, 2 * WIDTH, 70):
            centre = WIDTH / 2
            far, near = centre + (x - centre) * 0.62, centre + (x - centre) * 1.25
            joint = [(far, FOOT), (near, HEIGHT), (near + 2, HEIGHT), (far + 1, FOOT)]
            easel.shape(joint, rgb * 0.86, nir * 0.88, heat - 0.3)
    elif kind == "asphalt":
        easel.box(0, FOOT, WIDTH, FOOT + 9, rgb * 1.35, nir * 1.3, heat - 0.5)  # kerb
        easel.box(0, FOOT + 9, WIDTH, FOOT + 12, rgb * 0.6, nir * 0.7, heat)
        if rng.random() < 0.6:
            y = FOOT + rng.uniform(0.4, 0.75) * depth
            for x in range(0, WIDTH, 150):
                easel.box(x, y, x + 90, y + 5, (212, 210, 200), 215, heat - 0.6)


def _facade(easel: _Easel, rng: np.random.Generator) -> None:
    """Draw a wall of brick, plaster, panels or glass, with doors and windows."""
    kind = rng.choice(["brick", "plaster", "panel", "glass"], p=(0.3, 0.35, 0.2, 0.15))
    base = {
        "brick": (150, 92, 72), "plaster": (196, 184, 160), "panel": (138, 146, 152),
        "glass": (92, 112, 124),
    }[kind]  # fmt: skip
    rgb, nir, heat = _tint(rng, base, 40), rng.uniform(90, 190), rng.uniform(-0.5, 2.5)
    easel.box(0, 0, WIDTH, FOOT, rgb, nir, heat)
    if kind == "brick":
        for row, y in enumerate(range(0, FOOT, 9)):
            for x in range(-(row % 2) * 12, WIDTH, 24):
                shade = 1 + rng.normal(0, 0.08)
                easel.box(x, y, x + 22, y + 7, rgb * shade, nir * shade, heat)
            easel.box(0, y + 8, WIDTH, y + 8, rgb * 0.8 + 20, nir * 0.9, heat)
    if kind in ("panel", "glass"):
        wide = int(rng.integers(60, 130))
        for x in range(0, WIDTH, wide):
            shade = 1 + rng.normal(0, 0.06 if kind == "panel" else 0.2)
            easel.box(x, 0, x + wide - 3, FOOT, rgb * shade, nir * shade, heat - 0.6)
            easel.box(x + wide - 3, 0, x + wide, FOOT, rgb * 0.55, nir * 0.6, heat)
    x = rng.uniform(20, 120)
    while x < WIDTH and kind != "glass":
        wide = rng.uniform(55, 110)
        frame, pane = _tint(rng, (214, 210, 200), 40), _tint(rng, (62, 76, 90), 30)
        if rng.random() < 0.3:  # a door
            doors = [(96, 62, 42), (60, 84, 72), (70, 74, 84)]
            door = _tint(rng, rng.choice(doors), 30)
            easel.box(x - 4, 18, x + 64, FOOT, frame, 170, heat)
            easel.box(x, 22, x + 60, FOOT, door, rng.uniform(60, 180), heat - 0.5)
            easel.box(x + 8, 34, x + 52, 80, door * 0.8, 90, heat - 0.5)
            easel.disk(x + 52, 120, 3, 3, (220, 200, 120), 200, heat)
        else:
            top, low = rng.uniform(0, 30), rng.uniform(95, 130)
            easel.box(x - 4, top - 4, x + wide + 4, low + 5, frame, 170, heat)
            easel.box(x, top, x + wide, low, pane, rng.uniform(30, 90), -1.5)
            sky = [(x, low), (x + wide * 0.5, top), (x + wide * 0.8, top), (x + 9, low)]
            easel.shape(sky, pane * 1.35, 100, -2.5)
            easel.box(x + wide / 2, top, x + wide / 2 + 3, low, frame, 170, heat)
        x += wide + rng.uniform(50, 190)
    easel.box(0, FOOT - 12, WIDTH, FOOT, rgb * 0.7, nir * 0.75, heat + 0.4)  # plinth


def _foliage(easel: _Easel, rng: np.random.Generator) -> None:
    """Draw a hedge with trees: leaves are bright in the near infrared."""
    sky = _tint(rng, (190, 202, 212), 16)
    easel.box(0, 0, WIDTH, FOOT, sky, 120, -9)
    for x in range(-20, WIDTH, 90):  # far houses and trees
        top = rng.uniform(10, 90)
        easel.box(x, top, x + 110, FOOT, _tint(rng, (150, 152, 150), 30), 140, -1)
    leaf = _tint(rng, (66, 96, 48), 30)
    line = rng.uniform(20, 80)
    for _ in range(1500):
        x, y = rng.uniform(0, WIDTH), rng.uniform(line, FOOT + 4)
        size, shade, heat = rng.uniform(3, 9), rng.normal(1, 0.22), rng.normal(-1, 0.4)
        easel.disk(x, y, size, size * 0.8, leaf * shade, 185 * shade, heat)
    for _ in range(int(rng.integers(2, 5))):
        x, wide = rng.uniform(0, WIDTH), rng.uniform(8, 18)
        bark = _tint(rng, (86, 68, 52), 20)
        trunk = [(x, 0), (x + wide, 0), (x + wide + 5, FOOT + 9), (x - 5, FOOT + 9)]
        easel.shape(trunk, bark, 110, 0.5)
        for _ in range(90):
            dx, y = rng.normal(0, 60), abs(rng.normal(0, 30))
            shade = rng.normal(0.9, 0.2)
            easel.disk(x + dx, y, 9, 8, leaf * shade, 190 * shade, -1.5)


def _clutter(easel: _Easel, rng: np.random.Generator) -> None:
    """Draw parked cars, bins, posters and lamp posts."""
    for _ in range(int(rng.integers(1, 4))):
        x, kind = rng.uniform(0, WIDTH), rng.choice(4)
        nir = rng.uniform(40, 220)
        paint = rng.uniform(40, 220) + rng.uniform(-45, 45, 3)
        y = FOOT + 14
        if kind == 0:  # a parked car
            body = [(0, 0), (0, 52), (60, 58), (90, 96), (190, 96), (222, 56),
                    (260, 48), (262, 0)]  # fmt: skip
            glass = [(70, 60), (95, 90), (185, 90), (210, 60)]
            easel.shape([(x + right, y - up) for right, up in body], paint, nir, 1.5)
            glass = [(x + right, y - up) for right, up in glass]
            easel.shape(glass, (50, 60, 72), 60, -3)
            for wheel in (55, 205):
                easel.disk(x + wheel, y - 4, 22, 22, (24, 24, 26), 30, 4)
                easel.disk(x + wheel, y - 4, 11, 11, (150, 150, 152), 140, 2)
        elif kind == 1:  # a bin
            easel.box(x, y - 78, x + 40, y, paint * 0.5, nir * 0.8, 0.3)
            easel.box(x - 3, y - 86, x + 43, y - 76, paint * 0.4, nir * 0.7, 0)
        elif kind == 2:  # a poster
            easel.box(x, 30, x + 62, 120, (230, 228, 220), 210, 0.4)
            easel.box(x + 6, 40, x + 56, 80, paint, nir, 0.4)
        else:
            easel.box(x, 0, x + 9, y, (70, 74, 76), 100, 0.8)
            easel.disk(x + 4, y, 13, 5, (60, 62, 64), 90, 0.8)


@functools.lru_cache(maxsize=64)
def place(seed: int, number: int) -> Place:
    """Return one of the places of a world."""
    rng = np.random.default_rng((seed, _PLACE, number))
    easel = _Easel()
    for draw in (_foliage if rng.random() < 0.3 else _facade, _ground, _clutter):
        draw(easel, rng)
    rgb, nir, heat = easel.bands
    grain = 1 + 0.16 * cloud(rng, HEIGHT, WIDTH, 64)
    grain = grain + 0.05 * cloud(rng, HEIGHT, WIDTH, 4)
    # Light falls off towards the foot of the wall, and grows on the ground.
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    corner = 1 - 0.22 * np.exp(-(((rows - FOOT) / 26) ** 2))
    light = np.round(grain * corner * 1024) / np.float32(1024)  # as in `cloud`
    bands = rgb * light[..., None], nir * light, heat + 9 * (grain - 1) * 6
    bands = (np.clip(band, 0, 255).astype(np.uint8) for band in bands)
    return Place(*(cv2.GaussianBlur(band, (0, 0), 1.0) for band in bands))
