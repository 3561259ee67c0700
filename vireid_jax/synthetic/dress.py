"""The parts of a clothed person: trunk, limbs, head, garments, things carried."""

import math
from collections.abc import Iterator

from vireid_jax.synthetic import garments as g
from vireid_jax.synthetic.body import Part, Point, Pose, Skeleton, limb, mix, move
from vireid_jax.synthetic.identity import Person

# Layers, in metres towards the camera. An arm hangs before the clothes of its side.
_GARMENT, _TRIM, _OVER, _HEM, _SKIRT, _ARM = 0.012, 0.03, 0.05, 0.08, 0.07, 0.12
_UNDER = -0.25  # legs below a skirt or the tails of a coat
_CUT = {"cap_a": 0, "cap_b": 0}  # flat ends
Size = tuple[float, float]  # half width and half depth


def _legs(person: Person, s: Skeleton) -> Iterator[Part]:
    """Yield legs, shoes and whatever covers the legs."""
    b, c = person.body, person.clothes
    size = b.stature / 1.7 * b.limb
    thigh, knee, calf, ankle = 0.082 * size, 0.056 * size, 0.055 * size, 0.037 * size
    bulk = 0.042 * c.shoe * (0.6 + 0.4 * b.limb)
    trousers = c.bottom != "skirt"
    covered = c.bottom_length * 2  # in units of thigh and shin
    hidden = covered if trousers else 0  # behind a skirt all of the skin is drawn
    wider = c.bottom_width - 1
    fit = lambda t: (thigh * (1 - t) + knee * t) * (1 + wider * (0.3 + 0.7 * t))
    for hip, joint, heel, toe in zip(s.hips, s.knees, s.ankles, s.toes, strict=True):
        sole = move(heel, 0, -0.035, -0.02)
        yield limb(g.SHOES, sole, toe, bulk * 1.05, bulk * 0.85, bias=0.02, bulge=1.0)
        if hidden < 1:
            yield limb(g.SKIN, hip, joint, thigh, knee, key=0.2)
        if hidden < 1.3:
            yield limb(g.SKIN, joint, mix(joint, heel, 0.22), knee, calf)
        if hidden < 1.98:
            top = mix(joint, heel, max(0.34, covered - 1.05))
            width = calf if covered < 1.3 else 1.25 * ankle
            yield limb(g.SKIN, top, heel, width, ankle)
        if c.socks and covered < 1.7:
            top = mix(heel, joint, c.socks / 0.42)
            width = ankle + (calf - ankle) * c.socks / 0.3
            yield limb(g.SOCKS, top, heel, width + 0.004, ankle + 0.006, bias=0.01)
        if c.boots:
            top, end = mix(heel, joint, c.boots / 0.42), ankle + 0.014
            width = ankle + (calf - ankle) * c.boots / 0.3 + 0.014
            yield limb(g.SHOES, top, heel, width, end, cap_a=0.2, bias=0.025)
        if trousers:
            t, cap = min(1.0, covered), 1.0 if covered > 1 else 0.2
            yield limb(g.BOTTOM, hip, mix(hip, joint, t), fit(0), fit(t),
                       cap_b=cap, key=0.2, bias=_GARMENT)  # fmt: skip
        if trousers and covered > 1:
            t = covered - 1
            cuff = max(ankle + 0.012, knee * c.bottom_width * c.bottom_flare)
            cuff = fit(1) * (1 - t) + 0.85 * cuff * t
            yield limb(g.BOTTOM, joint, mix(joint, heel, t), fit(1), cuff, cap_b=0.2,
                       bias=0.015, along=0.4)  # fmt: skip
        if c.leg_trim and trousers and c.leg_trim < c.bottom_length - 0.05:
            t = c.leg_trim * 2
            above, below, t = (hip, joint, t) if t < 1 else (joint, heel, t - 1)
            width = (thigh if c.leg_trim < 0.5 else knee * 1.05) * c.bottom_width * 0.98
            top, end = mix(above, below, t), mix(above, below, t + 0.1)
            yield limb(g.TRIM, top, end, width, width, **_CUT, bias=_TRIM + 0.01)


