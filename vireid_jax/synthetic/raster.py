"""Project parts into a canvas: which part each pixel shows, and how it is turned."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from vireid_jax.synthetic.body import Part

_SHIFT = 4  # fixed-point bits of polygon corners


class View(NamedTuple):
    """The camera's position; the origin is the ground below the main person."""

    pitch: float  # radians, looking down
    roll: float  # radians
    distance: float  # metres, for the perspective
    scale: float  # canvas pixels per metre at the person
    x: float  # canvas position of the origin
    y: float


class Actor(NamedTuple):
    """Parts that are together somewhere in the scene."""

    parts: list[Part]
    surfaces: Float64[np.ndarray, "surfaces columns"]  # rows as in `garments`
    heading: float = 0.0  # radians; 0 faces the camera
    x: float = 0.0  # metres to the right in the picture
    z: float = 0.0  # metres towards the camera


class Raster(NamedTuple):
    """What a canvas shows: `labels` 1 + part, 0 where only background is seen.

    Arrays over "pixels" hold the pixels `seen` to show a part, as one list.
    """

    labels: UInt8[np.ndarray, "height width"]
    seen: Int64[np.ndarray, "pixels"]
    part: Int64[np.ndarray, "pixels"]
    u: Float32[
        np.ndarray, "pixels"
    ]  # normal across the part, and the position, -1 to 1
    w: Float32[np.ndarray, "pixels"]  # normal along the part, non-zero at round ends
    facing: Float32[np.ndarray, "pixels"]  # normal towards the camera
    radius: Float32[np.ndarray, "pixels"]
    inside: Float32[np.ndarray, "pixels"]  # position along the part, canvas pixels
    surface: Int64[np.ndarray, "parts"]
    across: Float32[np.ndarray, "parts 2"]
    axis: Float32[np.ndarray, "parts 2"]
    cloth: Float32[np.ndarray, "3 parts"]
    """Metres per pixel, metres of cloth before the part, and its turn (radians)."""


def _table(actor: Actor, first_surface: int) -> Float64[np.ndarray, "parts columns"]:
    """Flatten the parts of an actor, and turn and place them in the scene."""
    rows = np.array([(p[0], *p[1], *p[2], *p[3:]) for p in actor.parts])
    cos, sin = math.cos(actor.heading), math.sin(actor.heading)
    for column in (1, 4):
        x, z = rows[:, column].copy(), rows[:, column + 2].copy()
        rows[:, column] = x * cos + z * sin + actor.x
        rows[:, column + 2] = z * cos - x * sin + actor.z
    for column in (7, 9):  # an ellipse seen from the side
        rows[:, column] = np.hypot(rows[:, column] * cos, rows[:, column + 1] * sin)
    rows[:, 0] += first_surface
    rows[:, 16] *= actor.heading  # turning
    return rows


def _project(points: np.ndarray, view: View) -> tuple[np.ndarray, ...]:
    """Return canvas x, canvas y, scale and depth (towards the camera) of points."""
    x, y, z = points.T
    cos, sin = math.cos(view.pitch), math.sin(view.pitch)
    depth = z * cos + y * sin
    zoom = view.scale / (1 - (depth - sin) / view.distance)
    up = (y * cos - z * sin) * zoom
    right = x * zoom
    cos, sin = math.cos(view.roll), math.sin(view.roll)
    x, y = view.x + right * cos + up * sin, view.y - up * cos + right * sin
    return x, y, zoom, depth


def rasterise(actors: list[Actor], view: View, size: tuple[int, int]) -> Raster:
    """Draw the actors' parts, far to near, on a canvas of `(height, width)` pixels.

    Labels number the parts in the order of `actors`, so the first actor has 1 to n.
    """
    starts = np.cumsum([0, *(len(actor.surfaces) for actor in actors[:-1])]).tolist()
    rows = np.concatenate(list(map(_table, actors, starts)))
    ax, ay, zoom_a, depth_a = _project(rows[:, 1:4], view)
    bx, by, zoom_b, depth_b = _project(rows[:, 4:7], view)
    radius_a, radius_b = rows[:, 7] * zoom_a, rows[:, 9] * zoom_b
    a, b = np.array([ax, ay]).T, np.array([bx, by]).T
    step = b - a
    length = np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-3)
    axis = step / length[:, None]
    across = np.array([axis[:, 1], -axis[:, 0]]).T

    # The outline: half an ellipse around b, then half an ellipse around a.
    arc = np.linspace(0, np.pi, 7)[:, None]
    cos, sin = np.cos(arc), np.sin(arc)
    half = lambda cap: (
        across[:, None] * cos + axis[:, None] * (sin * cap[:, None, None])
    )
    end_b = half(rows[:, 12]) * radius_b[:, None, None] + b[:, None]
    end_a = -half(rows[:, 11]) * radius_a[:, None, None] + a[:, None]
    outline = (np.concatenate([end_b, end_a], 1) * (1 << _SHIFT)).astype(np.int32)
    nearness = depth_a + (depth_b - depth_a) * rows[:, 13] + rows[:, 14]
    labels = np.zeros(size, np.uint8)
    for number in np.argsort(nearness, kind="stable").tolist():
        cv2.fillConvexPoly(labels, outline[number], number + 1, 8, _SHIFT)

    flat = labels.ravel()
    seen = np.flatnonzero(flat != 0)
    part = flat[seen].astype(np.int64) - 1
    # Per part, linear in x and y: distance from the axis and position along it.
    table = np.array(
        [
            across[:, 0], across[:, 1], -(across[:, 0] * ax + across[:, 1] * ay),
            axis[:, 0], axis[:, 1], -(axis[:, 0] * ax + axis[:, 1] * ay),
            length, radius_a, (radius_b - radius_a) / length, rows[:, 17],
        ]
    ).astype(np.float32)  # fmt: skip
    # No index is out of range; "clip" spares the check and the copy that goes with it.
    columns = np.take(table, part, axis=1, mode="clip")
    nx, ny, n0, ex, ey, e0, long, thick, taper, bulge = columns
    y, x = (n.astype(np.float32) for n in np.divmod(seen.astype(np.int32), size[1]))
    inside = ex * x + ey * y + e0
    clipped = np.minimum(np.maximum(inside, 0), long)
    radius = np.maximum(thick + taper * clipped, np.float32(0.5))
    u = (nx * x + ny * y + n0) / radius
    u = np.minimum(np.maximum(u, np.float32(-0.995)), np.float32(0.995))
    w = np.minimum(np.maximum((inside - clipped) / radius, -1), 1) * bulge
    facing = np.sqrt(np.maximum(1 - u * u - w * w, np.float32(0.01)))
    cloth = np.array([1 / zoom_a, rows[:, 15], rows[:, 16]]).astype(np.float32)
    return Raster(
        labels, seen, part, u, w, facing, radius, inside, rows[:, 0].astype(np.int64),
        across.astype(np.float32), axis.astype(np.float32), cloth,
    )  # fmt: skip
