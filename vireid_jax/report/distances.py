"""Distances within and between identities, and ranking camera by camera."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from vireid_jax.modality import MODALITIES
from vireid_jax.protocols.ranking import cosine_distances, rank, unit_rows

BINS = 100  # of the cosine distance, 0 to 2
_BLOCK = 1024  # rows whose distances to all others are held at a time


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
    """Counts all pairs of visible, of infrared, and of one and the other."""
    unit = unit_rows(features, "test")
    members = [np.flatnonzero(modality == m) for m in range(len(MODALITIES))]
    found = []
    for one, other in ((0, 0), (1, 1), (0, 1)):
        a, b = members[one], members[other]
        counts = np.zeros(2 * BINS)
        if len(a) and len(b):
            for codes in _codes(unit[a], unit[b], identity[a], identity[b]):
                counts += np.bincount(codes, minlength=2 * BINS)
        if one == other and len(a):  # each image with itself, each pair twice
            own = np.clip((1 - (unit[a] ** 2).sum(1)) * (BINS / 2), 0, BINS - 1)
            counts -= np.bincount(own.astype(np.intp) + BINS, minlength=2 * BINS)
            counts = np.maximum(counts, 0) / 2
        names = (MODALITIES[one], MODALITIES[other])
        found.append(Histogram(names, within=counts[BINS:], between=counts[:BINS]))
    return found


def _codes(a, b, identity_a, identity_b) -> Iterator[np.ndarray]:
    """Yields the bin of each pair, `BINS` higher where both show one identity."""
    for start in range(0, len(a), _BLOCK):
        rows = slice(start, start + _BLOCK)
        bins = (1 - a[rows] @ b.T) * (BINS / 2)
        codes = np.clip(bins, 0, BINS - 1).astype(np.intp)
        codes += BINS * (identity_a[rows, None] == identity_b)
        yield codes.ravel()


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