def _hanging(surface: int, person: Person, s: Skeleton, drop: float, flare: float,
             loose: float, bias: float) -> Part:  # fmt: skip
    """Return a skirt or the tails of a coat: it gives way to the striding legs."""
    b = person.body
    t = min(1.0, drop / (0.5 * b.leg * b.stature))
    left, right = (mix(h, k, t) for h, k in zip(s.hips, s.knees, strict=True))
    x, _, z = mix(left, right, 0.5)
    stride = abs(left[2] - right[2]) / 2 + 0.06
    width, depth = b.hip * loose, b.hip_depth * loose
    return Part(
        surface, move(s.pelvis, 0, 0.1, 0), (x, s.pelvis[1] - drop, z), width, depth,
        width * flare, max(depth * flare, stride), 0.1, 0.12, 0.2, bias, 0.5, turning=1,
    )  # fmt: skip


def _tube(surface: int, a: Point, b: Point, size_a: Size, size_b: Size,
          cap_a: float = 0, cap_b: float = 0, **more: float) -> Part:  # fmt: skip
    """Return a part around the trunk, whose pattern turns with the heading."""
    return Part(surface, a, b, *size_a, *size_b, cap_a, cap_b, turning=1, **more)


def _trunk(person: Person, s: Skeleton) -> Iterator[Part]:
    """Yield the trunk, its garments and their trimmings."""
    b, c = person.body, person.clothes
    k = c.loose
    wide, thin = b.shoulder * 1.04 + 0.02 * k, b.chest_depth * (0.8 + 0.2 * k)
    waist, belly = b.waist * (0.55 + 0.45 * k), b.waist_depth * (0.6 + 0.4 * k)
    hip, seat = b.hip * (0.7 + 0.3 * k), b.hip_depth * (0.7 + 0.3 * k)
    top, belt, bust = mix(*s.shoulders, 0.5), mix(s.waist, s.pelvis, 0.35), wide * 0.88
    yoke, chest, middle = (wide * 0.93, thin * 0.85), (bust, thin), (waist, belly)
    yield Part(g.SKIN, move(s.neck, 0, -0.05, 0), s.head, 0.058 * b.neck,
               0.058 * b.neck, 0.052 * b.neck, 0.055 * b.neck)  # fmt: skip
    sizes = (b.waist * 1.02, b.waist_depth), (b.hip * 1.02, b.hip_depth)
    yield _tube(g.BOTTOM, belt, move(s.pelvis, 0, -0.06, 0), *sizes, cap_b=0.5)
    nape, drop = (0.062, thin * 0.6), 0.06 + top[1] - s.chest[1]
    yield _tube(g.TOP, move(top, 0, 0.062, 0), top, nape, yoke, bias=_GARMENT)
    yield _tube(g.TOP, top, s.chest, yoke, chest, 0.12, bias=_GARMENT, along=0.06)
    yield _tube(g.TOP, s.chest, s.waist, chest, middle, bias=_GARMENT, along=drop)
    reach = (s.waist[1] - (s.pelvis[1] - c.hem)) / (s.waist[1] - s.pelvis[1])
    if c.hem > 0.1:
        tails = 0.75 + 0.3 * k
        yield _hanging(g.TOP, person, s, c.hem, c.flare, tails, _SKIRT + 0.01)
        reach = 0.7
    end, drop = mix(s.waist, s.pelvis, reach), drop + (s.chest[1] - s.waist[1])
    low = (max(waist + (hip - waist) * reach, waist * 0.9),
           max(belly + (seat - belly) * reach, belly * 0.9))  # fmt: skip
    yield _tube(g.TOP, s.waist, end, middle, low, 0, 0.1, bias=_HEM, along=drop)
    for height in c.trims:
        at, t = mix(s.waist, top, height), min(1, height * 1.7)
        size = waist + (bust - waist) * t, belly + (thin - belly) * t
        yield _tube(g.TRIM, at, move(at, 0, -0.045, 0), size, size, bias=_TRIM)
    if c.belt:
        at, size = belt, (b.waist * 1.03, b.waist_depth * 1.02)
        if k > 1.1:
            at, size = s.waist, middle
        yield _tube(g.BELT, at, move(at, 0, -c.belt, 0), size, size, bias=_HEM + 0.01)
    yield from _front(person, s, top, thin, belly)


