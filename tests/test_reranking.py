"""k-reciprocal re-ranking against the equations, written out as loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid_jax.protocols import KReciprocal, cosine_distances, ranking


def rerank_by_loop(query, gallery, k1, k2, weight, variant):
    """Zhong et al., CVPR 2017, one image and one set at a time."""
    images = np.concatenate([query, gallery]).astype(np.float64)
    everyone = range(len(images))
    d = np.array([[1 - cosine(a, b) for b in images] for a in images])
    if variant == "released":
        d = np.array([row / max(row) for row in d])

    def nearest(p, count):
        others = sorted((g for g in everyone if g != p), key=lambda g: d[p, g])
        return [p, *others][:count]

    def reciprocal(p, k):
        return {g for g in nearest(p, k + 1) if p in nearest(g, k + 1)}

    def enough(common, size):
        bound = 2 * size / 3 - 1e-9  # at least; a thousandth more is more
        return common > bound + 1e-3 if variant == "released" else common > bound

    large = {p: reciprocal(p, k1) for p in everyone}
    small = {p: reciprocal(p, round(k1 / 2)) for p in everyone}
    v = np.zeros((len(images), len(images)))
    for p in everyone:
        members = set(large[p])
        for q in large[p]:
            if enough(len(large[p] & small[q]), len(small[q])):
                members |= small[q]
        for g in members:
            v[p, g] = math.exp(-d[p, g])
        if variant == "released":
            v[p] /= v[p].sum()
    v = np.array([np.mean([v[g] for g in nearest(p, k2)], axis=0) for p in everyone])

    final = np.empty((len(query), len(gallery)))
    for p in range(len(query)):
        for row in range(len(gallery)):
            g = len(query) + row
            jaccard = 1 - sum(np.minimum(v[p], v[g])) / sum(np.maximum(v[p], v[g]))
            final[p, row] = (1 - weight) * jaccard + weight * d[p, g]
    return final


def cosine(a, b):
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def features(queries, gallery, seed=0, ids=5, dim=8):
    """Clustered features, so that neighbours are often mutual."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((ids, dim))
    both = [rng.integers(0, ids, n) for n in (queries, gallery)]
    return [
        (centres[who] + 0.5 * rng.standard_normal((len(who), dim))).astype(np.float32)
        for who in both
    ]


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize(
    ("k1", "k2", "weight"), [(20, 6, 0.3), (5, 1, 0.0), (7, 3, 0.8), (200, 90, 0.3)]
)
def test_equals_the_equations_as_loops(k1, k2, weight, variant):
    query, gallery = features(14, 41)
    settings_of = KReciprocal(k1, k2, weight, variant)
    distances = settings_of.rows(query, gallery)(slice(None))
    expected = rerank_by_loop(query, gallery, k1, k2, weight, variant)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, expected, atol=2e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["paper", "released"]))
def test_equals_the_loops_for_many_small_sets(seed, variant):
    rng = np.random.default_rng(seed)
    sizes, k1, k2 = rng.integers(1, 13, 2), int(rng.integers(1, 9)), 2
    query, gallery = features(*sizes, seed=seed)
    distances = KReciprocal(k1, k2, 0.5, variant).rows(query, gallery)(slice(None))
    expected = rerank_by_loop(query, gallery, k1, k2, 0.5, variant)
    np.testing.assert_allclose(distances, expected, atol=2e-6)


def test_blocks_do_not_change_the_result(monkeypatch):
    query, gallery = features(30, 50)
    whole = KReciprocal().rows(query, gallery)(slice(None))
    monkeypatch.setattr(ranking, "BLOCK_ITEMS", 500)
    rows_at = KReciprocal().rows(query, gallery)
    blocked = [rows_at(rows) for rows in ranking.blocks(30, 50)]
    assert len(blocked) == 3
    np.testing.assert_allclose(np.concatenate(blocked), whole, atol=1e-6)


def test_weight_one_keeps_the_original_distances():
    query, gallery = features(9, 20)
    kept = KReciprocal(weight=1.0).rows(query, gallery)(slice(2, 5))
    np.testing.assert_allclose(kept, cosine_distances(query, gallery)[2:5], atol=1e-6)


def test_identical_images_are_at_distance_zero_and_nothing_divides_by_it():
    same = np.ones((8, 3), np.float32)
    for variant in ("paper", "released"):
        distances = KReciprocal(variant=variant).rows(same[:3], same[3:])(slice(None))
        assert np.isfinite(distances).all()
        np.testing.assert_allclose(distances, 0, atol=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k1": 0}, r"k1=0.*valid values: k1 >= 1"),
        ({"k2": 0}, r"k2=0.*valid values:"),
        ({"weight": 1.5}, r"weight=1.5.*weight in \[0, 1\]"),
        ({"variant": "code"}, "variant='code'.*paper or released"),
    ],
)
def test_settings_out_of_range_are_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        KReciprocal(**change)


def test_features_that_are_not_finite_are_an_error():
    query, gallery = features(4, 6)
    gallery[2] = np.nan
    with pytest.raises(ValueError, match="gallery features that are not finite in 1"):
        KReciprocal().rows(query, gallery)
