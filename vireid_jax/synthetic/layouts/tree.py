"""A release tree: which images and index files it holds."""

import dataclasses
from pathlib import Path

import numpy as np

from vireid_jax.synthetic.plan import Spec


@dataclasses.dataclass
class Tree:
    """Hold what a release consists of; all paths are relative to its root."""

    suffix: str  # of the images
    images: dict[str, Spec] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    matrices: dict[str, dict] = dataclasses.field(default_factory=dict)
    """MATLAB files, by path: their variables."""
    empty: list[str] = dataclasses.field(default_factory=list)
    """Folders without files, which the release has too."""

    def write_index(self, root: Path, note: str) -> None:
        """Write everything but the images, and `note` as README.txt."""
        import scipy.io

        for filename, text in {"README.txt": note, **self.texts}.items():
            path = root / filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        for filename, variables in self.matrices.items():
            (root / filename).parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(root / filename, variables, do_compression=True)
        for folder in self.empty:
            (root / folder).mkdir(parents=True, exist_ok=True)


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
    """Return identities as the releases list them: one line, with commas."""
    return ",".join(map(str, ids)) + "\n"
