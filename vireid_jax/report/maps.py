"""Embeddings laid out in the plane: PCA and t-SNE."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vireid_jax.protocols.ranking import unit_rows

MOST = 1200  # images on a map: what t-SNE does in seconds, and an eye can tell apart
COLOURED = 7  # identities in colours of their own; the others are grey
PERPLEXITY = 30


@dataclass(frozen=True, eq=False)
class Maps:
    """Hold where the images of a map lie; `rows` are theirs in the split."""

    rows: Int[np.ndarray, "points"]
    coloured: list[int]  # identities
    pca: Float[np.ndarray, "points 2"]
    explained: tuple[float, float]  # shares of the variance along PCA's two axes
    tsne: Float[np.ndarray, "points 2"]


def maps(
    features: Float[np.ndarray, "rows dim"],
    identity: Int[np.ndarray, "rows"],
    modality: Int[np.ndarray, "rows"],
) -> Maps | None:
    """Lays out the images of identities drawn at random, at most `MOST` images.

    Whole identities are drawn, those in both modalities first to be coloured. None for
    fewer than 8 images.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows, coloured = chosen_rows(identity, modality)
    if len(rows) < 8:
        return None
    unit = unit_rows(features[rows], "test")
    dimensions = min(50, *unit.shape)
    pca = PCA(dimensions, svd_solver="full")
    reduced = pca.fit_transform(unit)
    if reduced.shape[1] < 2:
        return None
    tsne = TSNE(
        init="pca",
        perplexity=min(PERPLEXITY, (len(rows) - 1) / 3),
        random_state=0,
    )
    one, other = pca.explained_variance_ratio_[:2]
    return Maps(
        rows,
        coloured,
        pca=reduced[:, :2],
        explained=(float(one), float(other)),
        tsne=tsne.fit_transform(reduced),
    )


def chosen_rows(
    identity: Int[np.ndarray, "rows"], modality: Int[np.ndarray, "rows"]
) -> tuple[Int[np.ndarray, "points"], list[int]]:
    """Draws whole identities up to `MOST` images; names those to be coloured."""
    people, counts = np.unique(identity, return_counts=True)
    both = np.intersect1d(identity[modality == 0], identity[modality == 1])
    order = np.random.default_rng(0).permutation(len(people))
    order = sorted(order, key=lambda i: people[i] not in both)  # stable
    taken, total = [], 0
    for i in order:
        if total + counts[i] <= MOST:
            taken.append(int(people[i]))
            total += counts[i]
    return np.flatnonzero(np.isin(identity, taken)), sorted(taken[:COLOURED])
