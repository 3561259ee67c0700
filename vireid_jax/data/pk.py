"""Draw every training step's batch: P identities, K images of each.

The stream has no state: the batch of step 1,000 follows from (seed, 1000) alone, for
any number of threads and processes, and resuming is starting at another number.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64

from vireid_jax.run.errors import UserError

# Which random numbers: joined with the seed and an index, never shared.
_PASS, _IMAGES = 0, 1


class PKDraw(NamedTuple):
    """One step's batch; identity by identity, K neighbours each. Arrays of `[P*K]`.

    Rows count within each modality's own list of images. Label i belongs to visible
    image i and to infrared image i.
    """

    visible_rows: Int64[np.ndarray, " batch"]
    infrared_rows: Int64[np.ndarray, " batch"]
    labels: Int32[np.ndarray, " batch"]


class PKStream:
    """An endless, step-addressed stream of P x K batches: `stream[step]` is a PKDraw.

    The rules (our choice; AGW draws each identity at random instead):
    - One pass over the identities is a seeded permutation, cut into floor(n / P)
      batches. The n mod P left over sit out that pass.
    - An identity gives K of its images without replacement while it has K, with
      replacement otherwise. Visible and infrared images are drawn independently.
    - Identities with images of one modality take no part; `left_out` lists them.
    """

    def __init__(
        self,
        visible_ids: Int[np.ndarray, " visible"],
        infrared_ids: Int[np.ndarray, " infrared"] | None,
        P: int,
        K: int,
        seed: int,
    ):
        """Index the identity labels of the visible and the infrared images.

        With `infrared_ids=None` both sides of a batch draw from the visible images
        (pretraining on one modality): two disjoint draws where an identity has 2K
        images, overlapping as little as possible where it has K to 2K - 1.
        Raise UserError for P or K below 1, or fewer than P identities.
        """
        if P < 1 or K < 1:
            names = "config.batch.identities and config.batch.images"
            raise UserError(f"P={P} and K={K} must both be 1 or more; set {names}")
        given = visible_ids, infrared_ids
        sides = [np.asarray(ids) for ids in given if ids is not None]
        present = [np.unique(ids) for ids in sides]
        self.identities = np.intersect1d(present[0], present[-1]).astype(np.int32)
        self.left_out = np.setxor1d(present[0], present[-1]).astype(np.int32)
        if len(self.identities) < P:
            raise UserError(
                f"P={P} needs at least {P} identities with images in both modalities; "
                f"{len(self.identities)} have them, {len(self.left_out)} have one. "
                "Lower config.batch.identities or give more training data"
            )
        self.P, self.K, self.seed = P, K, seed
        self.steps_per_pass = len(self.identities) // P
        self.steps_per_epoch = math.ceil(max(map(len, sides)) / (P * K))
        # Image i of an identity on a side: _rows[_first[side, identity] + i].
        rows, first, count = zip(
            *(_by_identity(ids, self.identities) for ids in sides), strict=True
        )
        self._rows = np.concatenate(rows)  # one side after the other
        self._first = np.stack(first) + [[0], [len(rows[0])]][: len(sides)]
        self._count = np.stack(count)

    def __getitem__(self, step: int) -> PKDraw:
        """Draw the batch of `step` >= 0: a pure function of (seed, step)."""
        step = int(step)
        if step < 0:
            raise IndexError(f"step is {step}; steps count from 0")
        index, slot = divmod(step, self.steps_per_pass)
        rng = np.random.default_rng((self.seed, _PASS, index))
        order = rng.permutation(len(self.identities))
        chosen = order[slot * self.P : (slot + 1) * self.P]
        # [sides, P, draws]: K of each of two lists, or 2K of the only one.
        draws = 2 * self.K // len(self._count)
        rng = np.random.default_rng((self.seed, _IMAGES, step))
        drawn = _draw(rng, self._count[:, chosen], self.K, draws)
        rows = self._rows[self._first[:, chosen, None] + drawn]
        return PKDraw(
            visible_rows=rows[0, :, : self.K].reshape(-1),
            infrared_rows=rows[-1, :, -self.K :].reshape(-1),
            labels=np.repeat(self.identities[chosen], self.K),
        )


def _by_identity(
    ids: Int[np.ndarray, " images"], identities: Int32[np.ndarray, " identities"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort rows by identity: `(rows, where each identity begins, how many it has)`."""
    rows = np.argsort(ids, kind="stable")
    first = np.searchsorted(ids[rows], identities, "left")
    return rows, first, np.searchsorted(ids[rows], identities, "right") - first


def _draw(
    rng: np.random.Generator, counts: Int64[np.ndarray, "sides P"], K: int, draws: int
) -> Int64[np.ndarray, "sides P draws"]:
    """Draw numbers below each count; any K neighbours differ where the count allows."""
    count = counts.reshape(-1, 1)
    row, column = np.arange(len(count))[:, None], np.arange(draws)
    # Sorting one random key per image shuffles every identity's images at once.
    keys = rng.random((len(count), count.max()))
    keys[np.arange(count.max()) >= count] = 2
    distinct = np.argsort(keys, axis=1)[row, column % count]
    repeated = (rng.random((len(count), draws)) * count).astype(np.int64)
    return np.where(count >= K, distinct, repeated).reshape(*counts.shape, draws)
