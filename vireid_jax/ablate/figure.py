"""The figure of a study: each row's difference from the baseline, with its interval.

One SVG file, readable on light and dark pages, without a plotting library: it is a
dozen lines and dots.
"""

from html import escape

from vireid_jax.ablate.table import Setting, StudyRow

WIDTH, NAMES, ROW, HEAD, FOOT = 640, 150, 22, 30, 40
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}"
    ".zero{stroke:#888;stroke-dasharray:4 3}.interval{stroke:#0072b2;stroke-width:2}"
    "circle{fill:#0072b2}.grid{stroke:#8884}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.interval{stroke:#56b4e9}"
    "circle{fill:#56b4e9}}"
)


def svg(
    rows: dict[Setting, list[StudyRow]], baseline: str, metric: str = "Rank-1"
) -> str:
    """Draw the differences of one metric, in percent points, a block for each test."""
    blocks = {
        setting: [(r.name, r.differences[metric]) for r in of_test if r.differences]
        for setting, of_test in rows.items()
    }
    ends = [x for block in blocks.values() for _, d in block for x in d[1:]]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    x_of = lambda value: NAMES + (value - low) / (high - low) * (WIDTH - NAMES - 10)

    drawn, top = [], 0
    for setting, block in blocks.items():
        drawn.append(_text(8, top + 20, str(setting), "start"))
        for number, (name, difference) in enumerate(block):
            y = top + HEAD + (number + 0.5) * ROW
            x, start, end = map(x_of, difference)
            words = "{:+.1f} ({:+.1f} to {:+.1f})".format(*difference)
            drawn.append(_text(NAMES - 8, y + 4, name, "end"))
            drawn.append(
                f"<g><title>{escape(name)}: {words}</title>"
                f'<path class="interval" d="M{start:.1f} {y:.1f}H{end:.1f}"/>'
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>'
            )
        top += HEAD + len(block) * ROW
    for value in (low + margin, 0.0, high - margin):
        style, x = "grid" if value else "zero", x_of(value)
        drawn.append(f'<path class="{style}" d="M{x:.1f} {HEAD - 6}V{top}"/>')
        drawn.append(_text(x, top + 16, f"{value:+.1f}" if value else "0", "middle"))
    words = f"{metric}, percent points more than {baseline}; 95% intervals"
    drawn.append(_text((NAMES + WIDTH) / 2, top + 34, words, "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + FOOT}"'
        f' role="img" aria-label="{escape(words)}"><style>{STYLE}</style>'
        f"{''.join(drawn)}</svg>\n"
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    attributes = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {attributes}>{escape(words)}</text>"
