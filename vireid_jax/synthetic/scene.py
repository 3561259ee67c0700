"""The nuisances of one image: camera, crop, pose, light, background, passers-by."""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vireid_jax.modality import MODALITIES
from vireid_jax.synthetic import background, garments
from vireid_jax.synthetic.body import Part, Pose, limb
from vireid_jax.synthetic.dress import dress
from vireid_jax.synthetic.identity import PASSERS_BY, Person, person
from vireid_jax.synthetic.knobs import Knobs
from vireid_jax.synthetic.plan import CAMERAS, Spec
from vireid_jax.synthetic.raster import Actor, View

_CAMERA, _SHOT = 21, 22
_PASSERS_BY_COUNT = 256


class Camera(NamedTuple):
    """What a camera is like; the same for everybody who passes it."""

    pitch: float  # radians
    tint: np.ndarray  # white balance, [3]
    gamma: float
    gain: float
    blur: float  # pixels at height 128
    noise: float
    places: tuple[int, ...]
    flash: float  # NIR: part of the light that comes from beside the lens


class Scene(NamedTuple):
    """Everything one image is made of, before it is imaged in a band."""

    actors: list[Actor]  # the person first
    surfaces: np.ndarray  # those of all actors, [surfaces, garments.NUM_COLUMNS]
    view: View
    place: background.Place
    window: tuple[int, int, int]  # left, top, height in the place's pixels
    camera: Camera
    ambient: float  # degrees C
    exposure: float
    light: np.ndarray  # direction to the light: right, down, towards the camera
    diffuse: float  # part of the light that comes from everywhere
    tint: np.ndarray  # colour of the light
    rng: Generator  # for the noise


@functools.lru_cache(maxsize=32)
def camera(seed: int, variant: str, number: int) -> Camera:
    """Return a camera of a world."""
    rng = np.random.default_rng((seed, _CAMERA, list(CAMERAS).index(variant), number))
    if variant == "thermal":  # one rig, carried around: both cameras see the same
        places, pitch = tuple(range(12)), math.radians(9)
    else:
        places, pitch = (100 + 2 * number, 101 + 2 * number), rng.uniform(0.08, 0.35)
    return Camera(
        pitch=pitch,
        tint=1 + rng.normal(0, 0.05, 3),
        gamma=rng.uniform(0.85, 1.15),
        gain=rng.uniform(0.92, 1.12),
        blur=rng.uniform(0.45, 0.75),
        noise=rng.uniform(0.7, 1.3),
        places=places,
        flash=rng.uniform(0.45, 0.85),
    )


def _side(rng: Generator) -> int:
    """Draw left (1) or right (-1)."""
    return (-1, 1)[rng.integers(2)]


def _occluder(rng: Generator) -> Actor:
    """Return a pole or a car before the person."""
    paint = rng.uniform(0.2, 0.8) + rng.uniform(-0.15, 0.15, 3)
    surfaces = [
        garments.plain(paint, rng.uniform(0.2, 0.8), rng.uniform(-0.05, 0.2)),
        garments.plain((0.09, 0.09, 0.1), 0.12, 0.15),
        garments.plain((0.25, 0.3, 0.35), 0.25, -0.15),
        garments.plain((0.6, 0.6, 0.62), 0.6, 0.05),
    ]
    side = _side(rng)
    if rng.random() < 0.55:
        x, thick = side * rng.uniform(0.08, 0.42), rng.uniform(0.035, 0.09)
        surface = (0, 3)[rng.integers(2)]
        parts = [limb(surface, (x, -0.6, 0.7), (x, 2.9, 0.7), thick, thick)]
    else:
        edge, high, far = side * rng.uniform(-0.35, 0.3), rng.uniform(0.28, 0.42), 3.5
        z, end = 0.9, side * far
        wheel = edge + side * 0.62
        parts = [
            Part(0, (edge, high, z), (end, high, z), 0.28, 0.28, 0.3, 0.3, 0.5, 0.5),
            Part(2, (edge + side * 0.75, high + 0.4, z), (end, high + 0.5, z), 0.13,
                 0.13, 0.2, 0.2, 0.9, 0.5, bias=-0.01),
            limb(1, (wheel, 0.1, z), (wheel + 0.01, 0.1, z), 0.27, 0.27, bias=0.1),
            limb(3, (wheel, 0.1, z), (wheel + 0.01, 0.1, z), 0.15, 0.15, bias=0.12),
        ]  # fmt: skip
    return Actor(parts, np.array(surfaces))


