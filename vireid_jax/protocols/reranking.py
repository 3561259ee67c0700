"""k-reciprocal re-ranking of distances (Zhong et al., CVPR 2017).

Among all images of queries and gallery together, let N(p, k) be image p itself and its
k nearest others, d the cosine distance. Then

    R(p, k) = {g in N(p, k) : p in N(g, k)}
    R*(p)   = R(p, k1), and R(q, k1/2) of each q in R(p, k1) with
              |R(p, k1) and R(q, k1/2)| >= 2/3 |R(q, k1/2)|
    V(p)_g  = exp(-d(p, g)) for g in R*(p), else 0
    V(p)    = mean of V(g) over the k2 images nearest to p, p among them
    dJ(p, g) = 1 - sum min(V(p), V(g)) / sum max(V(p), V(g))
    d*(p, g) = (1 - lambda) dJ(p, g) + lambda d(p, g)

The published numbers come from the authors' code, which differs from the text, and is
the variant "released": R* asks for more than 2/3, each V(p) is divided by its sum
before they are averaged, and each row of d by that image's largest distance.

A ranking that is re-ranked has seen all queries at once: compare it only with others
that have. It is a test-time change of the distances, so the report names it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy import sparse

from vireid_jax.protocols.ranking import blocks, cosine_rows, unit_rows
from vireid_jax.run.errors import UserError


@dataclass(frozen=True)
class KReciprocal:
    """Re-rank by k-reciprocal neighbours; raise UserError for invalid settings."""

    k1: int = 20  # neighbours that must be mutual
    k2: int = 6  # neighbours that V is averaged over; 1: no averaging
    weight: float = 0.3  # lambda, of the distance d beside the Jaccard distance
    variant: str = "paper"  # or "released"

    def __post_init__(self):
        """Check the settings."""
        in_range = self.k1 >= 1 and self.k2 >= 1 and 0 <= self.weight <= 1
        if not in_range or self.variant not in ("paper", "released"):
            raise UserError(
                f"{self} is out of range; valid values: k1 >= 1, k2 >= 1, weight in"
                " [0, 1] and variant paper or released"
            )

    @property
    def label(self) -> str:
        """Return the name that a report shows."""
        numbers = f"k1={self.k1} k2={self.k2} lambda={self.weight:g}"
        return f"k-reciprocal ({self.variant}) {numbers}"

    def rows(
        self, query: Float[np.ndarray, "query dim"], gallery: Float[np.ndarray, "g dim"]
    ) -> Callable[[slice], Float32[np.ndarray, "rows g"]]:
        """Return a function from a slice of queries to their re-ranked distances.

        Memory: a block of distances (`ranking.BLOCK_ITEMS`), and sparse rows of some
        k1 * k2 entries for each image of queries and gallery; no matrix of all pairs.
        Raise UserError for features that are not finite.
        """
        sides = {"query": query, "gallery": gallery}
        both = [unit_rows(np.asarray(s, np.float32), name) for name, s in sides.items()]
        images = np.concatenate(both)
        neighbours, farthest = _neighbours(images, max(self.k1 + 1, self.k2))
        scale = 1 / farthest if self.variant == "released" else np.ones_like(farthest)
        weights = self._weigh(self._expand(neighbours), images, scale)
        weights = _averaging(neighbours[:, : self.k2]) @ weights
        jaccard, cosine = _jaccard_rows(weights, len(query)), cosine_rows(*both)

        def rows_at(rows):
            original = cosine(rows) * scale[: len(query)][rows, None]
            return (1 - self.weight) * jaccard(rows) + self.weight * original

        return rows_at

    def _expand(self, neighbours):
        """Return a sparse matrix whose entries are the members of R*."""
        near = _reciprocal(neighbours, self.k1)
        half = _reciprocal(neighbours, round(self.k1 / 2))
        # `half` is symmetric: entry (p, q) counts what R(p, k1) and R(q, k1/2) share.
        shared = near * (near @ half)
        needed = 2 * half.sum(axis=1)[shared.indices]
        enough = np.greater if self.variant == "released" else np.greater_equal
        shared.data = enough(3 * shared.data, needed).astype(shared.dtype)
        shared.eliminate_zeros()
        return near + shared @ half

    def _weigh(self, expanded, images, scale):
        """Return V before it is averaged, as a sparse float32 matrix."""
        image = np.repeat(np.arange(len(images)), np.diff(expanded.indptr))
        weights = np.empty(len(image), np.float32)
        for part in blocks(len(image), images.shape[1]):
            p, g = image[part], expanded.indices[part]
            distance = 1 - np.einsum("ij,ij->i", images[p], images[g])
            weights[part] = np.exp(-distance * scale[p])
        if self.variant == "released":
            weights /= np.bincount(image, weights)[image]
        entries = (weights, expanded.indices, expanded.indptr)
        return sparse.csr_array(entries, expanded.shape)


def _neighbours(images, count):
    """Return each image's nearest `count`, itself first, and its largest distance."""
    count = min(count, len(images))
    nearest = np.empty((len(images), count), np.int32)
    farthest = np.empty(len(images), np.float32)
    distances_at = cosine_rows(images, images)
    for rows in blocks(len(images), len(images)):
        distances = distances_at(rows)
        farthest[rows] = distances.max(axis=1)
        itself = np.arange(len(images))[rows, None]
        np.put_along_axis(distances, itself, -np.inf, axis=1)  # its duplicates follow
        columns = np.argpartition(distances, count - 1, axis=1)[:, :count]
        order = np.lexsort((columns, np.take_along_axis(distances, columns, axis=1)))
        nearest[rows] = np.take_along_axis(columns, order, axis=1)
    return nearest, np.maximum(farthest, 1e-6)


def _reciprocal(neighbours, k):
    """Return R(p, k) as a sparse matrix of ones."""
    nearest = neighbours[:, : k + 1]
    mutual = np.empty(nearest.shape, bool)
    for rows in blocks(len(nearest), nearest.shape[1] ** 2):
        itself = np.arange(len(nearest))[rows, None, None]
        mutual[rows] = (nearest[nearest[rows]] == itself).any(axis=2)
    starts = np.concatenate([[0], np.cumsum(mutual.sum(axis=1))])
    members = nearest[mutual]
    return sparse.csr_array(
        (np.ones(len(members), np.int32), members, starts), (len(nearest),) * 2
    )


def _averaging(nearest):
    """Return the sparse matrix that averages over the images in each row."""
    images, count = nearest.shape
    starts = np.arange(images + 1) * count
    values = np.full(nearest.size, 1 / count, np.float32)
    return sparse.csr_array((values, nearest.ravel(), starts), (images, images))


def _jaccard_rows(weights, num_queries):
    """Return a function from a slice of queries to Jaccard distances."""
    sums = weights.sum(axis=1)
    holders = weights[num_queries:].T.tocsr()  # of an image: the gallery rows with it

    def rows_at(rows):
        chosen = range(num_queries)[rows]
        distances = np.empty((len(chosen), holders.shape[1]), np.float32)
        for row, query in enumerate(chosen):
            own = slice(*weights.indptr[query : query + 2])
            others = holders[weights.indices[own]]
            mine = np.repeat(weights.data[own], np.diff(others.indptr))
            least = np.minimum(mine, others.data)
            # sum max = sum of both - sum min
            shared = np.bincount(others.indices, least, minlength=holders.shape[1])
            both = sums[query] + sums[num_queries:]
            distances[row] = 1 - shared / (both - shared)
        return distances

    return rows_at
