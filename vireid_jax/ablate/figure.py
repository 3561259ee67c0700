"""The figure of a study: each row's difference from the baseline, with its interval.

One SVG file, readable on light and dark pages. Own code: it is a dozen lines and dots,
and a plotting library would bring a theme of its own.
"""

from html import escape

from vireid_jax.ablate.table import Difference, Row, Setting

WIDTH, NAMES, ROW, HEAD, FOOT = 640, 150, 22, 30, 40
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}"
    ".zero{stroke:#888;stroke-dasharray:4 3}.interval{stroke:#0072b2;stroke-width:2}"
    "circle{fill:#0072b2}.grid{stroke:#8884}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.interval{stroke:#56b4e9}"
    "circle{fill:#56b4e9}}"
)


def svg(found: dict[Setting, list[Row]], baseline: str, metric: str = "Rank-1") -> str:
    """Draws the differences of one metric, in percent points, a block for each test."""
    blocks = {
        test: [(row.name, row.differences[metric]) for row in rows if row.differences]
        for test, rows in found.items()
    }
    ends = [x for block in blocks.values() for _, d in block for x in (d.low, d.high)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    place = lambda value: NAMES + (value - low) / (high - low) * (WIDTH - NAMES - 10)

    drawn, top = [], 0
    for test, block in blocks.items():
        drawn.append(_text(8, top + 20, str(test), "start"))
        for number, (name, difference) in enumerate(block):
            y = top + HEAD + (number + 0.5) * ROW
            drawn += _interval(name, difference, y, place)
        top += HEAD + len(block) * ROW
    for value in (low + margin, 0.0, high - margin):
        style = "grid" if value else "zero"
        x = place(value)
        drawn.append(f'<path class="{style}" d="M{x:.1f} {HEAD - 6}V{top}"/>')
        drawn.append(_text(x, top + 16, f"{value:+.1f}" if value else "0", "middle"))
    words = f"{metric}, percent points more than {baseline}; 95% intervals"
    drawn.append(_text((NAMES + WIDTH) / 2, top + 34, words, "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + FOOT}"'
        f' role="img" aria-label="{escape(words)}"><style>{STYLE}</style>'
        f"{''.join(drawn)}</svg>\n"
    )


def _interval(name: str, difference: Difference, y: float, place) -> list[str]:
    x, low, high = map(place, (difference.value, difference.low, difference.high))
    words = "{:+.1f} ({:+.1f} to {:+.1f})".format(*difference)
    return [
        _text(NAMES - 8, y + 4, name, "end"),
        f"<g><title>{escape(name)}: {words}</title>",
        f'<path class="interval" d="M{low:.1f} {y:.1f}H{high:.1f}"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>',
    ]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"