def _front(
    person: Person, s: Skeleton, top: Point, thin: float, belly: float
) -> Iterator[Part]:
    """Yield what is on the chest: open front, print, neckline, collar, scarf, hood."""
    c = person.clothes
    nape = move(top, 0, 0.05, 0)
    if c.opening:
        high, half = move(top, 0, 0.03, 0.8 * thin), c.opening
        low = move(s.waist, 0, -max(0.0, c.hem) - 0.08, 0.9 * belly)
        yield Part(g.INNER, high, low, half * 0.8, 0.01, half, 0.01, **_CUT, bias=_TRIM)
    else:
        if c.print_size:
            low, half = move(s.chest, 0, -0.03, 0.9 * thin), c.print_size
            yield Part(g.PRINT, move(low, 0, half * 0.7, 0), low, half, 0.01,
                       half * 0.8, 0.01, 0.3, 0.3, bias=_TRIM)  # fmt: skip
        at = move(top, 0, 0.045, 0.55 * thin)  # the neckline shows skin
        yield Part(g.SKIN, at, move(at, 0, -0.035, 0.01), 0.045, 0.02, 0.02, 0.01, 0.3,
                   1, bias=_TRIM)  # fmt: skip
    if c.collar:
        yield limb(g.BELT, nape, move(nape, 0, c.collar, 0.005), 0.068, 0.062,
                   cap_a=0.2, cap_b=0.1, bias=_TRIM)  # fmt: skip
    if c.hood:
        left, right = move(top, -0.06, 0.05, -0.075), move(top, 0.06, 0.05, -0.075)
        yield limb(g.TOP, left, right, 0.055 * c.hood, 0.055 * c.hood, bias=-0.01)
    if c.scarf:
        size = 0.042 * c.scarf
        left, right = move(nape, 0.055, 0, 0.02), move(nape, -0.055, 0, 0.02)
        knot, tip = move(nape, 0.04, 0, 0.06), move(top, 0.05, -0.24 * c.scarf, thin)
        yield limb(g.SCARF, left, right, size, size, bias=_OVER)
        yield Part(g.SCARF, knot, tip, size, 0.02, size * 1.1, 0.02, 0.5, 0.1,
                   bias=_OVER)  # fmt: skip


def _arms(person: Person, s: Skeleton) -> Iterator[Part]:
    """Yield arms, hands and sleeves."""
    b, c = person.body, person.clothes
    size = b.stature / 1.7 * b.limb
    top, joint, end = 0.047 * size, 0.040 * size, 0.028 * size
    puff = c.loose + 0.05
    reach = c.sleeve / 0.55  # of the upper arm
    joints = zip(s.shoulders, s.elbows, s.wrists, s.fingers, strict=True)
    for a, elbow, wrist, tip in joints:
        yield limb(g.HANDS, wrist, tip, 0.032, 0.026, bias=_ARM, bulge=0.8)
        if c.sleeve < 0.9:
            yield limb(g.SKIN, a, elbow, top, joint, bias=_ARM - 0.01)
            yield limb(g.SKIN, elbow, wrist, joint, end, bias=_ARM - 0.01)
        if reach > 0:
            t, cap = min(1.0, reach), 1.0 if reach > 1 else 0.2
            width = (top * (1 - t) + joint * t) * puff + 0.004
            yield limb(g.TOP, a, mix(a, elbow, t), top * (0.4 + 0.6 * puff), width,
                       cap_b=cap, bias=_ARM, along=0.05)  # fmt: skip
        if reach > 1:
            t = (c.sleeve - 0.55) / 0.45
            width = (joint * (1 - t) + end * 1.15 * t) * puff + 0.004
            yield limb(g.TOP, elbow, mix(elbow, wrist, t), joint * puff + 0.004, width,
                       cap_b=0.2, bias=_ARM, along=0.35)  # fmt: skip
        if c.sleeve_trim and c.sleeve_trim < c.sleeve - 0.08:
            t, upper, lower = c.sleeve_trim / 0.55, a, elbow
            if t >= 0.9:
                t, upper, lower = max(0, t - 1), elbow, wrist
            width = (top if c.sleeve_trim < 0.5 else joint) * puff * 0.97 + 0.004
            yield limb(g.TRIM, mix(upper, lower, t), mix(upper, lower, t + 0.17),
                       width, width * 0.97, **_CUT, bias=_ARM + 0.01)  # fmt: skip


