"""A release tree: which images and index files it holds."""

from dataclasses import dataclass, field

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
