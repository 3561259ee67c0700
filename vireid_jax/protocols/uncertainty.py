"""How far a metric can be trusted: intervals over identities, tests of two systems.

Queries of one identity succeed and fail together, so what is drawn again, or has its
sign flipped, is always an identity with all its queries (a cluster bootstrap, a cluster
permutation test). Both speak about other people of the same kind, seen by the same
cameras; they do not know how another training seed would have come out. Sources: Efron
& Tibshirani 1993 (percentile interval); Good 2005 (permutation tests). Our choice of
clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

from vireid_jax.protocols.ranking import Metrics
from vireid_jax.run.errors import UserError

RESAMPLES, FLIPS, LEVEL = 1000, 10_000, 0.95
FEW = 30  # identities, below which a percentile interval is clearly too narrow
_BLOCK = 1000  # flips at a time


@dataclass(frozen=True, eq=False)
class PerQuery:
    """Hold each query's own metrics, fractions, means over the trials it is valid in.

    A query that is valid in no trial has NaN. Where each trial queries other images
    (LLCM's `swapped`), one that is queried more often counts as often in a mean: so the
    mean over queries, weighted by `trials`, is the mean over trials that is reported.
    """

    row: Int[np.ndarray, "queries"]  # of the split, ascending
    identity: Int[np.ndarray, "queries"]
    trials: Int[np.ndarray, "queries"]  # in how many it is valid: its weight
    values: dict[str, Float64[np.ndarray, "queries"]]  # Rank-1, mAP, mINP


def per_query(
    rows: Sequence[Int[np.ndarray, "_"]],
    by_trial: Sequence[Metrics],
    identity: Int[np.ndarray, "split"],
) -> PerQuery:
    """Average each query over the trials; `rows` has each trial's queries, in order."""
    every, place = np.unique(np.concatenate(rows), return_inverse=True)
    found = {"Rank-1": [], "mAP": [], "mINP": []}
    for metrics in by_trial:
        hit = np.where(np.isnan(metrics.first_hit), np.nan, metrics.first_hit <= 1)
        for name, values in zip(found, (hit, metrics.ap, metrics.inp), strict=True):
            found[name].append(values)
    means = {}
    for name, values in found.items():
        values = np.concatenate(values)
        valid = np.isfinite(values)
        count = np.bincount(place[valid], minlength=len(every))
        total = np.bincount(place[valid], values[valid], minlength=len(every))
        means[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    # `count` is the same for all three: a query is valid in a trial or it is not.
    return PerQuery(every, identity[every], count, means)


def identity_interval(
    values: Float[np.ndarray, "queries"],
    identity: Int[np.ndarray, "queries"],
    seed: int = 0,
    *,
    weight: Int[np.ndarray, "queries"] | None = None,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean over valid (not NaN) queries.

    1,000 times as many identities as there are are drawn with replacement, each with
    all its queries. `weight` is `PerQuery.trials`; None: all count alike.
    Raises UserError where no query is valid.
    """
    total, count = _by_identity(values, identity, weight)
    rng = np.random.default_rng(seed)
    even = np.full(len(total), 1 / len(total))
    drawn = rng.multinomial(len(total), even, size=RESAMPLES)
    means = (drawn @ total) / np.maximum(drawn @ count, 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def crossed_interval(
    values: Float[np.ndarray, "seeds queries"],
    identity: Int[np.ndarray, "queries"],
    weight: Int[np.ndarray, "queries"],
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean over seeds and valid queries, and its 95 % percentile interval.

    Seeds and identities are both drawn with replacement, 1,000 times: another training
    seed and other people. With few seeds it is too narrow. `weight` as above.
    Raises UserError where no query is valid.
    """
    sums = [_by_identity(row, identity, weight) for row in values]
    total, count = (np.stack(part) for part in zip(*sums, strict=True))
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    seeds, people = draw(total.shape[0]), draw(total.shape[1])
    over = lambda x: np.einsum("rs,sp,rp->r", seeds, x, people)
    means = over(total) / np.maximum(over(count), 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(total.sum() / count.sum()), float(low), float(high)


def sign_flip_test(
    difference: Float[np.ndarray, "queries"],
    identity: Int[np.ndarray, "queries"],
    seed: int = 0,
    *,
    weight: Int[np.ndarray, "queries"] | None = None,
) -> float:
    """Return the two-sided p-value of paired differences being symmetric about 0.

    10,000 times each identity's differences keep or change their sign together; p is
    the share of outcomes, the observed one included, at least as far from 0.
    Raises UserError where no query is valid.
    """
    total, _ = _by_identity(difference, identity, weight)
    observed = abs(total.sum()) * (1 - 1e-12)  # equal sums may round apart
    rng, extreme = np.random.default_rng(seed), 1
    for _ in range(0, FLIPS, _BLOCK):
        signs = rng.integers(0, 2, (_BLOCK, len(total))) * 2.0 - 1
        extreme += int((np.abs(signs @ total) >= observed).sum())
    return extreme / (FLIPS + 1)


def weighted_mean(
    values: Float[np.ndarray, "queries"], weight: Int[np.ndarray, "queries"]
) -> float:
    """Return the mean over valid (not NaN) queries, each as often as `weight` says."""
    valid = np.isfinite(values)
    return float(np.average(values[valid], weights=weight[valid]))


def _by_identity(values, identity, weight):
    """Return each identity's sum over its valid queries, and their number."""
    valid = np.isfinite(values)
    if not valid.any():
        raise UserError(
            f"none of the {len(values)} queries is valid: there is nothing to judge. "
            "Check that query and gallery share identities."
        )
    _, place = np.unique(identity[valid], return_inverse=True)
    weight = np.ones(len(place)) if weight is None else weight[valid]
    return np.bincount(place, weight * values[valid]), np.bincount(place, weight)
