"""The nearest gallery images of some queries: drawn at random, the best, the worst."""

from typing import NamedTuple

import numpy as np

from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import Protocol, Result
from vireid_jax.protocols.ranking import cosine_distances
from vireid_jax.report.collect import EmbeddedSplit
from vireid_jax.report.pictures import data_uri, shown_size

KINDS = ("random", "best", "worst")
QUERIES, NEAREST = 3, 10  # of each kind; images beside each query


class Shown(NamedTuple):
    """One image with its badges; `match` is None for a query."""

    source: str
    identity: int
    camera: int
    modality: str
    match: bool | None
    distance: float | None

    @property
    def words(self) -> str:
        """Return the badges and the frame in words."""
        words = f"identity {self.identity}, camera {self.camera}, {self.modality}"
        if self.match is None:
            return f"query: {words}"
        verdict = "match" if self.match else "no match"
        return f"{verdict}: {words}, distance {self.distance:.2f}"


class RankList(NamedTuple):
    """A query with its nearest gallery images, and its average precision."""

    kind: str
    query: Shown
    nearest: list[Shown]
    ap: float


def rank_lists(
    test: EmbeddedSplit, protocol: Protocol, result: Result, size: tuple[int, int]
) -> list[RankList]:
    """Show queries of a protocol's first trial, each of another identity.

    Raise UserError where an image cannot be decoded.
    """
    rows, trial = test.rows, protocol.trials[0]
    queries, gallery = protocol.queries(rows, trial), protocol.gallery(rows, trial)
    ap = result.by_trial[0].ap
    show = lambda row, match=None, distance=None: Shown(
        data_uri(rows.image(row, shown_size(*size))), int(rows.identity[row]),
        int(rows.camera[row]), MODALITIES[rows.modality[row]], match, distance,
    )  # fmt: skip
    lists = []
    for kind, chosen in chosen_queries(ap, rows.identity[queries]).items():
        for index in chosen:
            query = queries[[index]]
            distances = cosine_distances(test.features[query], test.features[gallery])
            ignored = protocol.ignored(rows, query, gallery)
            if ignored is not None:
                distances = np.where(ignored, np.inf, distances)
            matches = rows.identity[gallery] == rows.identity[query]
            nearest = [
                show(gallery[i], bool(matches[i]), float(distances[0, i]))
                for i in np.argsort(distances[0], kind="stable")[:NEAREST]
                if np.isfinite(distances[0, i])
            ]
            lists.append(RankList(kind, show(query[0]), nearest, float(ap[index])))
    return lists


def chosen_queries(ap: np.ndarray, identity: np.ndarray) -> dict[str, list[int]]:
    """Choose valid queries by kind, each kind's of different identities.

    Of queries with the same average precision the earlier comes first.
    """
    valid = np.flatnonzero(np.isfinite(ap))
    orders = {
        "random": np.random.default_rng(0).permutation(valid),
        "best": valid[np.argsort(-ap[valid], kind="stable")],
        "worst": valid[np.argsort(ap[valid], kind="stable")],
    }
    chosen = {}
    for kind, order in orders.items():
        _, first = np.unique(identity[order], return_index=True)
        chosen[kind] = order[np.sort(first)[:QUERIES]].tolist()
    return chosen
