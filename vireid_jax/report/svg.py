"""Axes, lines, bands and points as inline SVG, coloured by the page's style sheet.

Own code, since matplotlib's SVG fixes colours where a page has two themes, and draws
text as outlines, which no screen reader reads. Text and axes take `currentColor`; what
is drawn has a class, `c0` to `c7`, or `grey`.
"""

import math
from collections.abc import Sequence
from html import escape

# Of the view box; a page shows it at 1 to 1.3 times this, a phone at 1.1.
WIDTH, HEIGHT = 310, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 38
DASHES = ("", "6 3")  # a second run is told apart by more than its colour


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns round numbers in [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def number(value: float) -> str:
    """Writes a tick's number, or a coordinate, as short as it can be."""
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

        `x_ticks` are where numbers stand below the first, in place of round ones.
        """
        self._x, self._y = _apart(x), _apart(y)
        self._labels = x_label, y_label
        self._x_ticks = ticks(*self._x) if x_ticks is None else x_ticks
        self._drawn: list[str] = []

    def _place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    def _path(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        places = (self._place(x, y) for x, y in zip(xs, ys, strict=True))
        return "L".join(f"{x:g} {y:g}" for x, y in places)

    def line(
        self, xs: Sequence[float], ys: Sequence[float], style: str, dash: str = ""
    ) -> None:
        """Draw a line through points."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        path = self._path(xs, ys)
        self._drawn.append(f'<path class="line {style}" d="M{path}"{dashes}/>')

    def band(
        self,
        xs: Sequence[float],
        lows: Sequence[float],
        highs: Sequence[float],
        style: str,
    ) -> None:
        """Fill what lies between two lines."""
        there, back = self._path(xs, highs), self._path(xs[::-1], lows[::-1])
        self._drawn.append(f'<path class="band {style}" d="M{there}L{back}Z"/>')

    def points(
        self, xs: Sequence[float], ys: Sequence[float], style: str, marker: str
    ) -> None:
        """Draw a marker at each point, a `circle` or a `triangle`, as one path."""
        r = 2.6 if style == "grey" else 3.6
        shape = {
            "circle": f"m{-r:g} 0a{r} {r} 0 1 0 {2 * r:g} 0a{r} {r} 0 1 0 {-2 * r:g} 0",
            "triangle": f"m0 {-1.2 * r:.3g}l{1.1 * r:.3g} {2 * r:g}h{-2.2 * r:.3g}z",
        }[marker]
        places = (self._place(x, y) for x, y in zip(xs, ys, strict=True))
        path = "".join(f"M{x:g} {y:g}{shape}" for x, y in places)
        if path:
            self._drawn.append(f'<path class="{marker} {style}" d="{path}"/>')

    def svg(self, title: str) -> str:
        """Write all of it; `title` is what a screen reader says."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' aria-label="{escape(title)}">{self._frame()}{"".join(self._drawn)}</svg>'
        )

    def _frame(self) -> str:
        parts, (x_label, y_label) = [], self._labels
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        if y_label is not None:
            for value in ticks(*self._y):
                _, y = self._place(self._x[0], value)
                parts.append(f'<path class="grid" d="M{LEFT} {y:g}H{right}"/>')
                parts.append(_text(LEFT - 6, y + 3.5, number(value), "end"))
            middle = (TOP + bottom) / 2
            turned = f' transform="rotate(-90 11 {middle:g})"'
            parts.append(_text(11, middle, y_label, "middle", turned))
        if x_label is not None:
            parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
            for value in self._x_ticks:
                x, _ = self._place(value, self._y[0])
                parts.append(f'<path class="axis" d="M{x:g} {bottom}v4"/>')
                parts.append(_text(x, bottom + 16, number(value), "middle"))
            middle = (LEFT + right) / 2
            parts.append(_text(middle, HEIGHT - 5, x_label, "middle"))
        return "".join(parts)


def _apart(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, ends)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}'
    return f"<text {place}>{escape(words)}</text>"
