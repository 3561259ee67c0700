"""Uncertainty of a metric: intervals over identities, tests of two systems.

Queries of one identity succeed and fail together, so an identity is always resampled,
or has its sign flipped, with all its queries (a cluster bootstrap, a cluster
permutation test). Both are about other people of the same kind, seen by the same
cameras, not about another training seed. Sources: Efron & Tibshirani 1993 (percentile
interval); Good 2005 (permutation tests). The clusters are our choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vireid_jax.protocols.ranking import Metrics

RESAMPLES, FLIPS, LEVEL = 1000, 10_000, 0.95
FEW = 30  # identities, below which a percentile interval is clearly too narrow
_BLOCK = 1000  # flips at a time

Values = Float[np.ndarray, "queries"]  # of a metric; NaN where the query is not valid
Integers = Int[np.ndarray, "queries"]


@dataclass(frozen=True, eq=False)
class PerQuery:
    """Hold each query's own metrics, fractions, means over the trials it is valid in.

    A query that is valid in no trial has NaN. Where each trial queries other images
    (LLCM's `swapped`), a mean counts a query once per trial: so the mean over queries,
    weighted by `trials`, is the reported mean over trials.
    """

    row: Integers  # of the split, ascending
    identity: Integers
    trials: Integers  # in how many it is valid: its weight
    values: dict[str, Values]  # Rank-1, mAP, mINP


def per_query(
    rows: Sequence[Int[np.ndarray, "_"]],
    by_trial: Sequence[Metrics],
    identity: Int[np.ndarray, "split"],
) -> PerQuery:
    """Average each query over the trials; `rows` has each trial's queries, in order."""
    every, index = np.unique(np.concatenate(rows), return_inverse=True)
    first_hit, ap, inp = (
        np.concatenate([getattr(metrics, name) for metrics in by_trial])
        for name in ("first_hit", "ap", "inp")
    )
    hit = np.where(np.isnan(first_hit), np.nan, first_hit <= 1)
    means = {}
    for name, values in {"Rank-1": hit, "mAP": ap, "mINP": inp}.items():
        valid = np.isfinite(values)
        count = np.bincount(index[valid], minlength=len(every))
        total = np.bincount(index[valid], values[valid], minlength=len(every))
        means[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    # `count` is the same for all three: a query is valid in a trial or it is not.
    return PerQuery(every, identity[every], count, means)


def identity_interval(
    values: Values, identity: Integers, *, weight: Integers | None = None
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean over valid queries.

    1,000 times, identities are resampled with replacement, each with all its queries.
    `weight` is `PerQuery.trials`; None: all have the same. One query at least is valid.
    """
    total, count = _by_identity(values, identity, weight)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(total), np.full(len(total), 1 / len(total)), RESAMPLES)
    means = (drawn @ total) / np.maximum(drawn @ count, 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def crossed_interval(
    values: Float[np.ndarray, "seeds queries"], identity: Integers, weight: Integers
) -> tuple[float, float, float]:
    """Return the mean over seeds and valid queries, and its 95 % percentile interval.

    Seeds and identities are both resampled, 1,000 times: another training seed and
    other people. With few seeds it is too narrow. `weight` as above.
    """
    sums = [_by_identity(row, identity, weight) for row in values]
    total, count = (np.stack(part) for part in zip(*sums, strict=True))
    rng = np.random.default_rng(0)
    draw = lambda n: rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    seeds, people = draw(total.shape[0]), draw(total.shape[1])
    over = lambda x: np.einsum("rs,sp,rp->r", seeds, x, people)
    means = over(total) / np.maximum(over(count), 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(total.sum() / count.sum()), float(low), float(high)


def sign_flip_test(
    values: Values, identity: Integers, seed: int = 0, *, weight: Integers | None = None
) -> float:
    """Return the two-sided p-value of paired differences, if symmetric about 0.

    10,000 times, the differences of each identity keep or change their sign together; p
    is the share of outcomes, the observed one included, at least as far from 0.
    """
    total, _ = _by_identity(values, identity, weight)
    observed = abs(total.sum()) * (1 - 1e-12)  # equal sums may round apart
    rng, extreme = np.random.default_rng(seed), 1
    for _ in range(0, FLIPS, _BLOCK):
        signs = rng.integers(0, 2, (_BLOCK, len(total))) * 2.0 - 1
        extreme += int((np.abs(signs @ total) >= observed).sum())
    return extreme / (FLIPS + 1)


def weighted_mean(values: Values, weight: Integers) -> float:
    """Return the mean over valid queries, weighted by `weight`."""
    valid = np.isfinite(values)
    return float(np.average(values[valid], weights=weight[valid]))


def _by_identity(values, identity, weight):
    """Return each identity's sum over its valid queries, and their number."""
    valid = np.isfinite(values)
    _, index = np.unique(identity[valid], return_inverse=True)
    weight = np.ones(len(index)) if weight is None else weight[valid]
    return np.bincount(index, weight * values[valid]), np.bincount(index, weight)
