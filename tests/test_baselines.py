from dataclasses import replace
from math import comb

import numpy as np
import pytest

from vireid_jax.evaluate import baselines
from vireid_jax.protocols import get_protocols


class Split:
    """A split whose images and silhouettes are given as arrays."""

    def __init__(self, identity, modality, images=None, masks=None):
        self.identity = np.asarray(identity, np.int32)
        self.modality = np.asarray(modality, np.int32)
        self.camera = self.modality
        self.filename = [f"{row}.png" for row in range(len(self.identity))]
        self.images, self.masks = images, masks

    def image(self, row, size):
        assert self.images[row].shape[:2] == size
        return self.images[row]

    def silhouettes(self):
        return self.masks


def expected_of_random_order(kept, hits):
    """Rank-1, Rank-5, AP and INP of a uniformly random order, in closed form."""
    harmonic = sum(1 / i for i in range(1, kept + 1))
    ap = (harmonic + (hits - 1) / (kept - 1) * (kept - harmonic)) / kept
    places = range(hits, kept + 1)
    inp = sum(hits / i * comb(i - 1, hits - 1) for i in places) / comb(kept, hits)
    return hits / kept, 1 - comb(kept - hits, 5) / comb(kept, 5), ap, inp


def test_chance_is_the_expectation_of_a_random_order():
    ids, shots = 40, 5
    split = Split(np.repeat(np.arange(ids), 2 * shots), np.arange(2 * ids * shots) % 2)
    for protocol in get_protocols("walkers"):
        result = baselines.chance(protocol, split)
        head = result.headline()
        metrics = [head[name] for name in ("Rank-1", "Rank-5", "mAP", "mINP")]
        # 2,000 rankings; tolerances are four standard errors of independent ones.
        tolerance = 4 / np.sqrt(2000) * np.array([0.156, 0.32, 0.035, 0.01])
        difference = np.subtract(metrics, expected_of_random_order(ids * shots, shots))
        assert np.all(np.abs(difference) < tolerance), difference
        assert result.labels.feature == "chance"
        assert result.labels.baseline
        assert result.labels.trials == (0,)
        assert result.mAP == baselines.chance(protocol, split).mAP


def test_colour_histogram_counts_colours_by_stripe():
    image = np.zeros((12, 4, 3), np.uint8)
    image[:2] = 255, 0, 0  # the first of six stripes
    image[2:4, :2] = 31, 32, 64
    split = Split([0], [0], images=[image])
    counts = baselines.colour_histogram_features(split, (12, 4)).reshape(6, 8, 8, 8)
    assert counts.sum() == pytest.approx(1)
    np.testing.assert_allclose(counts.sum((1, 2, 3)), 1 / 6)
    assert counts[0, 7, 0, 0] == pytest.approx(1 / 6)
    assert counts[1, 0, 1, 2] == pytest.approx(1 / 12)
    assert counts[1, 0, 0, 0] == pytest.approx(1 / 12)


def test_stripes_cover_heights_that_six_does_not_divide():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 8, 3)).astype(np.uint8)
    features = baselines.colour_histogram_features(
        Split([0, 1], [0, 1], images=images), (16, 8)
    )
    stripes = features.reshape(2, 6, -1).sum(axis=2)
    np.testing.assert_allclose(stripes, np.tile([3, 3, 2, 3, 3, 2], (2, 1)) / 16)


def test_baselines_find_what_they_look_at_and_nothing_else():
    """Colour separates the first half of the identities, the silhouette the second."""
    rng = np.random.default_rng(5)
    ids = np.repeat(np.arange(8), 2)
    colour = rng.integers(0, 256, (8, 3)) * (np.arange(8) < 4)[:, None]
    images = np.broadcast_to(
        colour[ids][:, None, None].astype(np.uint8), (16, 12, 6, 3)
    )
    shape = rng.integers(0, 2, (8, 32, 16)) * (np.arange(8) >= 4)[:, None, None]
    split = Split(ids, np.arange(16) % 2, images, (255 * shape[ids]).astype(np.uint8))
    protocols = get_protocols("walkers/thermal")
    results = baselines.evaluate_baselines(protocols, split, (12, 6))
    names = ["chance", "colour histogram", "silhouette"]
    assert [r.labels.feature for r in results] == names * 2
    assert [r.labels.direction for r in results][::3] == [
        protocol.direction for protocol in protocols
    ]
    for _, by_colour, by_shape in (results[:3], results[3:]):
        assert np.all(by_colour.by_trial[0].first_hit[:4] == 1)
        assert by_colour.by_trial[0].ap[4:].mean() < 1
        assert np.all(by_shape.by_trial[0].first_hit[4:] == 1)
        assert by_shape.by_trial[0].ap[:4].mean() < 1
        assert by_shape.labels.epoch is None


def test_silhouettes_are_scaled_and_flattened():
    masks = np.zeros((3, 32, 16), np.uint8)
    masks[1, 0, 1] = 255
    split = Split([0, 1, 2], [0, 1, 0], masks=masks)
    features = baselines.silhouette_features(split)
    assert features.shape == (3, 512)
    assert features.dtype == np.float32
    assert features[1, 1] == features.sum() == 1


def test_chance_knows_distinct_identities_and_trials():
    """With one item per identity, rank over identities is rank over items."""
    split = Split(np.repeat(np.arange(30), 2), np.arange(60) % 2)
    protocol = replace(get_protocols("walkers")[0], distinct=True, trials=(0, 1))
    result = baselines.chance(protocol, split)
    assert len(result.by_trial) == 2 * baselines.RANDOM_RANKINGS
    assert result.cmc[14] == pytest.approx(0.5, abs=0.1)
