"""CMC, mAP and mINP: one ranking function behind every protocol.

For one query, rank the gallery items it keeps by distance, ties by gallery row. Let
the m items of the query's identity have the ranks t_1 < ... < t_m (1-based). Then

    AP     = mean over k of k / t_k             (all items, in any counting of CMC)
    INP    = m / t_m                            (Ye et al., TPAMI 2021, equation 6)
    CMC(k) = 1 where the first hit's rank <= k

The first hit's rank counts gallery items, or, with `distinct`, the identities met up to
it (SYSU-MM01 and LLCM). A query whose identity is not in the gallery it keeps is
invalid: it counts in no mean.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from vireid_jax.run.errors import UserError

# Distances held at a time: bounds the memory, and feeds the matrix product enough rows.
BLOCK_ITEMS = 2**24

Integers = Int[np.ndarray, "_"]

# Shapes are open here and in `ignore`: `rank` checks them, with a message.
Distances = Float[np.ndarray, "_ _"] | Callable[[slice], Float[np.ndarray, "_ _"]]


@dataclass(frozen=True, eq=False)
class Metrics:
    """Hold the metrics of one ranking; all are fractions, means over valid queries."""

    cmc: Float64[np.ndarray, "ranks"]
    mAP: float  # noqa: N815 (the field's own spelling)
    mINP: float  # noqa: N815
    num_queries: int
    valid_queries: int
    num_gallery: int
    first_hit: Float64[np.ndarray, "query"]  # of each query; NaN where it is invalid
    ap: Float64[np.ndarray, "query"]
    inp: Float64[np.ndarray, "query"]


def rank(
    distances: Distances,
    query_ids: Integers,
    gallery_ids: Integers,
    *,
    distinct: bool,
    ignore: Bool[np.ndarray, "_ _"] | None = None,
    ranks: int = 20,
) -> Metrics:
    """Rank the gallery for each query and measure CMC, mAP and mINP.

    `distances` is an array, or a function from a slice of queries to their distances
    (`cosine_rows`), called in blocks so that memory stays bounded. Float64 is ranked as
    such, any other type as float32. `distinct`: CMC counts distinct identities, not
    gallery items. `ignore` is True where a query drops a gallery item. `ranks` is the
    length of the CMC; where fewer items remain, the curve keeps its last value
    (reference code returns a short curve, or raises). Raise UserError for shapes that
    disagree, a kept distance that is not finite, and where no query is valid.
    """
    num_queries, num_gallery = len(query_ids), len(gallery_ids)
    if not num_queries or not num_gallery:
        raise UserError(
            f"nothing to rank: {num_queries} queries and {num_gallery} gallery items;"
            " both must be at least 1. Check the split and the protocol"
        )
    expected = num_queries, num_gallery
    for name, array in {"distances": distances, "ignore": ignore}.items():
        if (shape := getattr(array, "shape", expected)) != expected:
            raise UserError(
                f"{name} has shape {shape}; valid shape: {expected}, (queries, gallery)"
            )
    rows_at = distances if callable(distances) else distances.__getitem__
    ranking = Ranking(query_ids, gallery_ids, distinct=distinct)
    for rows in blocks(num_queries, num_gallery):
        ignored = None if ignore is None else ignore[rows]
        ranking.add(rows, np.asarray(rows_at(rows)), ignored)
    return ranking.metrics(ranks)


def blocks(num_queries: int, num_gallery: int) -> Iterator[slice]:
    """Cut the queries into slices of at most `BLOCK_ITEMS` distances."""
    step = max(1, BLOCK_ITEMS // num_gallery)
    for first in range(0, num_queries, step):
        yield slice(first, min(first + step, num_queries))


class Ranking:
    """Rank a gallery for its queries block by block; `rank` takes all at once."""

    def __init__(self, query_ids: Integers, gallery_ids: Integers, *, distinct: bool):
        """Take the identities and the way of counting CMC, as `rank` does."""
        self._query_ids, self._distinct = query_ids, distinct
        # In `_order`, gallery rows of one identity follow each other, from `_starts`.
        self._order = np.argsort(gallery_ids)
        self._sorted_ids = gallery_ids[self._order]
        self._starts = np.unique(self._sorted_ids, return_index=True)[1]
        self._per_query = np.full((3, len(query_ids)), np.nan)

    def add(
        self,
        queries: slice | Int[np.ndarray, "rows"],
        distances: Float[np.ndarray, "rows gallery"],
        ignore: Bool[np.ndarray, "rows gallery"] | None = None,
    ) -> None:
        """Rank for some queries, given by their indices; each must come once.

        Raise UserError for a kept distance that is not finite.
        """
        if distances.dtype != np.float64:
            distances = distances.astype(np.float32, copy=False)
        rows, num_gallery = distances.shape
        query, item = self._positives(self._query_ids[queries])
        kept = np.full(rows, num_gallery)
        if ignore is not None:
            distances = np.where(ignore, np.asarray(np.inf, distances.dtype), distances)
            kept -= np.count_nonzero(ignore, axis=1)
            query, item = (pair[~ignore[query, item]] for pair in (query, item))
        # Sorting values is several times cheaper than argsort, and the ranks of the
        # positives are all that the metrics need.
        ordered = np.sort(distances, axis=1)
        _check_finite(ordered, kept, np.arange(len(self._query_ids))[queries])
        position = _ranks_of(distances, ordered, query, item)

        by_rank = np.lexsort((position, query))
        position, item = position[by_rank], item[by_rank]
        hits = np.bincount(query, minlength=rows)
        end = np.cumsum(hits)
        nth = np.arange(1, len(query) + 1) - (end - hits)[query]
        valid = np.flatnonzero(hits)
        nearest, last = (end - hits)[valid], end[valid] - 1

        first_hit, ap, inp = result = np.full((3, rows), np.nan)
        precision = np.bincount(query, nth / position, minlength=rows)
        first_hit[valid] = position[nearest]
        ap[valid] = precision[valid] / hits[valid]
        inp[valid] = hits[valid] / position[last]
        if self._distinct:
            first_hit[valid] = self._identities_until(distances[valid], item[nearest])
        self._per_query[:, queries] = result

    def metrics(self, ranks: int = 20) -> Metrics:
        """Average over the valid queries; raise UserError where there is none."""
        first_hit, ap, inp = self._per_query
        valid = np.isfinite(first_hit)
        if not valid.any():
            raise UserError(
                f"none of the {len(valid)} queries has an item of its identity in the"
                " gallery it keeps. Check that query and gallery share identities"
            )
        cmc = (first_hit[valid] <= np.arange(1, ranks + 1)[:, None]).mean(axis=1)
        mAP, mINP = float(ap[valid].mean()), float(inp[valid].mean())
        counts = len(valid), int(valid.sum()), len(self._order)
        return Metrics(cmc, mAP, mINP, *counts, first_hit, ap, inp)

    def _positives(self, query_ids):
        """Return all pairs (query, gallery row) of one identity, query by query."""
        start = np.searchsorted(self._sorted_ids, query_ids, "left")
        count = np.searchsorted(self._sorted_ids, query_ids, "right") - start
        query = np.repeat(np.arange(len(query_ids)), count)
        nth = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
        return query, self._order[start[query] + nth]

    def _identities_until(self, block, item):
        """Count the identities met up to and including each row's first hit `item`."""
        value = np.take_along_axis(block, item[:, None], axis=1)
        earlier_row = np.arange(block.shape[1]) < item[:, None]
        before = (block < value) | ((block == value) & earlier_row)
        met = np.logical_or.reduceat(before[:, self._order], self._starts, axis=1)
        return np.count_nonzero(met, axis=1) + 1


