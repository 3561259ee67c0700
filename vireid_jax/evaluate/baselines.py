"""Floors that a trained model must beat, ranked by the very same `evaluate`.

Chance is what no information gives, the colour histogram what raw appearance gives,
the silhouette what shape alone gives (an oracle: it sees the person's exact mask).
The last two read images and masks through `data.source.Records`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from vireid_jax.protocols.protocol import Protocol, Rows
from vireid_jax.protocols.ranking import Metrics
from vireid_jax.protocols.result import Result, evaluate, mean_result

RANDOM_RANKINGS = 10  # averaged for chance: Rank-1 of 2,000 queries is known to 0.05 %
STRIPES = 6
LEVELS = 8  # of each colour channel


def evaluate_baselines(
    protocols: Sequence[Protocol], records: Any, size: tuple[int, int]
) -> list[Result]:
    """Evaluate the three baselines under each protocol (`walkers`: it has silhouettes).

    `records` are `Rows` with images and silhouettes, as `data.source.Records`; `size`
    is the (height, width) at which images are read.
    """
    features = {
        "colour histogram": colour_histogram_features(records, size),
        "silhouette": silhouette_features(records),
    }
    results = []
    for protocol in protocols:
        results.append(chance(protocol, records))
        results += [
            evaluate(protocol, records, rows, feature=name, baseline=True)
            for name, rows in features.items()
        ]
    return results


def chance(protocol: Protocol, records: Rows) -> Result:
    """Return the metrics of a random ranking: a seeded average of 10 rankings.

    Under independent Gaussian features every order of a query's gallery is equally
    likely. An average, since distinct-identity CMC has no simple closed form.
    """
    rankings: list[Metrics] = []
    for seed in range(RANDOM_RANKINGS):
        rng = np.random.default_rng((0, seed))
        noise = rng.standard_normal((len(records.identity), 64), np.float32)
        result = evaluate(protocol, records, noise, feature="chance", baseline=True)
        rankings.extend(result.by_trial)
    return mean_result(result.labels, rankings)


def colour_histogram_features(
    records: Any, size: tuple[int, int]
) -> Float32[np.ndarray, "rows bins"]:
    """Count colours: joint RGB histograms of 6 horizontal stripes, shares of pixels.

    Return `[rows, 6 * 8**3]`; `size` is (height, width). Our choice of bins.
    """
    height, width = size
    stripe = np.repeat(np.arange(height) * STRIPES // height, width)
    features = np.empty((len(records.identity), STRIPES * LEVELS**3), np.float32)
    for row in range(len(features)):
        level = records.image(row, size).reshape(-1, 3) // (256 // LEVELS)
        colour = level.astype(np.int64) @ (LEVELS**2, LEVELS, 1)
        counts = np.bincount(stripe * LEVELS**3 + colour, minlength=features.shape[1])
        features[row] = counts / len(stripe)
    return features


def silhouette_features(records: Any) -> Float32[np.ndarray, "rows pixels"]:
    """Flatten the persons' visible masks of 32 x 16 pixels: `[rows, 512]` in [0, 1]."""
    masks = records.silhouettes()
    return masks.reshape(len(masks), -1).astype(np.float32) / 255
