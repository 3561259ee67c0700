"""Distances within and between identities, and ranking camera by camera."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from vireid_jax.embed.thresholds import KINDS, cosines_of_pairs
from vireid_jax.protocols.ranking import cosine_distances, rank, unit_rows

BINS = 100  # of the cosine distance, 0 to 2


@dataclass(frozen=True, eq=False)
class Histogram:
    """Count pairs of two modalities by cosine distance, in `BINS` equal bins of 0..2.

    `within` pairs show one identity, `between` pairs two; no image is paired with
    itself, and each pair counts once.
    """

    modalities: tuple[str, str]
    within: Float64[np.ndarray, "bins"]
    between: Float64[np.ndarray, "bins"]

    def percent(self, kind: str) -> Float64[np.ndarray, "bins"]:
        """Returns the share of the pairs of a kind in each bin, in percent."""
        counts = getattr(self, kind)
        return 100 * counts / max(counts.sum(), 1)

    def quantile(self, kind: str, share: float) -> float:
        """Returns the distance below which a share of the pairs lies, to half a bin."""
        counts = getattr(self, kind)
        if not counts.sum():
            return float("nan")
        place = np.searchsorted(np.cumsum(counts), share * counts.sum())
        return float(2 * (place + 0.5) / BINS)


def histograms(
    features: Float[np.ndarray, "rows dim"],
    identity: Int[np.ndarray, "rows"],
    modality: Int[np.ndarray, "rows"],
) -> list[Histogram]:
    """Count all pairs of visible, of infrared, and of one and the other."""
    unit = unit_rows(features, "test")
    found = []
    for kind in KINDS[1:] + KINDS[:1]:
        counts = np.zeros((2, BINS))
        for cosines, same in cosines_of_pairs(unit, identity, modality, kind):
            bins = np.clip((1 - cosines) * (BINS / 2), 0, BINS - 1).astype(np.intp)
            for row in (0, 1):
                counts[row] += np.bincount(bins[same == row], minlength=BINS)
        found.append(Histogram(kind, within=counts[1], between=counts[0]))
    return found


@dataclass(frozen=True, eq=False)
class CameraMatrix:
    """Hold Rank-1 and mAP where only one camera asks and only one answers.

    NaN where no query of the one has its identity among the images of the other.
    """

    query_cameras: list[int]
    gallery_cameras: list[int]
    rank_1: Float64[np.ndarray, "query gallery"]
    mAP: Float64[np.ndarray, "query gallery"]  # noqa: N815
    queries: Float64[np.ndarray, "query gallery"]  # valid ones, mean over trials


def camera_matrix(test: Any, protocol: Any) -> CameraMatrix:
    """Ranks each pair of cameras alone, by a protocol's rules; mean over its trials."""
    every = [
        (protocol.queries(test, t), protocol.gallery(test, t)) for t in protocol.trials
    ]
    cameras = [
        sorted({int(c) for rows in every for c in test.camera[rows[side]]})
        for side in (0, 1)
    ]
    sums = np.zeros((4, len(cameras[0]), len(cameras[1])))
    for queries, gallery in every:
        for i, one in enumerate(cameras[0]):
            for j, other in enumerate(cameras[1]):
                q = queries[test.camera[queries] == one]
                g = gallery[test.camera[gallery] == other]
                q = q[np.isin(test.identity[q], test.identity[g])]
                sums[:, i, j] += _ranked(test, protocol, q, g)
    trials = sums[3]
    with np.errstate(invalid="ignore"):
        rank_1, mean_ap, queries = np.where(trials > 0, sums[:3] / trials, np.nan)
    return CameraMatrix(*cameras, rank_1=rank_1, mAP=mean_ap, queries=queries)


def _ranked(test, protocol, queries, gallery) -> tuple[float, float, float, float]:
    """Returns Rank-1, mAP, the number of valid queries, and 1; or zeros."""
    if not len(queries):
        return 0.0, 0.0, 0.0, 0.0
    ignored = protocol.ignored(test, queries, gallery)
    ids = test.identity
    kept = ids[queries][:, None] == ids[gallery]
    kept = kept if ignored is None else kept & ~ignored
    if not kept.any():
        return 0.0, 0.0, 0.0, 0.0
    metrics = rank(
        cosine_distances(test.features[queries], test.features[gallery]),
        ids[queries],
        ids[gallery],
        distinct=protocol.distinct,
        ignore=ignored,
    )
    return float(metrics.cmc[0]), metrics.mAP, float(metrics.valid_queries), 1.0
