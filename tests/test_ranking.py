import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vireid_jax.protocols import cosine_distances, cosine_rows, rank, ranking

GOLDEN = np.load(Path(__file__).parent / "golden/eval_metrics.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})


def rank_by_loop(distances, query_ids, gallery_ids, distinct, ignore):
    """First hit, AP and INP of each query, from the definitions."""
    rows = []
    for row, identity in enumerate(query_ids):
        kept = [column for column in range(len(gallery_ids)) if not ignore[row, column]]
        ids = [gallery_ids[c] for c in sorted(kept, key=lambda c: distances[row, c])]
        hits = [rank for rank, other in enumerate(ids, 1) if other == identity]
        if not hits:
            rows.append((np.nan, np.nan, np.nan))
            continue
        ap = sum(nth / hit for nth, hit in enumerate(hits, 1)) / len(hits)
        first_hit = len(set(ids[: hits[0]])) if distinct else hits[0]
        rows.append((first_hit, ap, len(hits) / hits[-1]))
    return np.array(rows).T


@st.composite
def rankings(draw):
    """Small cases with many ties, ignored items and invalid queries."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, gallery = rng.integers(1, 12), rng.integers(1, 40)
    ids, values = rng.integers(1, 9, size=2)
    distances = rng.integers(0, 2**values, (queries, gallery)) / 7 - 1
    return {
        "distances": distances.astype(rng.choice([np.float32, np.float64])),
        "query_ids": rng.integers(0, ids, queries),
        "gallery_ids": rng.integers(0, ids, gallery),
        "distinct": bool(rng.integers(2)),
        "ignore": rng.random((queries, gallery)) < rng.choice([0, 0.3, 0.8]),
    }


def per_query(metrics):
    return np.stack([metrics.first_hit, metrics.ap, metrics.inp])


def golden_case(name):
    fields = {k.split("/")[1]: GOLDEN[k] for k in GOLDEN.files if k.startswith(name)}
    case = {
        "distances": fields["distmat"],
        "query_ids": fields["q_pids"],
        "gallery_ids": fields["g_pids"],
        "distinct": not name.startswith("regdb"),
        "ignore": None,
    }
    if name.startswith("sysu"):
        case["ignore"] = (fields["q_camids"][:, None] == 3) & (fields["g_camids"] == 2)
    if name.startswith("llcm"):
        case["ignore"] = (fields["q_camids"][:, None] == fields["g_camids"]) & (
            fields["q_pids"][:, None] == fields["g_pids"]
        )
    return fields, case


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_code(name):
    expected, case = golden_case(name)
    metrics = rank(**case)
    short = len(expected["cmc"])
    np.testing.assert_allclose(metrics.cmc[:short], expected["cmc"], rtol=0, atol=1e-12)
    assert metrics.cmc.shape == (20,)
    assert np.all(metrics.cmc[short:] == metrics.cmc[short - 1])
    assert metrics.mAP == pytest.approx(float(expected["mAP"]), abs=1e-12)
    assert metrics.mINP == pytest.approx(float(expected["mINP"]), abs=1e-12)


def test_every_golden_case_that_the_reference_finishes_is_compared():
    notes = json.loads((Path(__file__).parent / "golden/eval_metrics.json").read_text())
    assert set(CASES) == {name for name, note in notes.items() if "error" not in note}


def test_full_length_cmc_equals_the_second_reference():
    for name in ("sysu_all_single", "sysu_all_multi"):
        expected, case = golden_case(name)
        full = expected["cmc_full_mpanet"]
        metrics = rank(**case, ranks=len(full))
        np.testing.assert_allclose(metrics.cmc, full, rtol=0, atol=1e-12)


@given(rankings())
def test_equals_the_loop_with_ties_ignored_items_and_invalid_queries(case):
    expected = rank_by_loop(**case)
    valid = np.isfinite(expected[0])
    if not valid.any():
        with pytest.raises(ValueError, match="none of the"):
            rank(**case)
        return
    metrics = rank(**case)
    np.testing.assert_allclose(per_query(metrics), expected, rtol=0, atol=1e-12)
    assert metrics.valid_queries == valid.sum()
    assert (metrics.num_queries, metrics.num_gallery) == case["distances"].shape
    curve = [np.mean(expected[0][valid] <= k) for k in range(1, 21)]
    np.testing.assert_allclose(metrics.cmc, curve, rtol=0, atol=1e-12)


def test_queries_that_keep_different_numbers_of_identities():
    """Few and unequally many identities remain: reference code raises here."""
    rng = np.random.default_rng(3)
    ids = np.arange(10)
    case = {
        "distances": rng.random((20, 15)),
        "query_ids": np.repeat(ids, 2),
        "gallery_ids": np.concatenate([ids, ids[:5]]),
        "distinct": True,
        "ignore": (np.arange(20)[:, None] % 2 == 0) & (np.arange(15) < 10),
    }
    metrics = rank(**case)
    np.testing.assert_allclose(per_query(metrics), rank_by_loop(**case), atol=1e-12)
    assert (metrics.valid_queries, metrics.cmc[-1]) == (15, 1)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_gallery_order_matters_only_for_ties(seed, distinct):
    rng = np.random.default_rng(seed)
    distances = rng.permutation(6 * 30).reshape(6, 30).astype(np.float32)
    ids = np.concatenate([np.arange(6), rng.integers(0, 8, 24)])
    shuffle = rng.permutation(30)
    plain = rank(distances, np.arange(6), ids, distinct=distinct)
    moved = rank(distances[:, shuffle], np.arange(6), ids[shuffle], distinct=distinct)
    np.testing.assert_array_equal(per_query(moved), per_query(plain))


@given(rankings(), st.sampled_from([np.nan, np.inf, -np.inf, -99.0]))
def test_ignored_items_have_no_effect(case, anything):
    case["ignore"][:, -1] = False  # an item of each identity that asks remains
    case["gallery_ids"][-1] = case["query_ids"][0]
    changed = case | {"distances": case["distances"].copy()}
    changed["distances"][case["ignore"]] = anything
    np.testing.assert_array_equal(per_query(rank(**changed)), per_query(rank(**case)))


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = rng.integers(-4, 5, (50, 8)), rng.integers(-4, 5, (70, 8))
    ids = rng.integers(0, 9, 50), rng.integers(0, 9, 70)
    ignore = rng.random((50, 70)) < 0.2
    rows = cosine_rows(query.astype(float), gallery.astype(float))
    whole = rank(rows(slice(None)), *ids, distinct=True, ignore=ignore)
    monkeypatch.setattr(ranking, "BLOCK_ITEMS", 7 * 70)
    lengths = []

    def counted(block):
        lengths.append(block.stop - block.start)
        return whole_distances[block]

    whole_distances = rows(slice(None))
    blocked = rank(counted, *ids, distinct=True, ignore=ignore)
    assert lengths == [7] * 7 + [1]
    np.testing.assert_array_equal(per_query(blocked), per_query(whole))
    features = rank(rows, *ids, distinct=False)
    assert features.mAP == pytest.approx(
        rank(whole_distances, *ids, distinct=False).mAP, abs=0.01
    )


def test_float64_distances_are_not_rounded():
    distances = np.array([[1 + 1e-12, 1.0]])
    ids = np.array([5]), np.array([4, 5])
    assert rank(distances, *ids, distinct=False).cmc[0] == 1
    assert rank(distances.astype(np.float32), *ids, distinct=False).cmc[0] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosine_distances(dtype):
    rng = np.random.default_rng(1)
    query, gallery = rng.standard_normal((4, 6)), rng.standard_normal((5, 6))
    norms = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
    distances = cosine_distances(query.astype(dtype), gallery.astype(dtype))
    assert distances.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(distances, 1 - query @ gallery.T / norms, atol=tolerance)


def test_cosine_distances_of_zero_huge_and_tiny_vectors():
    query = np.array([[0, 0], [3e38, 3e38], [1e-44, 0]], np.float32)
    gallery = np.array([[1, 0], [0, 0]], np.float32)
    expected = [[1, 1], [1 - 0.5**0.5, 1], [0, 1]]
    np.testing.assert_allclose(cosine_distances(query, gallery), expected, atol=1e-6)


def test_half_precision_features_are_compared_in_float32():
    half = np.array([[1, 2], [2, 1]], np.float16)
    assert cosine_distances(half, half).dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_errors(bad):
    features = np.ones((6, 3), np.float32)
    broken = features.copy()
    broken[[2, 4], 1] = bad
    with pytest.raises(ValueError, match=r"gallery .* 2 of 6 rows, the first is row 2"):
        cosine_distances(features, broken)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_distances_that_are_not_finite_are_errors(bad, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK_ITEMS", 10)
    distances = np.random.default_rng(0).random((9, 5))
    distances[[6, 7], 3] = bad
    ignore = np.zeros((9, 5), bool)
    ignore[:, 4] = True
    ids = np.zeros(9, int), np.zeros(5, int)
    with pytest.raises(ValueError, match="the first is row 6"):
        rank(distances, *ids, distinct=False, ignore=ignore)


def test_wrong_shapes_and_empty_sides_are_errors():
    two, three = np.arange(2), np.arange(3)
    with pytest.raises(ValueError, match=r"distances has shape \(3, 2\).*\(2, 3\)"):
        rank(np.ones((3, 2)), two, three, distinct=False)
    mask = np.zeros((2, 2), bool)
    with pytest.raises(ValueError, match="ignore has shape"):
        rank(np.ones((2, 3)), two, three, distinct=False, ignore=mask)
    with pytest.raises(ValueError, match="0 queries and 3 gallery items"):
        rank(np.ones((0, 3)), two[:0], three, distinct=False)
