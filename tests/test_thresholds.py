"""Cosine thresholds against a plain loop over all pairs."""

import numpy as np
import pytest

from vireid_jax.embed.thresholds import PAIRS_NEEDED, RATES, find_thresholds

VISIBLE, INFRARED = 0, 1
EDGE = 2 / 2**16  # thresholds stand on edges this far apart


@pytest.fixture(scope="module")
def people():
    """Forty people, eight images each, half of them infrared; noisy directions."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(40), 8)
    modality = np.tile([VISIBLE, INFRARED], 160)
    features = rng.normal(size=(40, 16))[identity] + rng.normal(size=(320, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), identity, modality


def pairs_of(people, kind):
    """Lists the cosines of pairs of two people, and of one."""
    features, identity, modality = people
    first, second = kind.split("-")
    codes = {"visible": VISIBLE, "infrared": INFRARED}
    others, own = [], []
    for i in np.flatnonzero(modality == codes[first]):
        for j in np.flatnonzero(modality == codes[second]):
            if first == second and j <= i:
                continue
            same = identity[i] == identity[j]
            (own if same else others).append(features[i] @ features[j])
    return np.array(others), np.array(own)


@pytest.mark.parametrize(
    "kind", ["visible-infrared", "visible-visible", "infrared-infrared"]
)
def test_a_threshold_lets_no_more_pass_than_its_rate_and_is_the_lowest_such(
    people, kind
):
    found = find_thresholds(*people)[kind]
    others, own = pairs_of(people, kind)
    assert found["pairs"] == len(others)
    assert list(found["thresholds"]) == [str(rate) for rate in RATES]
    for rate, threshold in found["thresholds"].items():
        assert (others >= threshold).mean() <= float(rate)
        assert (others >= threshold - EDGE).mean() > float(rate)
        share = (own >= threshold).mean()
        assert found["true_match_rates"][rate] == pytest.approx(share, abs=0.005)


def test_a_rate_that_too_few_pairs_tell_of_is_left_out():
    features = np.eye(12, dtype=np.float32)
    modality = np.repeat([VISIBLE, INFRARED], 6)
    identity = np.tile(np.arange(6), 2)
    found = find_thresholds(features, identity, modality)
    assert found["visible-infrared"]["pairs"] == 30
    assert found["visible-infrared"]["thresholds"] == {}
    assert PAIRS_NEEDED > 0.1 * 30
    assert found["visible-visible"]["true_match_rates"] == {}


def test_images_that_are_alike_do_not_pass_below_one():
    # All cosines are 1, so that only a threshold above all of them holds the rate.
    features = np.ones((100, 1), np.float32)
    modality = np.repeat([VISIBLE, INFRARED], 50)
    found = find_thresholds(features, np.arange(100), modality)
    thresholds = found["visible-infrared"]["thresholds"]
    assert set(thresholds.values()) == {1 + EDGE}
