"""Verification: thresholds at fixed false-match rates, and two images compared.

Thresholds come from the identities that training held out, and are stored in its
checkpoints. The rates, and that an identity weighs by its pairs, are our choice.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from vireid_jax.embed.embedder import Embedder
from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError

RATES = (0.1, 0.01, 0.001)  # shares of pairs of two people that pass for one
PAIRS_NEEDED = 10  # that a rate must come to, else it is left out
KINDS = (("visible", "infrared"), ("visible", "visible"), ("infrared", "infrared"))
_BINS = 2**16  # of cosines from -1 to 1; a threshold is an edge
_BLOCK = 2**24  # cosines in memory at a time


def cosines_of_pairs(
    features: Float[np.ndarray, "rows dim"],
    identity: Int[np.ndarray, " rows"],
    modality: Int[np.ndarray, " rows"],
    kind: tuple[str, str],
) -> Iterator[tuple[Float[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]]:
    """Yield the cosines of all pairs of images of two modalities, block by block.

    `features` are L2-normalised; `kind` names the two modalities. Where they are one,
    each pair counts once and no image is paired with itself. The second array is True
    for pairs of one identity.
    """
    rows, columns = (np.flatnonzero(modality == MODALITIES.index(m)) for m in kind)
    step = max(1, _BLOCK // max(1, len(columns)))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        cosines = features[block] @ features[columns].T
        same = identity[block][:, None] == identity[columns]
        counted = block[:, None] < columns if kind[0] == kind[1] else slice(None)
        yield cosines[counted].ravel(), same[counted].ravel()


def find_thresholds(
    features: Float[np.ndarray, "rows dim"],
    identity: Int[np.ndarray, " rows"],
    modality: Int[np.ndarray, " rows"],
) -> dict[str, dict[str, Any]]:
    """Return the lowest cosine at which each false-match rate holds.

    `features` are L2-normalised. The result has, for each kind of pair such as
    `visible-infrared`, the number `pairs` of pairs of two identities, and by rate the
    `thresholds` and the `true_match_rates`, the share of pairs of one identity that
    reach them (None without such pairs).
    """
    thresholds = {}
    for kind in KINDS:
        # By bin, of two identities and of one; one bin more, for cosines that rounding
        # has put above 1.
        counts = np.zeros((2, _BINS + 1), np.int64)
        for cosines, same in cosines_of_pairs(features, identity, modality, kind):
            bins = np.clip(np.floor((cosines + 1) * (_BINS / 2)), 0, _BINS)
            bins = bins.astype(np.int32)
            for row in (0, 1):
                counts[row] += np.bincount(bins[same == row], minlength=_BINS + 1)
        # Pairs at an edge or above it; none are above the last edge.
        passing, hits = np.pad(counts[:, ::-1].cumsum(1)[:, ::-1], ((0, 0), (0, 1)))
        pairs, own = counts.sum(1)
        rates = [rate for rate in RATES if rate * pairs >= PAIRS_NEEDED]
        edges = {str(r): int(np.argmax(passing <= r * pairs)) for r in rates}
        thresholds["-".join(kind)] = {
            "pairs": int(pairs),
            "thresholds": {r: 2 * edge / _BINS - 1 for r, edge in edges.items()},
            "true_match_rates": {
                r: float(hits[edge] / own) if own else None for r, edge in edges.items()
            },
        }
    return thresholds


class Verdict(NamedTuple):
    """The cosine of two images; the rest is None where there is no threshold."""

    cosine: float
    same: bool | None = None
    threshold: float | None = None
    false_match_rate: float | None = None
    true_match_rate: float | None = None  # of pairs of one person, at this threshold


def compare_images(
    embedder: Embedder,
    images: tuple[Path, Path],
    modalities: tuple[str, str],
    rate: float | None = None,
) -> Verdict:
    """Embed both images and judge their cosine at a false-match rate.

    Without a `rate` take the lowest from 0.01 on; a checkpoint that has none gives no
    verdict. Raise UserError for an image that cannot be read, and for a rate that the
    checkpoint has no threshold of.
    """
    one, two = map(embedder.embed, images, modalities)
    cosine = float(one[0] @ two[0])
    kind = next("-".join(k) for k in KINDS if sorted(k) == sorted(modalities))
    stored = embedder.about.thresholds.get(kind, {})
    thresholds = {float(r): x for r, x in stored.get("thresholds", {}).items()}
    if rate is None:
        rate = min((r for r in thresholds if r >= 0.01), default=None)
        if rate is None:
            return Verdict(cosine)
    if rate not in thresholds:
        valid = f"valid values: {sorted(thresholds)}" if thresholds else "it has none"
        raise UserError(
            f"--false_match_rate is {rate}, and the checkpoint has no such threshold"
            f" for {kind} pairs: {valid}. They come from the identities held out in"
            " training, more for lower rates: config.data.validation_identities"
        )
    threshold, hits = thresholds[rate], stored["true_match_rates"][str(rate)]
    return Verdict(cosine, cosine >= threshold, threshold, rate, hits)
