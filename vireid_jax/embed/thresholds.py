"""From which cosine on two images are taken for one person's, by how often that errs.

Thresholds are read from the identities that training held out, and stored in its
checkpoints. Which rates, and that identities weigh by their pairs, is our choice.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vireid_jax.modality import MODALITIES

RATES = (0.1, 0.01, 0.001)  # of pairs of two people that pass for one
PAIRS_NEEDED = 10  # of them that a rate must come to, else it is left out
KINDS = (("visible", "infrared"), ("visible", "visible"), ("infrared", "infrared"))
_BINS = 2**16  # of cosines from -1 to 1; a threshold is an edge
_BLOCK = 2**24  # cosines held at a time


def find_thresholds(
    features: Float[np.ndarray, "rows dim"],
    identity: Int[np.ndarray, " rows"],
    modality: Int[np.ndarray, " rows"],
) -> dict[str, dict[str, Any]]:
    """Finds the cosines at which pairs of images are told apart.

    `features` are L2-normalised. Returns, for each kind of pair such as
    `visible-infrared`, how many `pairs` of different identities there were, and by rate
    the `thresholds` and the `true_match_rates`, the share of pairs of one identity that
    reach them (None where there is none). An image is never paired with itself.
    """
    found = {}
    for first, second in KINDS:
        others, own = _count(features, identity, modality, first, second)
        # Pairs at an edge or above; above the last one there are none.
        reached = lambda of: np.append(of[::-1].cumsum()[::-1], 0)
        passing, hits = reached(others), reached(own)
        rates = [r for r in RATES if r * others.sum() >= PAIRS_NEEDED]
        edges = {r: int(np.argmax(passing <= r * others.sum())) for r in rates}
        found[f"{first}-{second}"] = {
            "pairs": int(others.sum()),
            "thresholds": {str(r): 2 * edge / _BINS - 1 for r, edge in edges.items()},
            "true_match_rates": {
                str(r): float(hits[edge] / own.sum()) if own.any() else None
                for r, edge in edges.items()
            },
        }
    return found


def _count(features, identity, modality, first: str, second: str) -> np.ndarray:
    """Counts cosines by bin, of different identities and of equal ones: `[2, bins]`.

    There is one bin more, for what rounding has put above 1.
    """
    rows = np.flatnonzero(modality == MODALITIES.index(first))
    columns = np.flatnonzero(modality == MODALITIES.index(second))
    counts = np.zeros((2, _BINS + 1), np.int64)
    step = max(1, _BLOCK // max(1, len(columns)))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        cosines = features[block] @ features[columns].T
        bins = np.clip(np.floor((cosines + 1) * (_BINS / 2)), 0, _BINS).astype(np.int32)
        same = identity[block][:, None] == identity[columns]
        counted = block[:, None] < columns if first == second else np.full_like(same, 1)
        for kind in (0, 1):
            chosen = bins[counted & (same == kind)]
            counts[kind] += np.bincount(chosen, minlength=_BINS + 1)
    return counts
