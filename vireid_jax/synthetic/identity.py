"""Who a person is: body, gait, clothes and things carried, from (seed, identity)."""

import functools
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from vireid_jax.synthetic import garments
from vireid_jax.synthetic.knobs import Knobs

# One stream of random numbers per concern, so that none can follow another.
_BODY, _CLOTHES, _LOOKS, _MATTER, _LOOKALIKE = range(5)
PASSERS_BY = 1 << 40
"""Identities from here on are only in the background."""


class Person(NamedTuple):
    """Hold a complete identity: body, clothes and the table of its surfaces."""

    body: SimpleNamespace  # as `_draw_body` draws it
    clothes: SimpleNamespace  # as `_draw_clothes` draws it
    surfaces: Float64[np.ndarray, "surfaces columns"]


def _draw_body(rng: np.random.Generator, spread: float) -> SimpleNamespace:
    """Draw a body and a gait; lengths in metres, angles in radians."""

    def vary(mean: float, deviation: float) -> float:
        return mean + spread * deviation * min(max(rng.normal(), -2.2), 2.2)

    stature = vary(1.70, 0.095)
    build, frame, belly = vary(1.0, 0.11), vary(1.0, 0.07), max(0, vary(0.01, 0.03))
    shape = vary(0.0, 0.09)  # shoulders against hips
    return SimpleNamespace(
        stature=stature,
        leg=vary(0.505, 0.017),  # hip height over stature
        # Half widths and half depths.
        shoulder=stature * 0.101 * frame * (1 + shape),
        chest_depth=stature * 0.066 * build,
        waist=stature * 0.079 * frame * build + 0.5 * belly,
        waist_depth=stature * 0.060 * build + belly,
        hip=stature * 0.094 * frame * (0.5 + 0.5 * build) * (1 - shape),
        hip_depth=stature * 0.066 * build,
        head=0.081 * vary(1.0, 0.05),
        neck=vary(1.0, 0.16),
        arm=stature * vary(0.325, 0.014),  # length from shoulder to wrist
        limb=build * vary(1.0, 0.08),  # thickness, 1 on average
        stride=max(0.1, vary(0.42, 0.12)),  # amplitude of the thigh
        swing=max(0.02, vary(0.40, 0.18)),  # amplitude of the arm
        elbow=max(0.03, vary(0.30, 0.20)),  # least bend
        spread=max(0.02, vary(0.12, 0.07)),  # arms held away from the trunk
        lean=vary(0.03, 0.05),
        nod=vary(0.04, 0.09),
        stance=max(0.03, vary(0.075, 0.028)),  # half distance between the feet
        toe_out=vary(0.15, 0.12),
    )


def _draw_clothes(rng: np.random.Generator) -> SimpleNamespace:
    """Draw the clothes and what is carried; zero means absent, lengths in metres."""
    uniform = rng.uniform

    def maybe(probability: float, low: float, high: float) -> float:
        value = uniform(low, high)
        return value if rng.random() < probability else 0.0

    def one_of(**odds: float) -> str:
        names = list(odds)
        limits = np.cumsum([odds[name] for name in names])
        return names[int(np.searchsorted(limits, rng.random() * limits[-1], "right"))]

    top = one_of(tee=3, shirt=2, vest=0.8, sweater=2, jacket=3, coat=1.4)
    outer = top in ("jacket", "coat")
    sleeve = {"tee": (0.2, 0.52), "vest": (0, 0), "shirt": (0.55, 1.0)}
    loose = {"tee": (1.0, 1.16), "vest": (1, 1.08), "coat": (1.15, 1.4)}
    hem = {"coat": (0.12, 0.5), "tee": (-0.06, 0.1), "vest": (-0.1, 0.05)}
    bottom = one_of(trousers=6, shorts=1.6, skirt=1.8)
    length = {"trousers": (0.84, 1.0), "shorts": (0.24, 0.52), "skirt": (0.3, 0.85)}
    hat = one_of(none=6, cap=1.2, beanie=1.1, brim=0.8)
    bag = one_of(none=4.5, shoulder=1.8, cross=1.8, hand=1.8)
    return SimpleNamespace(
        sleeve=uniform(*sleeve.get(top, (0.92, 1.0))),  # covered part of the arm
        loose=uniform(*loose.get(top, (1.05, 1.26))),  # thickness of the top; 1: tight
        hem=uniform(*hem.get(top, (-0.08, 0.12))),  # how far it reaches below the hip
        flare=uniform(1.0, 1.25),  # widening of the hem
        opening=maybe(0.55 if outer else 0.0, 0.025, 0.09),  # half width of the front
        collar=maybe(0.4, 0.015, 0.045),  # height
        hood=maybe(0.35 if outer or top == "sweater" else 0.0, 0.8, 1.3),
        scarf=maybe(0.14, 0.7, 1.25),
        # Heights of reflective bands on the trunk, then positions on sleeves and legs.
        trims=uniform(0.1, 0.95, rng.choice(3, p=(0.66, 0.24, 0.1))).tolist(),
        sleeve_trim=maybe(0.18, 0.15, 0.9),
        leg_trim=maybe(0.14, 0.2, 0.85),
        belt=maybe(0.35, 0.025, 0.055),  # height
        print_size=maybe(0.4, 0.05, 0.11),
        bottom=bottom,
        bottom_length=uniform(*length[bottom]),  # covered part of the leg
        bottom_width=uniform(1.0, 1.45),
        bottom_flare=uniform(0.85, 1.5),
        boots=maybe(0.28, 0.08, 0.3),  # height above the ankle
        socks=maybe(0.0 if bottom == "trousers" else 0.6, 0.05, 0.3),
        shoe=uniform(0.85, 1.25),  # thickness
        hair=one_of(bald=0.7, short=3.6, bob=1.5, long=2, tail=1.2, bun=0.9, afro=0.6),
        hair_volume=uniform(0.85, 1.25),
        hat=hat,
        glasses=rng.random() < 0.3,
        gloves=rng.random() < (0.22 if outer else 0.05),
        bag=bag,
        bag_side=int(rng.choice((-1, 1))),  # 1 left, -1 right
        bag_size=uniform(0.75, 1.35),
        bag_drop=uniform(-0.06, 0.14),
        backpack=maybe(0.24, 0.12, 0.21),  # half width
    )


@functools.lru_cache(maxsize=1024)
def person(seed: int, identity: int, knobs: Knobs) -> Person:
    """Return the person that (seed, identity) names in this world.

    It does not depend on the other identities of a data set: disjoint ranges are
    disjoint people. Only with `lookalikes` may the two of a pair (2n and 2n + 1) share
    their clothes.
    """
    stream = lambda concern, key: np.random.default_rng((seed, concern, key))
    wardrobe = identity
    if stream(_LOOKALIKE, identity // 2).random() < knobs.lookalikes:
        wardrobe = identity - identity % 2
    clothes = _draw_clothes(stream(_CLOTHES, wardrobe))
    looks, matter = stream(_LOOKS, wardrobe), stream(_MATTER, wardrobe)
    thick = (clothes.loose - 1.0) / 0.4  # 0 thin to 1 padded
    table = garments.surface_table(looks, matter, thick, knobs.modality_gap)
    if clothes.gloves:
        table[garments.HANDS] = table[garments.STRAP]
        table[garments.HANDS, garments.WARMTH] += 0.2
    body = _draw_body(stream(_BODY, identity), knobs.body_spread)
    return Person(body, clothes, table)
