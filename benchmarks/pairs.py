"""Statistics of two sides that were timed in turn."""

from typing import Any

import numpy as np

Numbers = dict[str, float]
_DRAWS = 10_000


def summary(seconds: list[float]) -> Numbers:
    """Return the median, the minimum and the maximum."""
    return {
        "median": float(np.median(seconds)),
        "low": min(seconds),
        "high": max(seconds),
    }


def paired_ratio(ours: list[float], rival: list[float]) -> Numbers:
    """Return the median over rounds of `rival / ours`, and its 95% interval.

    Above 1 the rival takes longer. Both sides of a round ran one after the other, so
    other load affected both. The interval is a bootstrap over rounds.
    """
    ratios = np.array(rival) / np.array(ours)
    rng = np.random.default_rng(0)
    rounds = rng.integers(0, len(ratios), (_DRAWS, len(ratios)))
    medians = np.median(ratios[rounds], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}


# Largest allowed differences of the rival's outputs: absolute for values near 1, else
# relative to ours.
ABSOLUTE = {"embeddings": 1e-4, "similarities": 1e-4, "rows": 0}
RELATIVE = {"loss": 1e-3, "gradient_norm": 5e-2}


class OutputsError(Exception):
    """The two sides compute different things."""


def check_outputs(ours: dict[str, Any], rival: dict[str, Any], who: str) -> Numbers:
    """Return the largest difference of each output; raise OutputsError if too large.

    Absolute for arrays, relative for a loss and a gradient's norm.
    """
    differences = {}
    for name, x in ours.items():
        x, y = np.asarray(x), np.asarray(rival[name])
        if x.shape != y.shape:
            raise OutputsError(f"{who}: {name} is {y.shape}, ours is {x.shape}")
        difference = np.abs(x - y).max()
        if name in RELATIVE:
            difference = difference / np.abs(x).max()
        allowed = RELATIVE.get(name, ABSOLUTE.get(name))
        if not difference <= allowed:  # also NaN
            raise OutputsError(
                f"{who}: {name} differs by {difference:.2g}, {allowed:g} is allowed;"
                " nothing was timed"
            )
        differences[name] = float(difference)
    return differences
