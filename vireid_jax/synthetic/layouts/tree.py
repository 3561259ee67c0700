"""A release tree: which images and index files it holds."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.random import Generator

from vireid_jax.synthetic.plan import Spec


@dataclass
class Tree:
    """Hold what a release consists of; all paths are relative to its root."""

    suffix: str  # of the images
    images: dict[str, Spec] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    matrices: dict[str, dict] = field(default_factory=dict)  # variables of MATLAB files
    empty: list[str] = field(default_factory=list)  # folders without files

    def write_index(self, root: Path, note: str) -> None:
        """Write everything but the images, and `note` as README.txt."""
        import scipy.io  # slow, and for this alone

        for filename, text in {"README.txt": note, **self.texts}.items():
            new_file(root, filename).write_text(text, encoding="utf-8", newline="\n")
        for filename, variables in self.matrices.items():
            scipy.io.savemat(new_file(root, filename), variables, do_compression=True)
        for folder in self.empty:
            (root / folder).mkdir(parents=True, exist_ok=True)


def new_file(root: Path, filename: str) -> Path:
    """Return the path of a file, in a folder that exists from now on."""
    (root / filename).parent.mkdir(parents=True, exist_ok=True)
    return root / filename


def deal(total: int, keys: list, rng: Generator, spread: float = 0.15) -> dict:
    """Share `total` among `keys`, about evenly; every key gets at least one."""
    weights = rng.normal(1, spread, len(keys)).clip(0.4, 1.6)
    ends = np.round(np.cumsum(weights) / weights.sum() * total).astype(int)
    return dict(zip(keys, np.diff(ends, prepend=0).tolist(), strict=True))


def choose(ids: list[int], count: int, rng: Generator) -> list[int]:
    """Draw `count` of `ids`, ascending."""
    return sorted(rng.permutation(ids)[:count].tolist())


def comma_line(ids: list[int]) -> str:
    """Return identities as the releases list them: one line, with commas."""
    return ",".join(map(str, ids)) + "\n"
