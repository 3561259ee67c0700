"""Intervals and tests over identities, against scipy and by their laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from splits import embed, fake_tree

from vireid_jax.protocols import evaluate, find_protocol
from vireid_jax.protocols.ranking import Metrics
from vireid_jax.protocols.uncertainty import (
    identity_interval,
    per_query,
    sign_flip_test,
    weighted_mean,
)

RNG = np.random.default_rng(0)


def metrics_of(first_hit, ap):
    first_hit, ap = np.array(first_hit, float), np.array(ap, float)
    return Metrics(np.zeros(20), 0.0, 0.0, len(ap), len(ap), 9, first_hit, ap, ap / 2)


def test_a_query_is_the_mean_over_the_trials_it_is_valid_in():
    nan = np.nan
    rows = [np.array([4, 2, 9]), np.array([2, 7])]  # each trial draws its own
    queries = per_query(
        rows,
        [metrics_of([1, 3, nan], [1, 0.5, nan]), metrics_of([1, nan], [0.7, nan])],
        np.arange(10) + 100,
    )
    np.testing.assert_array_equal(queries.row, [2, 4, 7, 9])
    np.testing.assert_array_equal(queries.identity, [102, 104, 107, 109])
    np.testing.assert_array_equal(queries.trials, [2, 1, 0, 0])
    np.testing.assert_allclose(queries.values["Rank-1"], [0.5, 1, nan, nan])
    np.testing.assert_allclose(queries.values["mAP"], [0.6, 1, nan, nan])
    np.testing.assert_allclose(queries.values["mINP"], [0.3, 0.5, nan, nan])


SWAPPED = "llcm/visible-to-infrared/swapped"  # each trial queries other images


@pytest.mark.parametrize("name", ["llcm/visible-to-infrared", SWAPPED])
def test_queries_weighted_by_their_trials_have_the_reported_mean(name):
    rows = fake_tree("llcm")
    result = evaluate(find_protocol(name), rows, embed(rows, noise=2.0))
    queries, means = result.queries, result.headline()
    for metric, (low, high) in result.intervals().items():
        mean = weighted_mean(queries.values[metric], queries.trials)
        assert mean == pytest.approx(means[metric])
        assert low <= means[metric] <= high
    if name == SWAPPED:  # without the weights they have another
        plain = np.nanmean(queries.values["Rank-1"])
        assert abs(plain - means["Rank-1"]) > 0.05


def test_a_weight_is_so_many_equal_queries():
    rng = np.random.default_rng(4)
    values, identity = rng.normal(0.1, 1, 40), np.arange(40) // 2
    weight = rng.integers(1, 5, 40)
    repeated = [np.repeat(x, weight) for x in (values, identity)]
    assert weighted_mean(values, weight) == pytest.approx(repeated[0].mean())
    for law in (identity_interval, sign_flip_test):
        assert law(values, identity, weight=weight) == pytest.approx(law(*repeated))


def test_an_interval_of_one_query_an_identity_is_scipys():
    values = RNG.random(60)
    interval = identity_interval(values, np.arange(60))
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=5000, random_state=1
    ).confidence_interval
    np.testing.assert_allclose(interval, expected, atol=0.01)


def test_identities_are_drawn_with_all_their_queries():
    """Repeating every query adds no information, so the interval stays."""
    values, identity = RNG.random(30), np.arange(30)
    assert identity_interval(values, identity) == pytest.approx(
        identity_interval(np.repeat(values, 8), np.repeat(identity, 8))
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1))
def test_an_interval_lies_within_the_values_and_ignores_order_and_nan(pairs):
    values, identity = map(np.array, zip(*pairs, strict=True))
    low, high = identity_interval(values, identity)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    order = np.random.default_rng(1).permutation(len(values))
    more = np.append(values[order], np.nan), np.append(identity[order], 99)
    np.testing.assert_allclose(identity_interval(*more), (low, high), atol=1e-9)


def test_the_sign_flip_test_is_scipys():
    identity = np.repeat(np.arange(12), 5)
    difference = RNG.normal(0.15, 1, 60)
    of_each = difference.reshape(12, 5).sum(1)
    expected = stats.permutation_test(
        (of_each, np.zeros(12)), lambda x, y: np.sum(x - y),
        permutation_type="samples", vectorized=False, n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert sign_flip_test(difference, identity) == pytest.approx(expected, abs=0.02)


def test_no_difference_is_certain_and_a_shift_is_found():
    identity = np.repeat(np.arange(40), 3)
    assert sign_flip_test(np.zeros(120), identity) == 1
    shifted = 0.1 + 0.05 * RNG.standard_normal(120)
    assert sign_flip_test(shifted, identity) == pytest.approx(1 / 10_001)
    low, high = identity_interval(shifted, identity)
    assert 0 < low < 0.1 < high


def test_under_no_difference_p_is_uniform():
    rng = np.random.default_rng(3)
    identity = np.repeat(np.arange(15), 2)
    p = [sign_flip_test(rng.standard_normal(30), identity, seed) for seed in range(60)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
