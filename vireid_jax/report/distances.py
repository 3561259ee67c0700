"""What embeddings show: distances of pairs, ranking camera by camera, and maps."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from vireid_jax.embed.thresholds import KINDS, cosines_of_pairs
from vireid_jax.protocols import Protocol
from vireid_jax.protocols.ranking import cosine_distances, rank, unit_rows

if TYPE_CHECKING:
    from vireid_jax.report.collect import EmbeddedSplit

BINS = 100  # of the cosine distance, 0 to 2
MOST = 1200  # images on a map: t-SNE takes seconds, and an eye can still see them apart
COLOURED = 7  # identities in colours of their own; the others are grey
PERPLEXITY = 30


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


class Maps(NamedTuple):
    """Embeddings in the plane, by PCA and t-SNE; `rows` are rows of the split."""

    rows: Int[np.ndarray, "points"]
    coloured: list[int]  # identities
    pca: Float[np.ndarray, "points 2"]
    explained: tuple[float, float]  # shares of the variance along PCA's two axes
    tsne: Float[np.ndarray, "points 2"]


def maps(test: "EmbeddedSplit") -> Maps | None:
    """Lay out the images of identities drawn at random, at most `MOST` images.

    All images of an identity are drawn; identities in both modalities are coloured
    first. None for fewer than 8 images, or for embeddings of one number.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows, coloured = chosen_rows(test.rows.identity, test.rows.modality)
    dimensions = min(50, len(rows), test.features.shape[1])
    if len(rows) < 8 or dimensions < 2:
        return None
    pca = PCA(dimensions, svd_solver="full")
    reduced = pca.fit_transform(unit_rows(test.features[rows], "test"))
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, random_state=0)
    one, other = map(float, pca.explained_variance_ratio_[:2])
    placed = tsne.fit_transform(reduced)
    return Maps(rows, coloured, reduced[:, :2], (one, other), placed)


def chosen_rows(
    identity: Int[np.ndarray, "rows"], modality: Int[np.ndarray, "rows"]
) -> tuple[Int[np.ndarray, "points"], list[int]]:
    """Draw complete identities, at most `MOST` images; also those to colour."""
    people, counts = np.unique(identity, return_counts=True)
    both = np.intersect1d(identity[modality == 0], identity[modality == 1])
    order = np.random.default_rng(0).permutation(len(people))
    taken, total = [], 0
    for i in sorted(order, key=lambda i: people[i] not in both):  # stable
        if total + counts[i] <= MOST:
            taken.append(int(people[i]))
            total += counts[i]
    return np.flatnonzero(np.isin(identity, taken)), sorted(taken[:COLOURED])
