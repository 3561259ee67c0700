"""Proof that exported files compute what the checkpoint does in JAX: `proof.json`."""

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
from vireid_jax.run.environment import cores, environment, version
from vireid_jax.run.errors import UserError

LIMIT = 1e-4  # of the difference of features in float32
COMPARED = 64  # images per modality
LATENCIES = (1, 8)  # images at once
_WARM_UP, _REPEATS = 3, 30
# Test data for a checkpoint that was trained on anything else: 100 unseen identities.
OTHERS = {"variant": "nir", "train_ids": 1, "test_ids": 100}
_PACKAGES = ("onnx", "onnxruntime", "openvino", "flatbuffers", "safetensors")


class Trial(NamedTuple):
    """The images of a proof; `protocols` is empty if the network has one stream."""

    records: Records
    protocols: Sequence[Protocol]
    own: bool  # the checkpoint's own test split


def open_trial(config: ConfigDict, modalities: tuple[str, ...]) -> Trial:
    """Open the test split of `walkers`: the run's own, else `OTHERS`."""
    own = config.data.name == "walkers"
    if own:
        title, records = dataset_title(config), open_split(config, "test")
    else:
        title, folder = f"walkers/{OTHERS['variant']}", config.data.dir or None
        records = load_records("walkers", "test", config=OTHERS, data_dir=folder)
    both = set(modalities) == set(MODALITIES)
    return Trial(records, get_protocols(title) if both else (), own)


def prove(
    embedder: Embedder,
    targets: Sequence[Target],
    trial: Trial,
    show_status: Callable[[str], None],
) -> dict[str, Any]:
    """Compare files with their checkpoint; return the content of `proof.json`.

    Raise UserError if features of a float32 file differ by more than `LIMIT`.
    """
    show_status("embedding with JAX")
    images = {m: _spread(trial.records, m, embedder.size) for m in embedder.modalities}
    expected = {m: embedder.embed(x, m) for m, x in images.items()}
    runs = []
    for target in targets:  # an error comes before anything that takes long
        show_status(f"comparing {target}")
        errors = [np.abs(target.embed(images[m], m) - expected[m]) for m in images]
        difference = float(np.concatenate(errors).max())  # NaN, if any is
        if target.precision == "float32" and not difference <= LIMIT:
            raise UserError(
                f"features of the exported files ({target}) differ from those of the"
                f" checkpoint by {difference:.2g}, {LIMIT:g} is allowed; nothing was"
                " written. Please report this with the checkpoint's config.json"
            )
        run: dict[str, Any] = {"runtime": target.runtime, "precision": target.precision}
        runs.append(run | {"largest_difference": difference})
    reference = embedder.embed_records(trial.records) if trial.protocols else None
    for target, run in zip(targets, runs, strict=True):
        if reference is not None:
            show_status(f"embedding walkers with {target}")
            features = np.zeros_like(reference)
            for index, modality in enumerate(MODALITIES):
                rows = np.flatnonzero(trial.records.modality == index)
                for start in range(0, len(rows), target.at_once):
                    batch = rows[start : start + target.at_once]
                    pixels = trial.records.images(batch, embedder.size)
                    features[batch] = target.embed(pixels, modality)
            run["walkers"] = _compare(trial, reference, features)
        show_status(f"timing {target}")
        run["latency_ms"] = _latencies(target, images)
    about = environment()
    about["packages"] |= {name: version(name) for name in _PACKAGES}
    return {
        "limit": LIMIT,
        "images": {m: len(x) for m, x in images.items()},
        "walkers": trial.records.title,
        "trained_on_walkers": trial.own,
        "runs": runs,
        "latency_of": list(next(iter(targets[0].runs))),
        "threads": cores(),
        "environment": about,
    }


def _spread(records: Records, modality: str, size: tuple[int, int]) -> np.ndarray:
    """Return images of a modality, evenly spread over a split."""
    rows = np.flatnonzero(records.modality == MODALITIES.index(modality))
    spread = np.linspace(0, len(rows) - 1, min(COMPARED, len(rows))).round().astype(int)
    return records.images(rows[spread], size)


def _compare(
    trial: Trial, reference: np.ndarray, features: np.ndarray
) -> dict[str, Any]:
    """Rank by both; metrics are fractions."""
    by_direction = {}
    for protocol in trial.protocols:
        query = protocol.queries(trial.records, 0)
        gallery = protocol.gallery(trial.records, 0)
        row: dict[str, Any] = {}
        distances = []
        for name, embeddings in {"jax": reference, "exported": features}.items():
            metrics = evaluate(protocol, trial.records, embeddings).headline()
            row[name] = {metric: metrics[metric] for metric in ("Rank-1", "mAP")}
            distances.append(cosine_distances(embeddings[query], embeddings[gallery]))
        row["rank_1_lost"] = row["jax"]["Rank-1"] - row["exported"]["Rank-1"]
        row["rank_lists"] = compare_lists(*distances)
        by_direction[protocol.direction] = row
    return by_direction


def compare_lists(
    reference: Float[np.ndarray, "queries gallery"],
    other: Float[np.ndarray, "queries gallery"],
) -> dict[str, float]:
    """Count the queries whose rank lists are the same by two distances.

    `largest_swap` is the largest difference, by the reference, of two gallery images
    whose order changed: where lists differ by rounding alone, no more than that.
    """
    order = np.argsort(other, axis=1, kind="stable")
    same = order == np.argsort(reference, axis=1, kind="stable")
    reordered = np.take_along_axis(reference, order, 1)
    drops = np.maximum.accumulate(reordered, axis=1) - reordered
    return {
        "queries": len(reference),
        "identical": int(same.all(1).sum()),
        "identical_top_10": int(same[:, :10].all(1).sum()),
        "largest_swap": float(drops.max()),
    }


def _latencies(target: Target, images: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the first file's median ms, by the number of images of each modality."""
    group, run = next(iter(target.runs.items()))
    medians = {}
    for count in LATENCIES:
        inputs = [np.resize(images[m], (count, *images[m].shape[1:])) for m in group]
        seconds = []
        for _ in range(_WARM_UP + _REPEATS):
            start = time.perf_counter()
            run(inputs)
            seconds.append(time.perf_counter() - start)
        medians[str(count)] = 1e3 * float(np.median(seconds[_WARM_UP:]))
    return medians
