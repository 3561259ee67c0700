"""Runs that a report can show: embedded splits and what a checkpoint stores."""

import contextlib
import json
from types import SimpleNamespace

import numpy as np
from splits import regdb, sysu_of

from vireid_jax.config import default_config
from vireid_jax.protocols import evaluate, get_protocols
from vireid_jax.report.collect import EmbeddedSplit, EvaluatedRun
from vireid_jax.report.rank_lists import rank_lists
from vireid_jax.run.errors import UserError

# What a complete page draws, and on how many axes.
FIGURES = {"training": 6, "cmc": 2, "distances": 3, "maps": 2}
FIGURES |= {"ranks-1": 0, "ranks-2": 0, "activations": 0, "cameras": 0}
ROWS = regdb(identities=15, images=3)
SYSU = sysu_of([(c, i, 3) for c in range(1, 7) for i in range(1, 13)])


def image_of(row, size):
    """Return an image of noise that depends on the row alone."""
    return np.random.default_rng(row).integers(0, 256, (*size, 3), np.uint8)


def split_of(rows=ROWS, dataset="regdb/trial_1", noise=0.5, seed=0, image=image_of):
    """Return an embedded split: the features of an identity lie around its axis."""
    rng = np.random.default_rng(seed)
    classes = np.unique(rows.identity, return_inverse=True)[1]
    features = np.eye(classes.max() + 1)[classes]
    features = features + noise * rng.standard_normal(features.shape)
    protocols = get_protocols(dataset)
    labels = {"feature": "all", "flip": True, "epoch": 2.0, "selection": "last"}
    rows = SimpleNamespace(**vars(rows), image=image)
    features = features.astype(np.float32)
    results = [evaluate(p, rows, features, **labels) for p in protocols]
    return EmbeddedSplit(rows, features, protocols, results)


def about_of(**changed):
    """Describe a run as a checkpoint does."""
    config = default_config()
    config.data.name, config.schedule.epochs = "regdb", 2.0
    return {
        "config": json.loads(config.to_json_best_effort()),
        "num_classes": 10,
        "step": 20,
        "epoch": 2.0,
        "data": {"title": "regdb/trial_1:train", "fingerprint": "0" * 64},
        "environment": {
            "python": "3.11",
            "processor": "one <of> many",
            "machine": "x86_64",
            "devices": ["cpu"],
            "commit": "abc",
            "packages": {"vireid-jax": "0.1.0", "jax": "0.10.2"},
        },
    } | changed


def metrics_of():
    """Return rows as training logs them."""
    common = {"kind": "train", "learning_rate": 0.1, "gradient_norm": 2.0, "seconds": 3}
    common["images_per_second"] = 40.0
    rows = [
        {"step": s, "epoch": s / 10, "loss": 9 / s, "accuracy": s / 20, **common}
        for s in (5, 10, 15, 20)
    ]
    for epoch in (1.0, 2.0):
        row = {"kind": "validation", "epoch": epoch, "validation_mAP": epoch / 4}
        rows.append({"step": 10 * epoch, **row})
    return rows


def run_of(name="runs/one", test=None, **changed):
    """Return a run as `collect.read_run` does, without a network behind it."""
    test = test or split_of()
    tile = {"title": "whole", "source": "data:,", "share": 1.0}
    with contextlib.suppress(UserError):
        lists = rank_lists(test, test.protocols[0], test.results[0], (64, 32))
        tile["source"] = lists[0].query.source
    person = {"identity": 3, "camera": 1, "modality": "visible", "tiles": [tile]}
    fields = {
        "about": about_of(),
        "results": [result.to_json() for result in test.results],
        "metrics": metrics_of(),
        "costs": {"Steps": "20"},
        "activations": [person],
    }
    return EvaluatedRun(name=name, test=test, **{**fields, **changed})
