"""Time the ranking against a plain loop with one argsort per query.

    python -m benchmarks.ranking          # two cases, seconds; --small: the first
    python -m benchmarks.ranking --large  # 10,000 x 100,000, with memory, minutes

Prints JSON: seconds (the best of three runs for the small cases), the ratio of loop to
ours, and the largest difference of any metric. The first case ranks given distances,
ten trials of the size of SYSU-MM01's single-shot all-search; in the others both sides
compute them from features in the measured time. In the large case the loop computes
them query by query, and its time is that of a sample, scaled.
"""

import argparse
import json
import resource
import time

import numpy as np

from vireid_jax.protocols import cosine_distances, cosine_rows, rank


def rank_by_argsort(distances, query_ids, gallery_ids, distinct, ignore):
    """Return Rank-1, Rank-10, mAP and mINP from one stable argsort per query."""
    first_hits, aps, inps = [], [], []
    for row, identity in enumerate(query_ids):
        order = np.argsort(distances[row], kind="stable")
        if ignore is not None:
            order = order[~ignore[row, order]]
        ids = gallery_ids[order]
        hits = np.flatnonzero(ids == identity) + 1
        if len(hits):
            met = len(np.unique(ids[: hits[0]])) if distinct else hits[0]
            first_hits.append(met)
            aps.append(np.mean(np.arange(1, len(hits) + 1) / hits))
            inps.append(len(hits) / hits[-1])
    first_hits = np.array(first_hits)
    cmc = [np.mean(first_hits <= k) for k in (1, 10)]
    return np.array([*cmc, np.mean(aps), np.mean(inps)])


def rank_by_us(*args, **kwargs):
    metrics = rank(*args, **kwargs)
    return np.array([metrics.cmc[0], metrics.cmc[9], metrics.mAP, metrics.mINP])


def best_of_three(run):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def compare(ours, loop, tolerance=1e-12):
    seconds, found = best_of_three(ours)
    loop_seconds, expected = best_of_three(loop)
    difference = float(np.abs(found - expected).max())
    if difference > tolerance:
        raise RuntimeError(f"the metrics differ by {difference}: {found}, {expected}")
    return {
        "seconds": round(seconds, 3),
        "loop_seconds": round(loop_seconds, 3),
        "ratio": round(loop_seconds / seconds, 2),
        "largest_difference": difference,
    }


def ten_trials_of_sysu_size():
    rng = np.random.default_rng(0)
    query_ids, gallery_ids = rng.integers(0, 96, 3803), rng.integers(0, 96, 301)
    trials = rng.random((10, 3803, 301), np.float32)
    query_in_3, gallery_in_2 = rng.random(3803) < 0.5, rng.random(301) < 0.19
    ignore = query_in_3[:, None] & gallery_in_2
    rest = {"distinct": True, "ignore": ignore}
    return compare(
        lambda: np.stack(
            [rank_by_us(d, query_ids, gallery_ids, **rest) for d in trials]
        ),
        lambda: np.stack(
            [rank_by_argsort(d, query_ids, gallery_ids, **rest) for d in trials]
        ),
    )


def features_of(queries, gallery, ids, dim):
    """Return noisy features around one centre per identity, and the identities."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((ids, dim), np.float32)
    both = [rng.integers(0, ids, queries), rng.integers(0, ids, gallery)]
    features = []
    for who in both:
        noise = rng.standard_normal((len(who), dim), np.float32)
        features.append(centres[who] + 2 * noise)
    return features, *both


def from_features():
    features, *ids = features_of(2000, 20_000, ids=2000, dim=512)
    return compare(
        lambda: rank_by_us(cosine_rows(*features), *ids, distinct=False),
        lambda: rank_by_argsort(cosine_distances(*features), *ids, False, None),
        tolerance=1e-5,  # a matrix product in other blocks may round differently
    )


def large(sampled=200):
    """Rank 10,000 x 100,000, 1,000 positives per query; the loop ranks a sample."""
    features, *ids = features_of(10_000, 100_000, ids=100, dim=512)
    start = time.perf_counter()
    metrics = rank(cosine_rows(*features), *ids, distinct=False)
    seconds = time.perf_counter() - start
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in features]
    start = time.perf_counter()
    expected = [
        # One query at a time, since all distances together would take 4 GB.
        rank_by_argsort(
            1 - query[None] @ unit[1].T, identity[None], ids[1], False, None
        )
        for query, identity in zip(unit[0][:sampled], ids[0], strict=False)
    ]
    loop_seconds = (time.perf_counter() - start) * 10_000 / sampled
    found = np.stack([metrics.ap, metrics.inp])[:, :sampled]
    difference = float(np.abs(found - np.array(expected).T[2:]).max())
    if difference > 1e-4:  # sums of 512 products round differently
        raise RuntimeError(f"an AP or INP differs by {difference}")
    return {
        "seconds": round(seconds, 1),
        "loop_seconds": round(loop_seconds, 1),
        "loop_timed_on_queries": sampled,
        "ratio": round(loop_seconds / seconds, 2),
        "largest_difference": difference,
        "peak_memory_gib": round(kib / 2**20, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="10,000 x 100,000 alone")
    parser.add_argument("--small", action="store_true", help="the first case alone")
    arguments = parser.parse_args()
    if arguments.large:
        report = {"10000x100000_from_512_features": large()}
    else:
        report = {"10_trials_of_3803x301": ten_trials_of_sysu_size()}
        if not arguments.small:
            report["2000x20000_from_512_features"] = from_features()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
