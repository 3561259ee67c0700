"""Release trees of the real data sets, in their exact layout, of synthetic people.

Every builder, check and protocol can be rehearsed on them before an agreement arrives.
The images show nobody: no number measured on them stands beside a real one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vireid_jax.run.errors import UserError
from vireid_jax.synthetic.layouts import llcm, regdb, sysu_mm01
from vireid_jax.synthetic.layouts.tree import Tree, write_tree

LAYOUTS = {"sysu_mm01": sysu_mm01, "regdb": regdb, "llcm": llcm}

_NOTE = """\
Synthetic: this tree has the layout of {layout} and none of its images. The people are
procedural, drawn by `python -m vireid_jax.synthetic --layout {layout} --ids {ids}
--size {height}x{width} --seed {seed}`. Numbers measured on it say nothing about real
people and never stand beside results on {layout}.
"""

__all__ = ["LAYOUTS", "Tree", "plan_tree", "write_release"]


def plan_tree(
    layout: str, ids: int | None = None, seed: int = 0, max_images: int | None = None
) -> Tree:
    """Plan the tree of a release; `ids` identities, None for as many as it has.

    Raises UserError, naming the legal values, for an unknown layout or bad numbers.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is unknown: choose {', '.join(LAYOUTS)}.")
    module = LAYOUTS[layout]
    ids = module.FULL if ids is None else ids
    if not module.LEAST <= ids <= module.FULL:
        raise UserError(
            f"ids={ids}: {layout} takes {module.LEAST} to {module.FULL} identities."
        )
    if max_images is not None and max_images < 1:
        raise UserError(f"images={max_images}: give at least 1.")
    if seed < 0:
        raise UserError(f"seed={seed}: give 0 or more.")
    rng = np.random.default_rng((seed, list(LAYOUTS).index(layout)))
    return module.tree(ids, rng, max_images)


def write_release(
    layout: str,
    out: str | Path,
    *,
    ids: int | None = None,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    max_images: int | None = None,
    workers: int | None = None,
    progress: Callable[[Iterator, int], Iterator] = lambda made, total: made,
) -> Tree:
    """Write the tree of a release to the folder `out`: whole, or not at all.

    Args:
      layout: "sysu_mm01", "regdb" or "llcm".
      out: a new or empty folder, the release's root.
      ids: identities in all; None for as many as the release has.
      size: `(height, width)` of the images.
      seed: the world, and who is where.
      max_images: at most so many images of an identity in a camera and modality.
      workers: processes, None for all cores. The tree does not depend on it.
      progress: wraps the images as they are made, and is told how many there will be.

    Returns:
      what was written.

    Raises:
      UserError: for a value out of range, or where `out` holds something.
    """
    tree = plan_tree(layout, ids, seed, max_images)
    height, width = size
    note = _NOTE.format(
        layout=layout, ids=ids or "full", height=height, width=width, seed=seed
    )
    write_tree(
        tree, Path(out), note=note, size=size, seed=seed, workers=workers,
        progress=progress,
    )  # fmt: skip
    return tree
