"""Trials are ranked from one computation of distances; laws that all draws obey."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splits import SYSU, embed, fake_tree, files, sysu_of

from vireid_jax.protocols import (
    KReciprocal,
    cosine_distances,
    cosine_rows,
    evaluate,
    find_protocol,
    rank,
    ranking,
)
from vireid_jax.protocols.result import rank_trials

TRIALS = ["sysu_mm01/all/multi", "llcm/visible-to-infrared"]
TRIALS += ["llcm/infrared-to-visible", "llcm/visible-to-infrared/swapped"]


@pytest.mark.parametrize("name", TRIALS)
def test_trials_share_one_computation_of_distances(name, monkeypatch):
    """Blocks of a pool give what each trial gives by itself."""
    monkeypatch.setattr(ranking, "BLOCK_ITEMS", 500)
    rows, protocol = fake_tree(name.split("/")[0]), find_protocol(name)
    features = embed(rows, noise=3.0)
    alone = []
    for trial in protocol.trials:
        queries, gallery = protocol.queries(rows, trial), protocol.gallery(rows, trial)
        distances = cosine_distances(features[queries], features[gallery])
        ids = rows.identity[queries], rows.identity[gallery]
        ignore = protocol.ignored(rows, queries, gallery)
        alone.append(rank(distances, *ids, distinct=True, ignore=ignore))

    computed = []

    def counted(query, gallery):
        distances_at = cosine_rows(query, gallery)

        def rows_at(block):
            distances = distances_at(block)
            computed.append(distances.size)
            return distances

        return rows_at

    together = rank_trials(protocol, rows, features, protocol.trials, counted)
    for one, other in zip(together, alone, strict=True):
        for name in ("first_hit", "ap", "inp"):
            expected = getattr(other, name)
            np.testing.assert_allclose(getattr(one, name), expected, atol=1e-12)
    assert len(computed) > 3
    assert max(computed) <= 500
    assert sum(computed) <= np.prod(np.bincount(rows.modality))


def test_reranking_takes_each_trial_by_itself():
    rows, protocol = fake_tree("llcm"), find_protocol("llcm/infrared-to-visible")
    features, method = embed(rows, noise=3.0), KReciprocal()
    result = evaluate(protocol, rows, features, reranking=method)
    assert result.mAP > evaluate(protocol, rows, features).mAP
    queries, gallery = protocol.queries(rows, 9), protocol.gallery(rows, 9)
    last = rank(
        method.rows(features[queries], features[gallery]),
        rows.identity[queries],
        rows.identity[gallery],
        distinct=True,
        ignore=protocol.ignored(rows, queries, gallery),
    )
    assert result.by_trial[9].mAP == last.mAP


@st.composite
def splits(draw):
    """A small SYSU-like split in which identities miss some cameras."""
    counts = draw(
        st.dictionaries(
            st.tuples(st.integers(1, 6), st.sampled_from([5, 40, 333])),
            st.integers(1, 12),
            min_size=4,
        )
    )
    counts |= {(1, 5): 3, (6, 5): 2, (3, 40): 1}
    return sysu_of([(*place, n) for place, n in counts.items()])


def shuffled(rows, order):
    arrays = {
        name: getattr(rows, name)[order] for name in ("identity", "camera", "modality")
    }
    return SimpleNamespace(filename=files(rows, order), **arrays)


@settings(max_examples=30, deadline=None)
@given(splits(), st.sampled_from([n for n, _ in SYSU]), st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_does_not_matter(rows, name, seed):
    order = np.random.default_rng(seed).permutation(len(rows.identity))
    protocol, features = find_protocol(name), embed(rows, seed)
    moved = shuffled(rows, order)
    assert files(moved, protocol.gallery(moved, 4)) == files(
        rows, protocol.gallery(rows, 4)
    )
    plain = evaluate(protocol, rows, features)
    result = evaluate(protocol, moved, features[order])
    assert result.labels == plain.labels
    np.testing.assert_allclose(result.cmc, plain.cmc, atol=1e-12)
    assert result.mAP == pytest.approx(plain.mAP, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(splits(), st.sampled_from([n for n, _ in SYSU]))
def test_each_trial_draws_the_same_numbers_without_repeats(rows, name):
    protocol = find_protocol(name)
    visible = {"all": (1, 2, 4, 5), "indoor": (1, 2)}[protocol.mode]
    places = np.stack([rows.identity, rows.camera], axis=1)
    kinds = []
    for trial in protocol.trials:
        gallery = protocol.gallery(rows, trial)
        assert len(set(gallery)) == len(gallery)
        assert set(rows.camera[gallery]) <= set(visible)
        kinds.append(places[gallery].tolist())
    assert all(kind == kinds[0] for kind in kinds)
