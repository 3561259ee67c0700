"""From features to labelled metrics, fractions: a result carries what it measures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

from vireid_jax.protocols.protocol import Protocol, Rows
from vireid_jax.protocols.ranking import Metrics, Ranking, blocks, cosine_rows
from vireid_jax.protocols.reranking import KReciprocal
from vireid_jax.protocols.uncertainty import PerQuery, identity_interval, per_query
from vireid_jax.run.errors import UserError

# From features of queries and gallery to a function from a slice of queries to their
# distances, as `cosine_rows`.
RowsBetween = Callable[..., Callable[[slice], Float[np.ndarray, "rows gallery"]]]


@dataclass(frozen=True)
class Labels:
    """Describe a measurement; every printed or stored metric carries all of them."""

    dataset: str
    protocol: str
    direction: str
    mode: str | None
    shots: int | None
    trials: tuple[int, ...]
    draws: str  # convention of the gallery draws, "none" where nothing is drawn
    queries: int  # images, the same in each trial, and so are the next two
    valid_queries: int
    gallery: int
    published_counts: str  # "agree", "differ: ..." or "none" (nothing is published)
    feature: str  # "global", or the name of a baseline
    flip: bool | None  # features of image and mirror are combined; None: not known
    reranking: str  # "none", or the method with its settings
    epoch: float | None  # None: not from training
    selection: Literal["last", "best"] | None  # None: not a checkpoint
    baseline: bool  # a floor to compare with, not a trained model


@dataclass(frozen=True, eq=False)
class Result:
    """Hold labels and metrics: fractions, arithmetic means over trials."""

    labels: Labels
    cmc: Float64[np.ndarray, "ranks"]
    mAP: float  # noqa: N815
    mINP: float  # noqa: N815
    by_trial: tuple[Metrics, ...]
    queries: PerQuery | None = None  # None where the metrics are averages of noise

    def deviation(self) -> dict[str, float]:
        """Return the standard deviation over trials; {} for a single trial."""
        trials = self.trial_headlines()
        over = lambda name: float(np.std([t[name] for t in trials], ddof=1))
        return {name: over(name) for name in trials[0]} if len(trials) > 1 else {}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals over query identities of Rank-1, mAP and mINP."""
        if (queries := self.queries) is None:
            return {}
        return {
            name: identity_interval(values, queries.identity, weight=queries.trials)
            for name, values in queries.values.items()
        }

    def trial_headlines(self) -> list[dict[str, float]]:
        """Return the headline of each trial."""
        return [_headline(metrics) for metrics in self.by_trial]

    def headline(self) -> dict[str, float]:
        """Return Rank-1, 5, 10, 20, mAP and mINP by their names, as fractions."""
        return _headline(self)

    def to_json(self) -> dict:
        """Return labels, means, each trial's metrics, deviations and intervals."""
        values = vars(self.labels) | {"trials": list(self.labels.trials)}
        values["metrics"] = self.headline()
        if self.queries is not None:
            intervals = {name: list(ends) for name, ends in self.intervals().items()}
            values["by_trial"] = self.trial_headlines()
            values |= {"deviation": self.deviation(), "intervals": intervals}
        return values


def _headline(metrics: Metrics | Result) -> dict[str, float]:
    ranks = {f"Rank-{k}": float(metrics.cmc[k - 1]) for k in (1, 5, 10, 20)}
    return ranks | {"mAP": metrics.mAP, "mINP": metrics.mINP}


def evaluate(
    protocol: Protocol,
    records: Rows,
    features: Float[np.ndarray, "rows dim"],
    *,
    feature: str = "global",
    flip: bool | None = False,
    reranking: KReciprocal | None = None,
    distances: RowsBetween = cosine_rows,
    epoch: float | None = None,
    selection: Literal["last", "best"] | None = None,
    baseline: bool = False,
) -> Result:
    """Rank by cosine distance as the protocol defines; average over its trials.

    `features` are the embeddings of all rows of the split, in its order, of any length;
    float64 is ranked as such, any other type in float32. The trials share one
    computation of `distances`; with `reranking` each trial is re-ranked by itself, from
    its own queries and gallery. The others are labels that only the caller knows.

    Raise UserError for another number of features than rows, features that are not
    finite, and a query or gallery set without matches.
    """
    if len(features) != len(records.identity):
        raise UserError(
            f"{len(features)} features for {len(records.identity)} rows of"
            f" {protocol.dataset}; embed each row of the split exactly once, in order"
        )
    groups = [[trial] for trial in protocol.trials] if reranking else [protocol.trials]
    between = reranking.rows if reranking else distances
    by_trial = []
    for trials in groups:
        by_trial += rank_trials(protocol, records, features, trials, between)
    counts = {(m.num_queries, m.valid_queries, m.num_gallery) for m in by_trial}
    if len(counts) > 1:
        raise UserError(
            f"{protocol.name} has other numbers of (queries, valid queries, gallery)"
            f" in its trials: {sorted(counts)}; they must agree for a mean to be fair"
        )
    queries, valid_queries, gallery = counts.pop()
    agreement = "agree" if protocol.published else "none"
    if protocol.published not in ((queries, gallery), None):
        agreement = "differ: {} queries, {} gallery images".format(*protocol.published)
    labels = Labels(
        dataset=protocol.dataset,
        protocol=protocol.name,
        direction=protocol.direction,
        mode=protocol.mode,
        shots=protocol.shots,
        trials=protocol.trials,
        draws=protocol.draws,
        queries=queries,
        valid_queries=valid_queries,
        gallery=gallery,
        published_counts=agreement,
        feature=feature,
        flip=flip,
        reranking=reranking.label if reranking else "none",
        epoch=epoch,
        selection=selection,
        baseline=baseline,
    )
    if baseline:
        return mean_result(labels, by_trial)
    rows = [protocol.queries(records, trial) for trial in protocol.trials]
    return mean_result(labels, by_trial, per_query(rows, by_trial, records.identity))


def mean_result(
    labels: Labels, by_trial: Sequence[Metrics], queries: PerQuery | None = None
) -> Result:
    """Average the metrics of several rankings under one set of labels."""
    mean = lambda name: np.mean([getattr(one, name) for one in by_trial], axis=0)
    mAP, mINP = float(mean("mAP")), float(mean("mINP"))
    return Result(labels, mean("cmc"), mAP, mINP, tuple(by_trial), queries)


def rank_trials(
    protocol: Protocol,
    records: Rows,
    features: Float[np.ndarray, "all dim"],
    trials: Sequence[int],
    rows_between: RowsBetween = cosine_rows,
) -> list[Metrics]:
    """Rank each of `trials` from one pass over the distances.

    Trials draw different images from the same split: the distances between all images
    that any trial uses are computed once, one block in memory at a time, and each trial
    ranks its own rows and columns of a block. Raise UserError as `ranking.rank` does.
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
            rows, members, own = rows_of[trial], block, distances
            if not isinstance(rows, slice):
                members = np.flatnonzero((block.start <= rows) & (rows < block.stop))
                own = distances[rows[members] - block.start]
            asking, items = queries[trial][members], galleries[trial]
            ignored = protocol.ignored(records, asking, items)
            ranking.add(members, own[:, columns_of[trial]], ignored)
    return [ranking.metrics() for ranking in rankings]


def _pool(parts):
    """Return the rows in any part, and the indices of each part's rows among them."""
    if all(np.array_equal(part, parts[0]) for part in parts):
        return parts[0], [slice(None)] * len(parts)  # so that nothing is copied
    pool = np.unique(np.concatenate(parts))
    return pool, [np.searchsorted(pool, part) for part in parts]
