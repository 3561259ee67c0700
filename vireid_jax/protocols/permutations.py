"""The official draws of SYSU-MM01: permutations of the images, published as a file.

rand_perm_cam.mat of wuancong/SYSU-MM01 holds, for each camera and identity, ten
permutations of the image numbers 1..n. Trial r, 1 to 10, takes the first images of
row r.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer

from vireid_jax.protocols.protocol import Rows
from vireid_jax.run.errors import UserError

# What scipy raises for a file that is cut off, of another kind or version.
_DAMAGED = (NotImplementedError, LookupError, ValueError, TypeError, OSError)
_DAMAGED += (AttributeError, zlib.error)

# (camera, identity) -> image numbers from 1; row r - 1 is the order of trial r.
Permutations = Mapping[tuple[int, int], Integer[np.ndarray, "trials _"]]


def read_permutations(path: str | Path | None) -> Permutations:
    """Read rand_perm_cam.mat: a cell per camera, in it one `[10, images]` per identity.

    Raises UserError where there is no such file, or where it holds anything else.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    get_it = "take rand_perm_cam.mat from github.com/wuancong/SYSU-MM01"
    if path is None or not Path(path).is_file():
        state = f"{path} is no file" if path else "no permutations are given"
        raise UserError(
            f"{state}; protocols named .../official read them: {get_it} and give its "
            "path (--permutations)."
        )
    try:
        cameras = loadmat(path)["rand_perm_cam"].ravel()
        cells = {
            (camera, identity): np.asarray(order)
            for camera, identities in enumerate(cameras, 1)
            for identity, order in enumerate(identities.ravel(), 1)
        }
    except (MatReadError, *_DAMAGED) as error:
        raise UserError(
            f"{path} cannot be read as rand_perm_cam.mat ({error}); {get_it} again."
        ) from error
    cells = {place: order for place, order in cells.items() if order.size}
    for (camera, identity), order in cells.items():
        if order.ndim != 2 or len(order) != 10 or order.dtype.kind not in "iu":
            raise UserError(
                f"{path}: camera {camera}, identity {identity} holds an array of shape "
                f"{order.shape}, type {order.dtype}; expected whole numbers [10, "
                f"images]. {get_it[0].upper()}{get_it[1:]} again."
            )
    return cells


def official_draw(
    permutations: Permutations,
    records: Rows,
    groups: Sequence[Int[np.ndarray, "_"]],
    shots: int,
    trial: int,
) -> Int[np.ndarray, "drawn"]:
    """Take the first `shots` images of row `trial` of each permutation, by camera.

    `groups` are the rows of each identity and camera in the order of file names, which
    is that of the image numbers.
    Raises UserError where the permutations are those of another release.
    """

    def place(group):
        return int(records.camera[group[0]]), int(records.identity[group[0]])

    drawn = []
    for group in sorted(groups, key=place):
        camera, identity = place(group)
        if (camera, identity) not in permutations:
            raise UserError(
                f"rand_perm_cam.mat has no permutation for identity {identity} in "
                f"camera {camera}; it belongs to the complete SYSU-MM01. Use the "
                "protocol without /official, which draws from any split."
            )
        # int64: the file's uint8 would wrap below.
        numbers = permutations[camera, identity][trial - 1, :shots].astype(np.int64)
        if numbers.min() < 1 or numbers.max() > len(group):
            raise UserError(
                f"rand_perm_cam.mat asks for image {numbers.max()} of identity "
                f"{identity} in camera {camera}, where the split has {len(group)}. "
                "Check that the release is complete, or use the protocol without "
                "/official, which draws from any split."
            )
        drawn.append(group[numbers - 1])
    return np.concatenate(drawn)
