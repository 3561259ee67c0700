"""The law of the P x K stream, on data sets that hypothesis makes up."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid_jax.data.pk import PKStream

counts = st.lists(st.integers(0, 9), min_size=3, max_size=12)
sizes = st.integers(1, 5)
seeds = st.integers(0, 2**40)


def shuffled_ids(counts, seed):
    """Label a made-up list: `counts[i]` images of identity 3 i, in disorder."""
    ids = np.repeat(3 * np.arange(len(counts)), counts)
    return np.random.default_rng((seed, 99)).permutation(ids).astype(np.int32)


def stream_of(visible, infrared, P, K, seed):
    """Build a stream with P capped at what the lists allow; None if nothing is left."""
    visible = shuffled_ids(visible, 0)
    if infrared is not None:
        infrared = shuffled_ids(infrared, 1)
    both = {*visible} & ({*visible} if infrared is None else {*infrared})
    if not both:
        return None
    return PKStream(visible, infrared, min(P, len(both)), K, seed)


@settings(deadline=None)
@given(counts, counts, sizes, sizes, seeds, st.integers(0, 300))
def test_labels_name_the_images_and_no_image_repeats_while_k_exist(
    visible, infrared, P, K, seed, step
):
    stream = stream_of(visible, infrared, P, K, seed)
    if stream is None:
        return
    draw = stream[step]
    for rows, counted, salt in (
        (draw.visible_rows, visible, 0),
        (draw.infrared_rows, infrared, 1),
    ):
        ids = shuffled_ids(counted, salt)
        np.testing.assert_array_equal(ids[rows], draw.labels)
        for group in rows.reshape(-1, K):
            assert len({*ids[group]}) == 1
            if counted[ids[group[0]] // 3] >= K:
                assert len({*group}) == K
    assert draw.labels.dtype == np.int32
    assert len({*draw.labels}) == stream.P


@settings(deadline=None)
@given(counts, counts, sizes, seeds, st.integers(0, 5))
def test_a_pass_takes_every_identity_at_most_once(visible, infrared, P, seed, index):
    stream = stream_of(visible, infrared, P, 2, seed)
    if stream is None:
        return
    n = stream.steps_per_pass
    usable = [
        3 * i for i, c in enumerate(zip(visible, infrared, strict=False)) if all(c)
    ]
    assert stream.identities.tolist() == usable
    assert n == len(usable) // stream.P
    seen = Counter()
    for step in range(index * n, (index + 1) * n):
        seen.update({*stream[step].labels.tolist()})
    assert max(seen.values()) == 1
    assert len(seen) == n * stream.P  # all of them where P divides their number
    assert {*seen} <= {*usable}


@settings(deadline=None)
@given(counts, st.none() | counts, sizes, sizes, seeds, st.lists(st.integers(0, 99)))
def test_a_step_depends_on_seed_and_step_alone(visible, infrared, P, K, seed, steps):
    stream = stream_of(visible, infrared, P, K, seed)
    if stream is None:
        return
    inorder = [stream[step] for step in range(100)]
    fresh = pickle.loads(pickle.dumps(stream_of(visible, infrared, P, K, seed)))
    for step in steps:
        for found, expected in zip(fresh[step], inorder[step], strict=True):
            np.testing.assert_array_equal(found, expected)


@settings(deadline=None)
@given(counts, sizes, sizes, seeds, st.integers(0, 300))
def test_two_draws_of_one_list_overlap_as_little_as_possible(counted, P, K, seed, step):
    stream = stream_of(counted, None, P, K, seed)
    if stream is None:
        return
    ids = shuffled_ids(counted, 0)
    draw = stream[step]
    for rows in (draw.visible_rows, draw.infrared_rows):
        np.testing.assert_array_equal(ids[rows], draw.labels)
    one, two = (rows.reshape(-1, K) for rows in (draw.visible_rows, draw.infrared_rows))
    for a, b in zip(one, two, strict=True):
        n = counted[ids[a[0]] // 3]
        if n >= K:
            assert len({*a}) == len({*b}) == K
            assert len({*a, *b}) == min(n, 2 * K)


def test_draws_are_uniform_and_the_modalities_independent():
    ids = np.repeat(np.arange(2), 4)
    stream = PKStream(ids, ids, P=2, K=1, seed=0)
    pairs, first = Counter(), Counter()
    steps = 4000
    for step in range(steps):
        draw = stream[step]
        slot = draw.labels.tolist().index(0)
        first[slot] += 1
        pairs[draw.visible_rows[slot], draw.infrared_rows[slot]] += 1
    # 16 pairs of images, 250 expected of each, standard deviation 15.3.
    assert len(pairs) == 16
    assert max(abs(n - steps / 16) for n in pairs.values()) < 5 * 15.3
    assert abs(first[0] - steps / 2) < 5 * 31.6


def test_with_replacement_every_image_of_a_short_identity_can_come_twice():
    ids = np.array([0, 0])
    stream = PKStream(ids, ids, P=1, K=4, seed=0)
    distinct = Counter(len({*stream[step].visible_rows}) for step in range(400))
    # Four fair coins agree one time in eight: 50 expected of 400, deviation 6.6.
    assert abs(distinct[1] - 50) < 5 * 6.6


def test_other_seeds_give_other_streams():
    ids = np.repeat(np.arange(40), 5)
    first = {
        tuple(PKStream(ids, ids, 8, 2, seed)[0].visible_rows) for seed in range(50)
    }
    assert len(first) == 50


def test_every_pass_has_an_order_of_its_own():
    ids = np.arange(12)
    stream = PKStream(ids, ids, P=12, K=1, seed=0)
    assert len({tuple(stream[step].labels.tolist()) for step in range(50)}) == 50


def test_epoch_counts_images_of_the_larger_modality():
    visible, infrared = np.repeat(np.arange(10), 7), np.repeat(np.arange(10), 3)
    assert PKStream(visible, infrared, P=4, K=2, seed=0).steps_per_epoch == 9  # 70 / 8
    assert PKStream(infrared, visible, P=4, K=2, seed=0).steps_per_epoch == 9
    assert PKStream(infrared, None, P=5, K=2, seed=0).steps_per_epoch == 3  # 30 / 10


def test_identities_of_one_modality_are_left_out_and_listed():
    visible, infrared = np.array([0, 1, 2, 2]), np.array([1, 2, 5, 5])
    stream = PKStream(visible, infrared, P=2, K=2, seed=0)
    assert stream.identities.tolist() == [1, 2]
    assert stream.left_out.tolist() == [0, 5]
    with pytest.raises(ValueError, match=r"P=3 needs at least 3.*2 have them, 2 "):
        PKStream(visible, infrared, P=3, K=2, seed=0)


def test_wrong_numbers_are_refused():
    ids = np.array([0, 1])
    for P, K in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"P={P} and K={K} must both be 1"):
            PKStream(ids, ids, P, K, seed=0)
    with pytest.raises(IndexError, match="step is -1"):
        PKStream(ids, ids, 1, 1, seed=0)[-1]