def _head(person: Person, s: Skeleton, glance: float) -> Iterator[Part]:
    """Yield head, face, hair, hat and glasses."""
    c, r = person.clothes, person.body.head
    v = c.hair_volume
    sin, cos = math.sin(glance), math.cos(glance)

    def at(x: float, y: float, z: float) -> Point:
        """Return a point of the head, in head radii, turned with the glance."""
        return move(s.head, r * (x * cos + z * sin), r * y, r * (z * cos - x * sin))

    def blob(surface, a, b, size_a, size_b, bias=0.0, cap_b=1.0):
        size_a, size_b, looks = r * size_a, r * size_b, {"bulge": 1.0, "cap_b": cap_b}
        return limb(surface, at(*a), at(*b), size_a, size_b, bias=bias, **looks)

    yield blob(g.FACE, (0, 0.42, 0), (0, -0.5, 0.12), 1.0, 0.72)
    yield blob(g.FACE, (0, 0.0, 0.9), (0, -0.16, 1.02), 0.12, 0.17, 0.004)
    yield blob(g.EYES, (-0.42, 0.12, 0.86), (-0.28, 0.12, 0.9), 0.1, 0.1)
    yield blob(g.EYES, (0.42, 0.12, 0.86), (0.28, 0.12, 0.9), 0.1, 0.1)
    yield blob(g.EYES, (-0.15, -0.68, 0.72), (0.15, -0.68, 0.72), 0.055, 0.055)
    if c.glasses:
        yield blob(g.GLASSES, (-0.42, 0.08, 0.9), (-0.36, 0.08, 0.9), 0.28, 0.28, 0.01)
        yield blob(g.GLASSES, (0.42, 0.08, 0.9), (0.36, 0.08, 0.9), 0.28, 0.28, 0.01)
        yield blob(g.GLASSES, (-0.95, 0.16, 0.5), (0.95, 0.16, 0.5), 0.07, 0.07, 0.012)
    if c.hair not in ("bald", "afro"):
        yield blob(g.HAIR, (0, 0.55, -0.3), (0, -0.15, -0.35), 1.02 + 0.1 * v, 0.95)
        yield blob(g.HAIR, (-0.42, 1.06, 0.3), (0.42, 1.06, 0.3), 0.4 * v, 0.4 * v,
                   0.02)  # fmt: skip
    if c.hair == "bob":
        yield blob(g.HAIR, (0, 0.5, -0.25), (0, -0.75, -0.2), 1.1 * v, 1.12 * v)
    if c.hair == "long":
        yield blob(g.HAIR, (0, 0.5, -0.35), (0, -2.6 * v, -0.75), 1.12 * v, 1.0)
        for x in (1, -1):
            yield blob(g.HAIR, (x * 0.86, 0.4, 0.1), (x * 0.98, -2.0 * v, 0.5), 0.25,
                       0.3, 0.01)  # fmt: skip
    if c.hair == "tail":
        yield blob(g.HAIR, (0.0, 0.7, -1.2), (0.35, -1.6 * v, -1.7), 0.4, 0.28)
    if c.hair == "bun":
        yield blob(g.HAIR, (0, 1.45, -0.55), (0, 1.5, -0.6), 0.55 * v, 0.5)
    if c.hair == "afro":
        yield blob(g.HAIR, (0, 0.75, -0.4), (0, 0.2, -0.45), 1.5 * v, 1.35 * v)
        yield blob(g.HAIR, (-0.5, 1.15, 0.3), (0.5, 1.15, 0.3), 0.7 * v, 0.7 * v, 0.02)
    if c.hat != "none":
        tall = {"cap": 0.95, "beanie": 1.15, "brim": 1.1}[c.hat]
        top, low = (0, tall, -0.08), (0, 0.62, -0.02)
        yield blob(g.HAT, top, low, 0.92, 1.14, 0.06, cap_b=0.25)
    if c.hat == "cap":
        yield Part(g.HAT, at(0, 0.62, 0.85), at(0, 0.47, 0.85), r * 0.8, r * 1.0,
                   r * 0.86, r * 1.05, 0.1, 0.15, bias=0.1)  # fmt: skip
    if c.hat == "brim":
        yield limb(g.HAT, at(0, 0.66, 0), at(0, 0.48, 0), r * 1.5, r * 2.1,
                   cap_a=0.1, cap_b=0.12, bias=0.065)  # fmt: skip


