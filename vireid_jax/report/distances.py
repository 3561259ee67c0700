"""Distances within and between identities, and ranking camera by camera."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float64

from vireid_jax.embed.thresholds import KINDS, cosines_of_pairs
from vireid_jax.protocols import Protocol
from vireid_jax.protocols.ranking import cosine_distances, rank, unit_rows

if TYPE_CHECKING:
    from vireid_jax.report.collect import EmbeddedSplit

BINS = 100  # of the cosine distance, 0 to 2


class Histogram(NamedTuple):
    """Pairs of two modalities by cosine distance, in `BINS` equal bins of 0..2.

    `within` pairs show one identity, `between` pairs two; no image is paired with
    itself, and each pair counts once.
    """

    modalities: tuple[str, str]
    within: Float64[np.ndarray, "bins"]
    between: Float64[np.ndarray, "bins"]

    def percent(self, kind: str) -> Float64[np.ndarray, "bins"]:
        """Return the share of the pairs of a kind in each bin, in percent."""
        counts = getattr(self, kind)
        return 100 * counts / max(counts.sum(), 1)

    def quantile(self, kind: str, share: float) -> float:
        """Return the distance below which a share of the pairs lies, to half a bin."""
        counts = getattr(self, kind)
        if not counts.sum():
            return float("nan")
        index = np.searchsorted(np.cumsum(counts), share * counts.sum())
        return float(2 * (index + 0.5) / BINS)


def histograms(test: "EmbeddedSplit") -> list[Histogram]:
    """Count all pairs of visible, of infrared, and of one and the other."""
    columns = unit_rows(test.features, "test"), test.rows.identity, test.rows.modality
    counted = []
    for kind in KINDS[1:] + KINDS[:1]:
        counts = np.zeros((2, BINS))
        for cosines, same in cosines_of_pairs(*columns, kind):
            bins = np.clip((1 - cosines) * (BINS / 2), 0, BINS - 1).astype(np.intp)
            for row in (0, 1):
                counts[row] += np.bincount(bins[same == row], minlength=BINS)
        counted.append(Histogram(kind, within=counts[1], between=counts[0]))
    return counted


class CameraMatrix(NamedTuple):
    """Rank-1 and mAP with the queries of one camera and the gallery of another.

    NaN where no identity is seen by both.
    """

    query_cameras: list[int]
    gallery_cameras: list[int]
    rank_1: Float64[np.ndarray, "query gallery"]
    mAP: Float64[np.ndarray, "query gallery"]  # noqa: N815
    queries: Float64[np.ndarray, "query gallery"]  # valid ones, mean over trials


def camera_matrix(test: "EmbeddedSplit", protocol: Protocol) -> CameraMatrix:
    """Rank each pair of cameras alone, by a protocol's rules; mean over its trials."""
    rows, identity = test.rows, test.rows.identity
    trials = [
        (protocol.queries(rows, t), protocol.gallery(rows, t)) for t in protocol.trials
    ]
    query_cameras, gallery_cameras = (
        sorted({int(camera) for chosen in side for camera in rows.camera[chosen]})
        for side in zip(*trials, strict=True)
    )
    values = np.full((len(trials), 3, len(query_cameras), len(gallery_cameras)), np.nan)
    for trial, (queries, gallery) in enumerate(trials):
        for i, j in np.ndindex(values.shape[2:]):
            q = queries[rows.camera[queries] == query_cameras[i]]
            g = gallery[rows.camera[gallery] == gallery_cameras[j]]
            q = q[np.isin(identity[q], identity[g])]
            ignored = protocol.ignored(rows, q, g)
            matches = identity[q][:, None] == identity[g]
            if not (matches if ignored is None else matches & ~ignored).any():
                continue
            distances = cosine_distances(test.features[q], test.features[g])
            ids = identity[q], identity[g]
            metrics = rank(distances, *ids, distinct=protocol.distinct, ignore=ignored)
            numbers = metrics.cmc[0], metrics.mAP, metrics.valid_queries
            values[trial, :, i, j] = numbers
    means = np.ma.masked_invalid(values).mean(0).filled(np.nan)
    return CameraMatrix(query_cameras, gallery_cameras, *means)
