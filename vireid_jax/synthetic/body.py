"""A posed skeleton, and the tapered parts that clothe it.

Axes in metres: x to the person's left, y up, z forward; the feet are at y = 0.
"""

import math
from typing import NamedTuple

from vireid_jax.synthetic.identity import Person

Point = tuple[float, float, float]


class Part(NamedTuple):
    """A tapered part from `a` to `b`, an ellipse in cross-section."""

    surface: int
    a: Point
    b: Point
    width_a: float  # half width along the body's x
    depth_a: float  # half depth along the body's z
    width_b: float
    depth_b: float
    cap_a: float = 1.0  # roundness of the ends: 0 flat, 1 a half circle
    cap_b: float = 1.0
    key: float = 0.5  # which point between a and b decides what hides what
    bias: float = 0.0  # metres towards the camera, for layers of clothing
    along: float = 0.0  # metres of cloth before `a`, so that patterns go on
    turning: float = 0.0  # 1 if its pattern turns with the heading, as on a trunk
    bulge: float = 0.25  # how round the ends look: a limb goes on, a head does not


def limb(
    surface: int, a: Point, b: Point, thick_a: float, thick_b: float, **more: float
) -> Part:
    """Return a round part; `more` are the other fields of a part."""
    return Part(surface, a, b, thick_a, thick_a, thick_b, thick_b, **more)


class Pose(NamedTuple):
    """What changes from image to image; radians."""

    phase: float  # of the gait, one cycle is 2 pi
    vigour: float = 1.0  # scales stride and swing; 0 stands still
    glance: float = 0.0  # turn of the head
    reach: float = 0.0  # extra bend of one arm
    reach_side: int = 1


def mix(a: Point, b: Point, t: float) -> Point:
    """Return the point a fraction t of the way from a to b."""
    (x, y, z), (u, v, w) = a, b
    return (x + t * (u - x), y + t * (v - y), z + t * (w - z))


def move(a: Point, x: float, y: float, z: float) -> Point:
    """Return the point shifted."""
    return (a[0] + x, a[1] + y, a[2] + z)


def _leg(person: Person, pose: Pose, side: int) -> list[Point]:
    """Return hip, knee, ankle and toe of one leg, the pelvis at the origin."""
    b = person.body
    phase = pose.phase + (0 if side > 0 else math.pi)
    length = b.leg * b.stature - 0.07
    swing = pose.vigour * b.stride * math.sin(phase) + 0.04
    flex = 0.07 + pose.vigour * (0.35 + b.stride) * max(0.0, math.cos(phase)) ** 2
    hip = (side * b.hip * 0.55, 0.0, 0.0)
    inward = (side * b.stance - hip[0]) / length
    half, lower = 0.5 * length, swing - flex  # thigh and shin are equally long
    knee = move(hip, inward * half, -math.cos(swing) * half, math.sin(swing) * half)
    ankle = move(knee, inward * half, -math.cos(lower) * half, math.sin(lower) * half)
    drop = 0.25 + 0.8 * max(0.0, -lower)
    foot = 0.105 * b.stature
    across, down = side * foot * math.sin(b.toe_out), -foot * math.sin(drop) * 0.8
    return [hip, knee, ankle, move(ankle, across, down, foot * math.cos(drop))]


def _arm(person: Person, pose: Pose, side: int, shoulder: Point) -> list[Point]:
    """Return elbow, wrist and finger tip of one arm."""
    b, c = person.body, person.clothes
    phase = pose.phase + (math.pi if side > 0 else 0)
    carrying = c.bag == "hand" and c.bag_side == side
    swing = pose.vigour * b.swing * math.sin(phase) * (0.3 if carrying else 1) - 0.05
    bend = b.elbow * (0.3 if carrying else 1) + 0.35 * max(0.0, swing)
    if side == pose.reach_side and not carrying:
        bend += pose.reach
    upper, fore, hand = 0.55 * b.arm, 0.45 * b.arm, 0.085
    out = b.spread + 0.12 * (c.loose - 1)
    down = -math.cos(swing) * math.cos(out) * upper
    elbow = move(shoulder, side * math.sin(out) * upper, down, math.sin(swing) * upper)
    lower, inward = swing + bend, 0.3 * out - 0.25 * bend
    flat = math.cos(inward)
    step = (side * math.sin(inward), -math.cos(lower) * flat, math.sin(lower) * flat)
    wrist = move(elbow, *(fore * s for s in step))
    return [elbow, wrist, move(wrist, *(hand * s for s in step))]


class Skeleton(NamedTuple):
    """Joints; pairs are (left, right)."""

    hips: tuple[Point, Point]
    knees: tuple[Point, Point]
    ankles: tuple[Point, Point]
    toes: tuple[Point, Point]
    pelvis: Point
    waist: Point
    chest: Point
    neck: Point
    head: Point
    shoulders: tuple[Point, Point]
    elbows: tuple[Point, Point]
    wrists: tuple[Point, Point]
    fingers: tuple[Point, Point]

    @classmethod
    def of(cls, person: Person, pose: Pose) -> "Skeleton":
        """Return the joints of a person in a pose, the lower foot on the ground."""
        b = person.body
        legs = [_leg(person, pose, side) for side in (1, -1)]
        ground = min(min(leg[2][1] - 0.075, leg[3][1] - 0.035) for leg in legs)
        legs = [[move(joint, 0, -ground, 0) for joint in leg] for leg in legs]
        pelvis = (0.0, -ground, 0.0)
        trunk = b.stature * (0.825 - b.leg)
        sway = 0.012 * pose.vigour * math.sin(pose.phase)
        up, forward = math.cos(b.lean), math.sin(b.lean)
        spine = lambda t: move(pelvis, sway * t, trunk * t * up, trunk * t * forward)
        neck = spine(1.04)
        nod = b.lean + b.nod
        reach = 0.085 * b.stature - 0.02
        head = move(neck, 0, reach * math.cos(nod), reach * math.sin(nod) + 0.01)
        arms = []
        for side in (1, -1):
            turn = 0.03 * side * math.sin(pose.phase)
            shoulder = move(spine(0.94), side * 0.95 * b.shoulder, -0.015, turn)
            arms.append([shoulder, *_arm(person, pose, side, shoulder)])
        spine_to_head = (pelvis, spine(0.36), spine(0.7), neck, head)
        pairs = zip(*legs, strict=True), zip(*arms, strict=True)
        return cls._make([*pairs[0], *spine_to_head, *pairs[1]])
