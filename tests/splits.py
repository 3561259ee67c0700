"""Splits as a protocol sees them: file names, identities, cameras, modalities."""

import json
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
DRAWS = json.loads((GOLDEN / "gallery_draws.json").read_text())
OFFICIAL = np.load(GOLDEN / "sysu_official_perm_test.npz")
SYSU = [
    ("sysu_mm01/all/single", 301),
    ("sysu_mm01/all/multi", 3010),
    ("sysu_mm01/indoor/single", 112),
    ("sysu_mm01/indoor/multi", 1120),
]


def rows_of(files, modality):
    """Rows of a split, sorted by file name; `modality` reads it from the name."""
    files = sorted(files)
    places = [re.search(r"cam(\d)/(\d+)/", name).groups() for name in files]
    camera, identity = np.array(places, np.int32).T.copy()
    return SimpleNamespace(
        filename=files,
        identity=identity,
        camera=camera,
        modality=np.array([modality(name) for name in files], np.int32),
    )


def sysu_modality(filename):
    return int(filename[3] in "36")


@cache
def fake_tree(dataset):
    tree = json.loads((GOLDEN / "fake_tree.json").read_text())
    root, ids, modality = {
        "sysu_mm01": ("SYSU-MM01/", "SYSU-MM01/exp/", sysu_modality),
        "llcm": ("LLCM/test_", "LLCM/idx/", lambda name: int("_nir" in name)),
    }[dataset]
    images = [n for n in tree["files"] if n.startswith(root) and n.endswith(".jpg")]
    test_ids = tree["text"][ids + "test_id.txt"].split(",")
    test_ids = [f"/{int(one):04}/" for one in test_ids]
    images = [name for name in images if any(one in name for one in test_ids)]
    return rows_of([name.partition("/")[2] for name in images], modality)


def sysu_of(counts):
    """A split with n images of each (camera, identity)."""
    return rows_of(
        [
            f"cam{camera}/{identity:04}/{image:04}.jpg"
            for camera, identity, n in counts
            for image in range(1, n + 1)
        ],
        sysu_modality,
    )


@cache
def real_size():
    """SYSU-MM01's test split, as far as a protocol sees it."""
    return sysu_of([*OFFICIAL["gallery_cam_id_count"], *OFFICIAL["query_cam_id_count"]])


def regdb(identities=206, images=10):
    names = [
        f"{folder}/{identity}/{image}.bmp"
        for folder in ("Thermal", "Visible")
        for identity in range(identities)
        for image in range(images)
    ]
    names.sort()
    modality = np.array([name.startswith("Thermal") for name in names], np.int32)
    return SimpleNamespace(
        filename=names,
        identity=np.array([int(name.split("/")[1]) for name in names], np.int32),
        camera=modality + 1,
        modality=modality,
    )


def files(rows, chosen):
    return [rows.filename[row] for row in chosen]


def embed(rows, seed=0, noise=1.0):
    """One direction per identity, and noise."""
    rng = np.random.default_rng(seed)
    _, label = np.unique(rows.identity, return_inverse=True)
    centres = rng.standard_normal((label.max() + 1, 16))
    return centres[label] + noise * rng.standard_normal((len(label), 16))