def _pose(rng: Generator) -> Pose:
    """Draw the moment of the gait."""
    standing = rng.random() < 0.12
    return Pose(
        phase=rng.uniform(0, 2 * math.pi),
        vigour=rng.uniform(0, 0.2) if standing else rng.uniform(0.75, 1.1),
        glance=rng.normal(0, 0.22),
        reach=rng.uniform(0.6, 1.6) if rng.random() < 0.1 else 0.0,
        reach_side=_side(rng),
    )


def _cast(rng: Generator, who: Person, seed: int, knobs: Knobs) -> list[Actor]:
    """Return the actors, the person first."""
    turn = math.radians(knobs.heading_range)
    parts = dress(who, _pose(rng))
    actors = [Actor(parts, who.surfaces, heading=rng.uniform(-turn, turn))]
    if rng.random() < knobs.second_person:
        # From a pool of their own: a passer-by is nobody's neighbour or double.
        other = person(seed, PASSERS_BY + int(rng.integers(_PASSERS_BY_COUNT)), knobs)
        before = rng.random() < 0.3
        x = _side(rng) * rng.uniform(0.42 if before else 0.25, 0.75)
        z = rng.uniform(0.4, 0.7) if before else -rng.uniform(0.6, 2.5)
        parts, heading = dress(other, _pose(rng)), rng.uniform(-math.pi, math.pi)
        actors.append(Actor(parts, other.surfaces, heading, x, z))
    if rng.random() < knobs.occlusion:
        actors.append(_occluder(rng))
    return actors


def compose(spec: Spec, *, seed: int, canvas: tuple[int, int], knobs: Knobs) -> Scene:
    """Draw the scene of one image."""
    variant = list(CAMERAS).index(spec.variant)
    modality = MODALITIES.index(spec.modality)
    key = (seed, _SHOT, variant, spec.identity, modality, spec.camera, spec.index)
    rng = np.random.default_rng(key)
    cam = camera(seed, spec.variant, spec.camera)
    who = person(seed, spec.identity, knobs)
    actors, stature = _cast(rng, who, seed, knobs), who.body.stature
    spread, dim = knobs.camera_spread, knobs.light_spread
    # Detectors cut tight boxes: half of a person's height shows in the crop's scale.
    box = 1.12 * (0.5 * stature + 0.86) * (1 + 0.09 * spread * rng.normal())
    height, width = canvas
    view = View(
        pitch=max(0.0, cam.pitch + math.radians(6) * spread * rng.normal()),
        roll=math.radians(2.4) * spread * rng.normal(),
        distance=rng.uniform(5, 13),
        scale=height / max(box, 1.1 * stature),
        x=width * (0.5 + 0.07 * spread * rng.normal()),
        y=height * (0.95 + 0.025 * spread * rng.normal()),
    )
    # The window's size is independent of the person's: the wall must not be a ruler.
    tall = int(background.PIXELS_PER_METRE * 1.93 * rng.uniform(0.8, 1.25))
    horizon = rng.uniform(0.6, 0.86) - 0.5 * (view.pitch - 0.15)
    left = rng.integers(background.WIDTH - tall * width // height)
    top = min(max(background.FOOT - horizon * tall, 0), background.HEIGHT - tall)
    elevation, azimuth = rng.uniform(0.4, 1.2), rng.uniform(-1.3, 1.3)
    flat, down = math.cos(elevation), -math.sin(elevation)
    warm = 0.08 * dim * rng.normal()
    return Scene(
        actors=actors,
        surfaces=np.concatenate([actor.surfaces for actor in actors]),
        view=view,
        place=background.place(seed, cam.places[rng.integers(len(cam.places))]),
        window=(int(left), int(top), tall),
        camera=cam,
        ambient=12 + 14 * dim * rng.uniform(-1, 1),
        exposure=float(np.exp(0.28 * dim * rng.normal())),
        light=np.array([math.sin(azimuth) * flat, down, math.cos(azimuth) * flat]),
        diffuse=rng.uniform(0.45, 0.8),
        tint=np.array([1 + warm, 1, 1 - warm]),
        rng=rng,
    )
