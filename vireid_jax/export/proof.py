"""Proof that exported files do what the checkpoint does in JAX: `proof.json`."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from vireid_jax.data.source import Records, load_records
from vireid_jax.embed.embedder import Embedder
from vireid_jax.evaluate.test_split import dataset_title, open_split
from vireid_jax.export.runtimes import Target
from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import Protocol, cosine_distances, evaluate, get_protocols
from vireid_jax.run.cpu import cores
from vireid_jax.run.environment import environment, version
from vireid_jax.run.errors import UserError

LIMIT = 1e-4  # on features in float32
COMPARED = 64  # images a modality
LATENCIES = (1, 8)  # images at once
_REPEATS = 30
_METRICS = ("Rank-1", "mAP")
# Of a checkpoint that was trained on something else: 100 people that nobody has seen.
OTHERS = {"variant": "nir", "train_ids": 1, "test_ids": 100}
_PACKAGES = ("onnx", "onnxruntime", "openvino", "flatbuffers", "safetensors")


class Trial(NamedTuple):
    """The images that the proof is made on; no protocols where one stream is all."""

    records: Records
    protocols: Sequence[Protocol]
    own: bool  # the checkpoint's own test split


def open_trial(config: ConfigDict, modalities: tuple[str, ...]) -> Trial:
    """Opens the test split of `walkers`: the run's own, else `OTHERS`."""
    own = config.data.name == "walkers"
    title = dataset_title(config) if own else f"walkers/{OTHERS['variant']}"
    records = (
        open_split(config, "test")
        if own
        else load_records(
            "walkers", "test", config=OTHERS, data_dir=config.data.dir or None
        )
    )
    both = set(modalities) == set(MODALITIES)
    return Trial(records, get_protocols(title) if both else (), own)


def prove(
    embedder: Embedder,
    targets: Sequence[Target],
    trial: Trial,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Compares files with their checkpoint; returns what `proof.json` holds.

    `tell` is told what is being done. Raises UserError where features of a float32
    file differ by more than `LIMIT`.
    """
    tell("embedding with JAX")
    images = {m: _some(trial.records, m, embedder.size) for m in embedder.modalities}
    expected = {m: embedder.embed(x, m) for m, x in images.items()}
    differences = []
    for target in targets:  # what is wrong is said before anything takes long
        tell(f"comparing {target}")
        off = [np.abs(target.embed(images[m], m) - expected[m]) for m in images]
        differences.append(float(np.concatenate(off).max()))  # NaN, if any is
        if target.precision == "float32" and not differences[-1] <= LIMIT:
            raise UserError(
                f"features of the exported files ({target}) differ from those of the"
                f" checkpoint by {differences[-1]:.2g}, {LIMIT:g} is allowed; nothing"
                " was written. Please report this with the checkpoint's config.json"
            )
    reference = embedder.embed_records(trial.records) if trial.protocols else None
    runs = []
    for target, difference in zip(targets, differences, strict=True):
        run = {
            "runtime": target.runtime,
            "precision": target.precision,
            "largest_difference": difference,
        }
        if reference is not None:
            tell(f"embedding walkers with {target}")
            features = embed_split(target, trial.records, embedder.size)
            run["walkers"] = _compare(trial, reference, features)
        tell(f"timing {target}")
        run["latency_ms"] = latencies(target, images)
        runs.append(run)
    return {
        "limit": LIMIT,
        "images": {m: len(x) for m, x in images.items()},
        "walkers": trial.records.title,
        "trained_on_walkers": trial.own,
        "runs": runs,
        "latency_of": list(next(iter(targets[0].runs))),
        "threads": cores(),
        "environment": _environment(),
    }


def _some(records: Records, modality: str, size: tuple[int, int]) -> np.ndarray:
    """Takes images of a modality from all over a split."""
    rows = np.flatnonzero(records.modality == MODALITIES.index(modality))
    spread = np.linspace(0, len(rows) - 1, min(COMPARED, len(rows))).round().astype(int)
    return records.images(rows[spread], size)


def embed_split(
    target: Target, records: Records, size: tuple[int, int]
) -> Float[np.ndarray, "rows dim"]:
    """Embeds every row of a split, in its order."""
    found = [np.zeros(0)] * len(records)
    for index, modality in enumerate(MODALITIES):
        rows = np.flatnonzero(records.modality == index)
        for start in range(0, len(rows), target.at_once):
            some = rows[start : start + target.at_once]
            features = target.embed(records.images(some, size), modality)
            for row, feature in zip(some, features, strict=True):
                found[row] = feature
    return np.stack(found)


def _compare(
    trial: Trial, reference: np.ndarray, features: np.ndarray
) -> dict[str, Any]:
    """Ranks by both; the metrics are fractions."""
    found = {}
    for protocol in trial.protocols:
        told = {}
        for name, given in {"jax": reference, "exported": features}.items():
            metrics = evaluate(protocol, trial.records, given).headline()
            told[name] = {metric: metrics[metric] for metric in _METRICS}
        told["rank_1_lost"] = told["jax"]["Rank-1"] - told["exported"]["Rank-1"]
        query = protocol.queries(trial.records, 0)
        gallery = protocol.gallery(trial.records, 0)
        told["rank_lists"] = compare_lists(
            cosine_distances(reference[query], reference[gallery]),
            cosine_distances(features[query], features[gallery]),
        )
        found[protocol.direction] = told
    return found


def compare_lists(
    reference: Float[np.ndarray, "queries gallery"],
    other: Float[np.ndarray, "queries gallery"],
) -> dict[str, float]:
    """Tells of how many queries the rank lists are the same by two distances.

    `largest_swap` is how far apart, by the reference, two gallery images are at most
    that changed places: where lists differ by rounding alone, no more than that.
    """
    order = np.argsort(other, axis=1, kind="stable")
    same = order == np.argsort(reference, axis=1, kind="stable")
    walked = np.take_along_axis(reference, order, 1)
    drops = np.maximum.accumulate(walked, axis=1) - walked
    return {
        "queries": len(reference),
        "identical": int(same.all(1).sum()),
        "identical_top_10": int(same[:, :10].all(1).sum()),
        "largest_swap": float(drops.max()),
    }


def latencies(target: Target, images: dict[str, np.ndarray]) -> dict[str, float]:
    """Takes the median time of a run, in ms, by the number of images at once.

    Of files a modality, the first; one of both streams gets as many images of each.
    """
    group, run = next(iter(target.runs.items()))
    found = {}
    for count in LATENCIES:
        given = [np.resize(images[m], (count, *images[m].shape[1:])) for m in group]
        seconds = []
        for _ in range(3 + _REPEATS):
            start = time.perf_counter()
            run(given)
            seconds.append(time.perf_counter() - start)
        found[str(count)] = 1e3 * float(np.median(seconds[3:]))
    return found


def _environment() -> dict[str, Any]:
    found = environment()
    found["packages"] |= {name: version(name) for name in _PACKAGES}
    return found
