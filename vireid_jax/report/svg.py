"""Axes, lines, bands and points as inline SVG, coloured by the page's style sheet.

Not matplotlib's: its SVG fixes the colours where a page has two themes, and draws text
as outlines, which no screen reader reads. Text and axes take `currentColor`; what is
drawn has a class, `c0` to `c7`, or `grey`.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import TypeAlias

import numpy as np

Numbers: TypeAlias = Sequence[float] | np.ndarray

# Of the view box; a page shows it at 1 to 1.3 times this, a phone at 1.1.
WIDTH, HEIGHT = 310, 220
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 8, 10, HEIGHT - 38  # of the plane in it
DASHED = "c1"  # lines of this style are dashed: they differ by more than colour


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers in [low, high], about five of them."""
    if not high > low:
        return [low]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def number(value: float) -> str:
    """Write the number of a tick as short as possible."""
    return f"{value + 0.0:.4g}"  # the sum makes -0 a 0


class Axes:
    """Collect what is drawn in a plane; `svg` writes it."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        x_label: str | None = None,
        y_label: str | None = None,
        x_ticks: Sequence[float] | None = None,
    ):
        """Take the ends of both axes; an axis without a label is not drawn.

        `x_ticks` are the numbers below the first axis; None: round ones.
        """
        (self._left, self._right), (self._low, self._high) = _apart(x), _apart(y)
        self._drawn: list[str] = []
        middle = (TOP + BOTTOM) / 2
        for value in ticks(self._low, self._high) if y_label is not None else ():
            _, v = self._point(self._left, value)
            self._drawn.append(f'<path class="grid" d="M{LEFT} {v:g}H{RIGHT}"/>')
            self._write(LEFT - 6, v + 3.5, number(value), "end")
        if y_label is not None:
            turned = f' transform="rotate(-90 11 {middle:g})"'
            self._write(11, middle, y_label, more=turned)
        if x_label is None:
            return
        self._drawn.append(f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
        for value in ticks(self._left, self._right) if x_ticks is None else x_ticks:
            u, _ = self._point(value, self._low)
            self._drawn.append(f'<path class="axis" d="M{u:g} {BOTTOM}v4"/>')
            self._write(u, BOTTOM + 16, number(value))
        self._write((LEFT + RIGHT) / 2, HEIGHT - 5, x_label)

    def _write(
        self, x: float, y: float, words: str, anchor: str = "middle", more: str = ""
    ) -> None:
        attributes = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}'
        self._drawn.append(f"<text {attributes}>{escape(words)}</text>")

    def _point(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is in the view box."""
        across = (x - self._left) / (self._right - self._left)
        up = (y - self._low) / (self._high - self._low)
        u, v = LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)
        return round(u, 1), round(v, 1)

    def _texts(self, xs: Numbers, ys: Numbers) -> list[str]:
        """Write points of the plane as SVG has them."""
        pairs = zip(np.asarray(xs).tolist(), np.asarray(ys).tolist(), strict=True)
        return ["{:g} {:g}".format(*self._point(x, y)) for x, y in pairs]

    def line(self, xs: Numbers, ys: Numbers, style: str) -> None:
        """Draw a line through points."""
        dashes = ' stroke-dasharray="6 3"' if style == DASHED else ""
        path = "L".join(self._texts(xs, ys))
        self._drawn.append(f'<path class="line {style}" d="M{path}"{dashes}/>')

    def band(self, xs: Numbers, lows: Numbers, highs: Numbers, style: str) -> None:
        """Fill the area between two lines."""
        path = "L".join(self._texts(xs, highs) + self._texts(xs, lows)[::-1])
        self._drawn.append(f'<path class="band {style}" d="M{path}Z"/>')

    def points(self, xs: Numbers, ys: Numbers, style: str, marker: str) -> None:
        """Draw a marker at each point, a `circle` or a `triangle`, as one path."""
        r = 2.6 if style == "grey" else 3.6
        shape = {
            "circle": f"m{-r:g} 0a{r} {r} 0 1 0 {2 * r:g} 0a{r} {r} 0 1 0 {-2 * r:g} 0",
            "triangle": f"m0 {-1.2 * r:.3g}l{1.1 * r:.3g} {2 * r:g}h{-2.2 * r:.3g}z",
        }[marker]
        if path := "".join(f"M{point}{shape}" for point in self._texts(xs, ys)):
            self._drawn.append(f'<path class="{marker} {style}" d="{path}"/>')

    def svg(self, title: str) -> str:
        """Write all of it; a screen reader reads `title`."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' aria-label="{escape(title)}">{"".join(self._drawn)}</svg>'
        )


def _apart(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, ends)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
