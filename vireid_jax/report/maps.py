"""Embeddings laid out in the plane: PCA and t-SNE."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vireid_jax.protocols.ranking import unit_rows

if TYPE_CHECKING:
    from vireid_jax.report.collect import EmbeddedSplit

MOST = 1200  # images on a map: t-SNE takes seconds, and an eye can still see them apart
COLOURED = 7  # identities in colours of their own; the others are grey
PERPLEXITY = 30


class Maps(NamedTuple):
    """Where the images of a map are; `rows` are their rows in the split."""

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