def _carried(person: Person, s: Skeleton) -> Iterator[Part]:
    """Yield backpack and bag with their straps."""
    b, c = person.body, person.clothes
    top = mix(s.shoulders[0], s.shoulders[1], 0.5)
    front = b.chest_depth * c.loose + 0.01
    side, size = c.bag_side, c.bag_size
    flat = {**_CUT, "bias": _OVER}
    if c.backpack:
        w, back = c.backpack, -(front + 0.09)
        yield Part(g.BAG, move(top, 0, 0.05, back), move(s.waist, 0, -0.02, back),
                   w * 0.85, 0.09, w, 0.1, 0.35, 0.25)  # fmt: skip
        for x in (b.shoulder * 0.58, -b.shoulder * 0.58):
            high = move(top, x, 0.04, front * 0.6)
            low = move(s.waist, x * 1.2, 0.06, front)
            yield Part(g.STRAP, high, low, 0.022, 0.012, 0.022, 0.012, **flat)
    if c.bag in ("shoulder", "cross"):
        hip = move(s.pelvis, side * (b.hip * 1.02 + 0.045), 0.02 - c.bag_drop, 0.03)
        yield Part(g.BAG, move(hip, 0, 0.10 * size, 0), move(hip, 0, -0.11 * size, 0),
                   0.06 * size, 0.13 * size, 0.065 * size, 0.14 * size, 0.2, 0.2,
                   bias=0.09)  # fmt: skip
        start = (1 if c.bag == "shoulder" else -1) * side * b.shoulder * 0.62
        for z in (front, -front):
            high = move(top, start, 0.04, z * 0.75)
            low = move(hip, -side * 0.02, 0.1 * size, z * 0.8)
            yield Part(g.STRAP, high, low, 0.02, 0.012, 0.02, 0.012, **flat)
    if c.bag == "hand":
        grip = s.fingers[0 if side > 0 else 1]
        top, bias = move(grip, 0, -0.1, 0), _ARM - 0.01
        yield Part(g.STRAP, grip, top, 0.012, 0.05, 0.012, 0.06, **_CUT, bias=bias)
        yield Part(g.BAG, top, move(top, 0, -0.26 * size, 0), 0.05 * size, 0.13 * size,
                   0.06 * size, 0.15 * size, 0.15, 0.15, bias=_ARM)  # fmt: skip


def dress(person: Person, pose: Pose) -> list[Part]:
    """Return all parts of a person in a pose, in no particular order."""
    b, c = person.body, person.clothes
    s = Skeleton.of(person, pose)
    parts = list(_legs(person, s))
    if c.bottom == "skirt" or c.hem > 0.1:
        parts = [part._replace(bias=part.bias + _UNDER) for part in parts]
    parts += [*_trunk(person, s), *_arms(person, s)]
    if c.bottom == "skirt":
        drop = c.bottom_length * b.leg * b.stature
        flare = 0.9 + 0.45 * (c.bottom_flare - 0.85) / 0.65
        parts.append(_hanging(g.BOTTOM, person, s, drop, flare, 1.04, _SKIRT))
    return [*parts, *_head(person, s, pose.glance), *_carried(person, s)]
