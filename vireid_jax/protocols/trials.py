"""All trials of a protocol from one pass over the distances.

The trials of a protocol differ in the images drawn, not in the images there are: the
distances between all that any trial uses are computed once, block by block, and each
trial ranks its own rows and columns of a block.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from vireid_jax.protocols.protocol import Protocol, Rows
from vireid_jax.protocols.ranking import Metrics, Ranking, blocks, cosine_rows

RowsBetween = Callable[..., Callable[[slice], Float[np.ndarray, "rows gallery"]]]


def rank_trials(
    protocol: Protocol,
    records: Rows,
    features: Float[np.ndarray, "all dim"],
    trials: Sequence[int],
    rows_between: RowsBetween = cosine_rows,
) -> list[Metrics]:
    """Rank each of `trials`; holds one block of distances at a time.

    `rows_between(query, gallery)` takes features and returns a function from a slice
    of queries to their distances, as `cosine_rows` does.
    Raises UserError as `ranking.rank` does.
    """
    queries = [protocol.queries(records, trial) for trial in trials]
    galleries = [protocol.gallery(records, trial) for trial in trials]
    query_pool, rows_of = _pool(queries)
    gallery_pool, columns_of = _pool(galleries)
    rankings = [
        Ranking(records.identity[q], records.identity[g], distinct=protocol.distinct)
        for q, g in zip(queries, galleries, strict=True)
    ]
    distances_at = rows_between(features[query_pool], features[gallery_pool])
    for block in blocks(len(query_pool), len(gallery_pool)):
        distances = distances_at(block)
        for trial, ranking in enumerate(rankings):
            members, own = _rows_in(block, distances, rows_of[trial])
            ignored = protocol.ignored(
                records, queries[trial][members], galleries[trial]
            )
            ranking.add(members, own[:, columns_of[trial]], ignored)
    return [ranking.metrics() for ranking in rankings]


def _pool(parts):
    """Return the rows in any part, and the places of each part's rows among them."""
    if all(np.array_equal(part, parts[0]) for part in parts):
        return parts[0], [slice(None)] * len(parts)  # so that nothing is copied
    pool = np.unique(np.concatenate(parts))
    return pool, [np.searchsorted(pool, part) for part in parts]


def _rows_in(block, distances, places):
    """Return which of a trial's queries stand in `block`, and their distances."""
    if isinstance(places, slice):
        return block, distances
    members = np.flatnonzero((block.start <= places) & (places < block.stop))
    return members, distances[places[members] - block.start]
