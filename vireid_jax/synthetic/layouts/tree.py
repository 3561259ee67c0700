"""A release tree: which images and index files it holds, and how it is written."""

import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vireid_jax.run.errors import UserError
from vireid_jax.synthetic.generate import generate
from vireid_jax.synthetic.knobs import preset
from vireid_jax.synthetic.plan import Spec
from vireid_jax.synthetic.render import check_size


@dataclasses.dataclass
class Tree:
    """Hold what a release consists of; all paths are below its root."""

    suffix: str  # of the images
    images: dict[str, Spec] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    matrices: dict[str, dict] = dataclasses.field(default_factory=dict)
    """MATLAB files, by path: their variables."""
    empty: list[str] = dataclasses.field(default_factory=list)
    """Folders without files, which the release has too."""


def deal(
    total: int, keys: list, rng: np.random.Generator, spread: float = 0.15
) -> dict:
    """Share `total` among `keys`, about evenly; every key gets at least one."""
    weights = rng.normal(1, spread, len(keys)).clip(0.4, 1.6)
    ends = np.round(np.cumsum(weights) / weights.sum() * total).astype(int)
    return dict(zip(keys, np.diff(ends, prepend=0).tolist(), strict=True))


def choose(ids: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Draw `count` of `ids`, ascending."""
    return sorted(rng.permutation(ids)[:count].tolist())


def comma_line(ids: list[int]) -> str:
    """Write identities as the releases do: one line, with commas."""
    return ",".join(map(str, ids)) + "\n"


def write_tree(
    tree: Tree,
    out: Path,
    *,
    note: str,
    size: tuple[int, int],
    seed: int,
    workers: int | None = None,
    progress: Callable[[Iterator, int], Iterator] = lambda made, total: made,
) -> None:
    """Write the tree to the folder `out`, whole or not at all.

    Raises UserError for a bad size, and where `out` is a file, or a folder that holds
    something.
    """
    check_size(size)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give a new folder, or delete it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        _write_files(tree, aside, note)
        made = generate(
            list(tree.images.values()),
            seed=seed,
            size=size,
            knobs=preset("easy"),
            workers=workers,
            suffix=tree.suffix,
        )
        made = progress(made, len(tree.images))
        for filename, (_, data, _) in zip(tree.images, made, strict=True):
            path = aside / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_files(tree: Tree, root: Path, note: str) -> None:
    """Write all but the images."""
    import scipy.io

    for filename, text in {"README.txt": note, **tree.texts}.items():
        path = root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    for filename, variables in tree.matrices.items():
        (root / filename).parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(root / filename, variables, do_compression=True)
    for folder in tree.empty:
        (root / folder).mkdir(parents=True, exist_ok=True)
