"""Draws of a few images per identity and camera, as published evaluations make them.

`seeded_draw` is the convention `agw`, named after the code it became common with
(github.com/mangye16/Cross-Modal-Re-ID-baseline): trial t seeds Python's own generator
with t and goes through the identities, for each through its cameras.

`official_draw` is the convention `official` of SYSU-MM01. rand_perm_cam.mat of
wuancong/SYSU-MM01 holds, for each camera and identity, ten permutations of the image
numbers 1..n. Trial r, 1 to 10, takes the first images of row r.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from vireid_jax.protocols.protocol import Indices, Rows
from vireid_jax.run.errors import UserError

AGW_TRIALS = tuple(range(10))  # the seeds

# (camera, identity) -> image numbers from 1; row r - 1 is the order of trial r.
Permutations = Mapping[tuple[int, int], Integer[np.ndarray, "trials _"]]


def by_identity_and_camera(records: Rows, rows: Indices) -> list[Indices]:
    """Group rows by identity, then camera, both ascending; in a group by file name."""
    filename = np.array([records.filename[row] for row in rows])
    identity, camera = records.identity[rows], records.camera[rows]
    order = np.lexsort((filename, camera, identity))
    keys = np.stack([identity, camera])[:, order]
    starts = np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1
    return np.split(rows[order], starts)


def seeded_draw(groups: Sequence[Indices], shots: int, seed: int) -> Indices:
    """Draw `shots` images of each group, or all of a group that has no more.

    One is drawn by `random.choice`, several by `random.sample`. Only the sizes of the
    groups matter to the generator.
    """
    generator = random.Random(seed)
    if shots == 1:
        return np.array([generator.choice(group) for group in groups])
    draw = lambda group: generator.sample(group.tolist(), min(shots, len(group)))
    return np.concatenate([draw(group) for group in groups])


def official_draw(
    permutations: Permutations,
    records: Rows,
    groups: Sequence[Indices],
    shots: int,
    trial: int,
) -> Indices:
    """Take the first `shots` images of row `trial` of each permutation, by camera.

    `groups` are those of `by_identity_and_camera`: file names are in the order of the
    image numbers. Raise UserError where the permutations are of another release.
    """
    drawn = []
    by_key = {(records.camera[g[0]], records.identity[g[0]]): g for g in groups}
    for (camera, identity), group in sorted(by_key.items()):
        order = permutations.get((camera, identity), np.empty((10, 0), int))
        # int64: the file's uint8 would wrap below.
        numbers = order[trial - 1, :shots].astype(np.int64)
        if not len(numbers) or numbers.min() < 1 or numbers.max() > len(group):
            raise UserError(
                f"rand_perm_cam.mat has {order.shape[1]} images of identity {identity}"
                f" in camera {camera}, this split has {len(group)}: the file belongs to"
                " the complete SYSU-MM01. Use the protocol without /official"
            )
        drawn.append(group[numbers - 1])
    return np.concatenate(drawn)


def read_permutations(path: str | Path | None) -> Permutations:
    """Read rand_perm_cam.mat: a cell per camera, in it one `[10, images]` per identity.

    Raise UserError where it is missing, damaged or another file.
    """
    from scipy.io import loadmat

    source = "take rand_perm_cam.mat from github.com/wuancong/SYSU-MM01"
    if path is None or not Path(path).is_file():
        raise UserError(
            f"permutations: {path} is no file, and protocols named .../official need"
            f" one: {source} and give its path (--permutations)"
        )
    try:
        cameras = loadmat(path)["rand_perm_cam"].ravel()
        cells = {
            (camera, identity): np.asarray(order)
            for camera, identities in enumerate(cameras, 1)
            for identity, order in enumerate(identities.ravel(), 1)
            if np.size(order)
        }
        for (camera, identity), order in cells.items():
            if order.ndim != 2 or len(order) != 10 or order.dtype.kind not in "iu":
                raise ValueError(
                    f"camera {camera}, identity {identity} has {order.dtype} of shape"
                    f" {order.shape}, not whole numbers [10, images]"
                )
    except Exception as error:  # of a damaged file scipy raises almost anything
        raise UserError(f"{path} is damaged ({error}); {source}") from error
    return cells
