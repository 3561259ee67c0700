"""Draws of a few images per identity and camera, as published evaluations make them.

`seeded_draw` is the convention called `agw`, after the code it became common with
(github.com/mangye16/Cross-Modal-Re-ID-baseline): trial t seeds Python's own generator
with t and goes through the identities, for each through its cameras.
"""

import random
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vireid_jax.protocols.protocol import Rows

AGW_TRIALS = tuple(range(10))  # the seeds


def by_identity_and_camera(
    records: Rows, rows: Int[np.ndarray, "chosen"]
) -> list[Int[np.ndarray, "_"]]:
    """Group rows by identity, then camera, both ascending; in a group by file name."""
    filename = np.array([records.filename[row] for row in rows])
    identity, camera = records.identity[rows], records.camera[rows]
    order = np.lexsort((filename, camera, identity))
    places = np.stack([identity, camera])[:, order]
    starts = np.flatnonzero((places[:, 1:] != places[:, :-1]).any(axis=0)) + 1
    return np.split(rows[order], starts)


def seeded_draw(
    groups: Sequence[Int[np.ndarray, "_"]], shots: int, seed: int
) -> Int[np.ndarray, "drawn"]:
    """Draw `shots` images of each group, or all of a group that has no more.

    One is drawn by `random.choice`, several by `random.sample`. Only the sizes of the
    groups matter to the generator.
    """
    generator = random.Random(seed)
    lists = [group.tolist() for group in groups]
    if shots == 1:
        return np.array([generator.choice(images) for images in lists])
    drawn = (generator.sample(one, min(shots, len(one))) for one in lists)
    return np.array([row for images in drawn for row in images])
