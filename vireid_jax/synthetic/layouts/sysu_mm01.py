"""The tree of SYSU-MM01: six cameras, lists of identities, permutations for draws."""

from pathlib import Path

import numpy as np
from numpy.random import Generator

from vireid_jax.synthetic.layouts.tree import Tree, choose, comma_line, deal
from vireid_jax.synthetic.plan import CAMERAS, Spec

FULL = 491  # identities: 296 train, 99 val, 96 test
LEAST = 4  # one train, one val, two test
_FIRST_PERSON = 1_000_000  # so that nobody is of another set as well
_CELLS = (333, 333, 533, 533, 533, 333)  # numbers of identities in each camera's list
# Images of train + val in cameras 1 to 6: those of all identities less those of test.
_TRAIN_IMAGES = (4915, 5963, 7929, 6112, 6306, 4060)
_MODALITY = {c: modality for modality, cs in CAMERAS["nir"].items() for c in cs}
# How many images each test identity has in cameras 1 to 6. The public permutations of
# the official draws (rand_perm_cam.mat) hold these counts; with them the synthetic tree
# has the galleries of the real one, draw by draw.
_TEST_COUNTS = Path(__file__).with_name("sysu_test_counts.tsv")

Split = dict[str, list[int]]  # the identities of train, val and test
Counts = dict[int, tuple[int, ...]]  # by identity, its images in cameras 1 to 6


def tree(ids: int, rng: Generator, max_images: int | None = None) -> Tree:
    """Plan a tree of `ids` identities; each has its images of the full tree."""
    split, counts = _population(rng)
    if ids < FULL:
        split = _sample(split, counts, ids, rng)
    out = Tree(suffix=".jpg")
    shots: dict[tuple[int, int], int] = {}
    available = sorted(identity for members in split.values() for identity in members)
    for identity in available:
        for camera, count in enumerate(counts[identity], 1):
            count = min(count, max_images or count)
            shots[camera, identity] = count
            for number in range(1, count + 1):
                out.images[f"cam{camera}/{identity:04d}/{number:04d}.jpg"] = Spec(
                    "nir", _FIRST_PERSON + identity, camera, _MODALITY[camera], number
                )
    for name, members in split.items():
        out.texts[f"exp/{name}_id.txt"] = comma_line(members)
    out.texts["exp/available_id.txt"] = comma_line(available)
    out.matrices["exp/rand_perm_cam.mat"] = {"rand_perm_cam": _permutations(shots, rng)}
    return out


def _population(rng: Generator) -> tuple[Split, Counts]:
    """Plan all identities: those of each split, and the images of each in each camera.

    The test identities are the release's own. The others have its totals: identities up
    to 333 are in all cameras, the later ones in 3, 4 and 5; some miss one of 4 and 5.
    """
    test = {i: tuple(n) for i, *n in np.loadtxt(_TEST_COUNTS, int).tolist()}
    early = choose([i for i in range(1, 334) if i not in test], 203, rng)
    late = [*choose(list(range(334, 533)), 191, rng), 533]
    everybody = early + late
    members = {c: early if c in (1, 2, 6) else everybody for c in range(1, 7)}
    # The outdoor cameras miss about a fifth each, but nobody is missed by both.
    missed = rng.permutation(everybody)
    for camera, part in ((4, missed[:88]), (5, missed[88:168])):
        members[camera] = sorted({*everybody} - {*part.tolist()})
    totals = zip(_TRAIN_IMAGES, members.items(), strict=True)
    images = {c: deal(total, who, rng, spread=0.05) for total, (c, who) in totals}
    counts = {i: tuple(images[c].get(i, 0) for c in range(1, 7)) for i in everybody}
    val = choose(everybody, 99, rng)
    train = [identity for identity in everybody if identity not in val]
    return {"train": train, "val": val, "test": list(test)}, counts | test


def _sample(split: Split, counts: Counts, ids: int, rng: Generator) -> Split:
    """Keep `ids` identities, a fifth in test; of these one in all cameras, one not."""
    everywhere = [i for i in split["test"] if all(counts[i])]
    elsewhere = [i for i in split["test"] if not all(counts[i])]
    test = max(2, round(ids * len(split["test"]) / FULL))
    first = [*choose(everywhere, 1, rng), *choose(elsewhere, 1, rng)]
    others = [identity for identity in split["test"] if identity not in first]
    val = max(1, round(ids * len(split["val"]) / FULL))
    return {
        "train": choose(split["train"], ids - test - val, rng),
        "val": choose(split["val"], val, rng),
        "test": sorted(first + choose(others, test - 2, rng)),
    }


def _permutations(shots: dict[tuple[int, int], int], rng: Generator) -> np.ndarray:
    """Draw the official evaluation's cell: camera, identity, ten orders of images."""
    cameras = np.empty((len(_CELLS), 1), object)
    for camera, length in enumerate(_CELLS, 1):
        people = np.empty((length, 1), object)
        for identity in range(1, length + 1):
            numbers = np.arange(1, shots.get((camera, identity), 0) + 1, dtype=np.uint8)
            orders = [rng.permutation(numbers) for _ in range(10)]
            people[identity - 1, 0] = np.array(orders, np.uint8).reshape(10, -1)
        cameras[camera - 1, 0] = people
    return cameras
