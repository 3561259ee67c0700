"""The nearest gallery images of some queries: drawn at random, the best, the worst."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vireid_jax.modality import MODALITIES
from vireid_jax.protocols.ranking import cosine_distances
from vireid_jax.report.pictures import data_uri, shown_size

KINDS = ("random", "best", "worst")
QUERIES, NEAREST = 3, 10  # of each kind; images beside each query


@dataclass(frozen=True)
class Shown:
    """One image with its badges; `match` is None for a query."""

    source: str
    identity: int
    camera: int
    modality: str
    match: bool | None
    distance: float | None

    @property
    def words(self) -> str:
        """Says in words what the badges and the frame say."""
        told = f"identity {self.identity}, camera {self.camera}, {self.modality}"
        if self.match is None:
            return f"query: {told}"
        verdict = "match" if self.match else "no match"
        return f"{verdict}: {told}, distance {self.distance:.2f}"


@dataclass(frozen=True)
class RankList:
    """A query with its nearest gallery images, and its average precision."""

    kind: str
    query: Shown
    nearest: list[Shown]
    ap: float


def rank_lists(test: Any, protocol: Any, size: tuple[int, int]) -> list[RankList]:
    """Shows queries of a protocol's first trial, each of another identity.

    Raises UserError where an image cannot be decoded.
    """
    trial = protocol.trials[0]
    queries, gallery = protocol.queries(test, trial), protocol.gallery(test, trial)
    result = next(
        r for r in test.results if r.labels.protocol == protocol.name
    ).by_trial[0]
    show = lambda row, match=None, distance=None: Shown(
        source=data_uri(test.image(row, shown_size(*size))),
        identity=int(test.identity[row]),
        camera=int(test.camera[row]),
        modality=MODALITIES[test.modality[row]],
        match=match,
        distance=distance,
    )
    found = []
    for kind, places in chosen_queries(result.ap, test.identity[queries]).items():
        for place in places:
            row = queries[[place]]
            distances = cosine_distances(test.features[row], test.features[gallery])[0]
            ignored = protocol.ignored(test, row, gallery)
            if ignored is not None:
                distances = np.where(ignored[0], np.inf, distances)
            nearest = np.argsort(distances, kind="stable")[:NEAREST]
            shown = [
                show(
                    gallery[i],
                    bool(test.identity[gallery[i]] == test.identity[row[0]]),
                    float(distances[i]),
                )
                for i in nearest
                if np.isfinite(distances[i])
            ]
            found.append(RankList(kind, show(row[0]), shown, float(result.ap[place])))
    return found


def chosen_queries(
    ap: np.ndarray, identity: np.ndarray, count: int = QUERIES
) -> dict[str, list[int]]:
    """Chooses valid queries by kind, each kind's of different identities.

    Of queries of one average precision the earlier comes first.
    """
    valid = np.flatnonzero(np.isfinite(ap))
    orders = {
        "random": np.random.default_rng(0).permutation(valid),
        "best": valid[np.argsort(-ap[valid], kind="stable")],
        "worst": valid[np.argsort(ap[valid], kind="stable")],
    }
    found = {}
    for kind in KINDS:
        seen: set[int] = set()
        found[kind] = []
        for place in orders[kind]:
            if len(found[kind]) < count and int(identity[place]) not in seen:
                seen.add(int(identity[place]))
                found[kind].append(int(place))
    return found
