"""Release trees of the real data sets, in their exact layout, of synthetic people.

Every builder, check and protocol can be rehearsed on them before an agreement arrives.
The images show nobody: no number measured on them is comparable to a real one.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

from vireid_jax.run.console import track
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import check_new_folder
from vireid_jax.synthetic.generate import generate
from vireid_jax.synthetic.knobs import preset
from vireid_jax.synthetic.layouts import llcm, regdb, sysu_mm01
from vireid_jax.synthetic.layouts.tree import Tree, new_file

LAYOUTS = {"sysu_mm01": sysu_mm01, "regdb": regdb, "llcm": llcm}

_NOTE = """\
Synthetic: this tree has the layout of {layout} and none of its images. The people are
procedural, drawn by `python -m vireid_jax.synthetic --layout {layout} --ids {ids}
--size {size} --seed {seed}`. Numbers measured on it say nothing about real
people and never stand beside results on {layout}.
"""


def plan_tree(
    layout: str, ids: int | None = None, seed: int = 0, max_images: int | None = None
) -> Tree:
    """Plan the tree of a release: "sysu_mm01", "regdb" or "llcm".

    It has `ids` identities, None for as many as the release, and at most `max_images`
    images of an identity in a camera and modality. `seed` decides who is where.
    Raise UserError, with the valid values, for an unknown layout or bad numbers.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is unknown: choose {', '.join(LAYOUTS)}")
    module = LAYOUTS[layout]
    least, full = module.LEAST, module.FULL
    ids = full if ids is None else ids
    if not least <= ids <= full:
        raise UserError(f"ids={ids}: {layout} takes {least} to {full} identities")
    if max_images is not None and max_images < 1:
        raise UserError(f"images={max_images}: give at least 1")
    if seed < 0:
        raise UserError(f"seed={seed}: give 0 or more")
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
) -> Tree:
    """Write the tree of a release to the folder `out`, completely or not at all.

    `out` is a new or empty folder; `layout`, `ids`, `seed` and `max_images` are those
    of `plan_tree`, `size` is the `(height, width)` of the images. `workers` is a number
    of processes, None for all cores; the tree does not depend on it.
    Raise UserError for a value out of range, or where `out` is not empty.
    """
    tree, out = plan_tree(layout, ids, seed, max_images), Path(out)
    check_new_folder(out)
    size_text, people = "{}x{}".format(*size), ids or "full"
    note = _NOTE.format(layout=layout, ids=people, size=size_text, seed=seed)
    specs, world = list(tree.images.values()), {"seed": seed, "size": size}
    knobs, suffix = preset("easy"), tree.suffix
    made = generate(specs, **world, knobs=knobs, workers=workers, suffix=suffix)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as parent:
        aside = Path(parent, out.name)
        tree.write_index(aside, note)
        made = track(made, f"drawing {layout}", len(specs))
        for filename, (_, data, _) in zip(tree.images, made, strict=True):
            new_file(aside, filename).write_bytes(data)
        os.replace(aside, out)
    return tree
