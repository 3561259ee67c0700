"""From features to labelled numbers: no metric leaves here without saying what it is.

JSON holds fractions in [0, 1].
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from vireid_jax.protocols.protocol import Counts, Protocol, Rows
from vireid_jax.protocols.ranking import Metrics, cosine_rows
from vireid_jax.protocols.reranking import KReciprocal
from vireid_jax.protocols.trials import RowsBetween, rank_trials
from vireid_jax.protocols.uncertainty import PerQuery, identity_interval, per_query
from vireid_jax.run.errors import UserError

SELECTIONS = ("last", "best")


@dataclass(frozen=True)
class Labels:
    """Say what a number measures; every printed or stored metric carries them all."""

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
    selection: str | None  # "last", "best"; None: not a checkpoint
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
        """Return the standard deviation over trials; {} where there is but one."""
        if len(self.by_trial) < 2:
            return {}
        trials = self.trial_headlines()
        over = lambda name: float(np.std([t[name] for t in trials], ddof=1))
        return {name: over(name) for name in trials[0]}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals over query identities of Rank-1, mAP and mINP."""
        if self.queries is None:
            return {}
        return {
            name: identity_interval(
                values, self.queries.identity, weight=self.queries.trials
            )
            for name, values in self.queries.values.items()
        }

    def trial_headlines(self) -> list[dict[str, float]]:
        """Return the headline of each trial."""
        return [headline(m.cmc, m.mAP, m.mINP) for m in self.by_trial]

    def headline(self) -> dict[str, float]:
        """Return Rank-1, 5, 10, 20, mAP and mINP by their names, as fractions."""
        return headline(self.cmc, self.mAP, self.mINP)

    def to_json(self) -> dict:
        """Return a plain dict for `json.dumps`: labels and metrics, as fractions.

        Each trial's metrics, deviations and intervals stand beside the means.
        """
        labels = dataclasses.asdict(self.labels)
        found = labels | {"trials": list(self.labels.trials)}
        found["metrics"] = self.headline()
        if self.queries is not None:
            found["by_trial"] = self.trial_headlines()
            found["deviation"] = self.deviation()
            found["intervals"] = {n: list(ends) for n, ends in self.intervals().items()}
        return found


def headline(
    cmc: Float64[np.ndarray, "ranks"],
    mAP: float,
    mINP: float,
) -> dict[str, float]:
    """Name Rank-1, 5, 10, 20, mAP and mINP."""
    ranks = {f"Rank-{k}": float(cmc[k - 1]) for k in (1, 5, 10, 20)}
    return ranks | {"mAP": mAP, "mINP": mINP}


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
    selection: str | None = None,
    baseline: bool = False,
) -> Result:
    """Rank by cosine distance as the protocol says; mean over its trials.

    The trials share one computation of distances, in blocks.

    Args:
      protocol: from `get_protocols`.
      records: the split's rows.
      features: embeddings of all rows of the split, in its order; float64 is ranked as
        such, any other type in float32. They need not be normalised.
      reranking: re-ranks each trial, by its own queries and gallery; None: does not.
      distances: from features of queries and gallery to a function from a slice of
        queries to their distances; the cosine distance unless another is given.
      feature, flip, epoch, selection, baseline: the labels that only the caller knows.

    Raises:
      UserError: another number of features than rows, features that are not finite,
        an unknown selection, a query or gallery set without matches.
    """
    if selection not in (*SELECTIONS, None):
        raise UserError(
            f"selection={selection!r}; legal are {', '.join(SELECTIONS)} or None."
        )
    if len(features) != len(records.identity):
        raise UserError(
            f"{len(features)} features for {len(records.identity)} rows of "
            f"{protocol.dataset}; embed each row of the split exactly once, in order."
        )
    if reranking is None:
        by_trial = rank_trials(protocol, records, features, protocol.trials, distances)
    else:
        by_trial = []
        for trial in protocol.trials:
            by_trial += rank_trials(
                protocol, records, features, [trial], reranking.rows
            )
    queries, valid_queries, gallery = _counts(protocol, by_trial)
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
        published_counts=_compare(Counts(queries, gallery), protocol.published),
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
    queries = per_query(rows, by_trial, records.identity)
    return dataclasses.replace(mean_result(labels, by_trial), queries=queries)


def mean_result(labels: Labels, by_trial: Sequence[Metrics]) -> Result:
    """Average the metrics of several rankings under one set of labels."""
    return Result(
        labels=labels,
        cmc=np.mean([metrics.cmc for metrics in by_trial], axis=0),
        mAP=float(np.mean([metrics.mAP for metrics in by_trial])),
        mINP=float(np.mean([metrics.mINP for metrics in by_trial])),
        by_trial=tuple(by_trial),
    )


def _counts(protocol, by_trial):
    counts = {(m.num_queries, m.valid_queries, m.num_gallery) for m in by_trial}
    if len(counts) > 1:
        raise UserError(
            f"{protocol.name} has other numbers of (queries, valid queries, gallery) "
            f"in its trials: {sorted(counts)}; they must agree for a mean to be fair."
        )
    return counts.pop()


def _compare(found, published):
    if published in (found, None):
        return "agree" if published else "none"
    return f"differ: {published.queries} queries, {published.gallery} gallery images"