def _ranks_of(block, ordered, query, item):
    """Return the 1-based rank of each (query, item) in its row of the block."""
    value = block[query, item]
    # A binary search in all rows at once for the first entry that is not smaller.
    low = np.zeros(len(query), np.int64)
    high = np.full(len(query), ordered.shape[1] - 1)
    for _ in range((ordered.shape[1] - 1).bit_length()):
        middle = (low + high) // 2
        smaller = ordered[query, middle] < value
        low, high = np.where(smaller, middle + 1, low), np.where(smaller, high, middle)
    following = np.minimum(low + 1, ordered.shape[1] - 1)
    tied = ordered[query, following] == value
    for pair in np.flatnonzero(tied):
        earlier = block[query[pair], : item[pair]]
        low[pair] += np.count_nonzero(earlier == value[pair])
    return low + 1


def _check_finite(ordered, kept, numbers):
    """Raise UserError where one of the first `kept` distances of a row is not finite.

    Ignored items are +inf and NaN sorts last: each kept value is finite exactly where
    the first and the last of them are.
    """
    ends = ordered[np.arange(len(ordered)), np.maximum(kept - 1, 0)]
    bad = (kept > 0) & ~(np.isfinite(ends) & np.isfinite(ordered[:, 0]))
    if bad.any():
        raise UserError(
            f"distances that are not finite in {bad.sum()} query rows, the first is"
            f" row {numbers[np.argmax(bad)]}; every kept distance must be finite"
        )


def cosine_distances(
    query: Float[np.ndarray, "query dim"], gallery: Float[np.ndarray, "gallery dim"]
) -> Float[np.ndarray, "query gallery"]:
    """Return 1 - cosine similarity `[query, gallery]`, in [0, 2] up to rounding.

    Float64 if both are, else float32. A zero vector stays zero: its distance to
    everything is 1. Raise UserError for features that are not finite.
    """
    return cosine_rows(query, gallery)(slice(None))


def cosine_rows(
    query: Float[np.ndarray, "query dim"], gallery: Float[np.ndarray, "gallery dim"]
) -> Callable[[slice], Float[np.ndarray, "rows gallery"]]:
    """Return a function from a slice of queries to their `cosine_distances`.

    It lets `rank` handle a gallery whose complete distance matrix is too large.
    """
    query, gallery = unit_rows(query, "query"), unit_rows(gallery, "gallery")

    def rows_at(rows):
        similarity = query[rows] @ gallery.T
        return np.subtract(1, similarity, out=similarity)

    return rows_at


def unit_rows(
    features: Float[np.ndarray, "rows dim"], name: str
) -> Float[np.ndarray, "rows dim"]:
    """Divide rows by their L2 norm; rows of zeros stay.

    Float64 stays, any other type becomes float32. Two steps, so that no square over- or
    underflows: after the first the largest entry is 1.
    Raise UserError for features that are not finite; `name` is in its message.
    """
    features = np.asarray(features)
    if features.dtype != np.float64:
        features = features.astype(np.float32, copy=False)
    largest = np.maximum(features.max(axis=1), -features.min(axis=1))
    bad = ~np.isfinite(largest)
    if bad.any():
        raise UserError(
            f"{name} features that are not finite in {bad.sum()} of {len(bad)} rows,"
            f" the first is row {np.argmax(bad)}; they must be finite. Training may"
            " have diverged: look at its loss and gradient norm"
        )
    unit = features / np.where(largest > 0, largest, 1)[:, None]
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1)
    return unit
