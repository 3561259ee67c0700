"""The tree of RegDB: ten visible and ten thermal images each, ten trials."""

import numpy as np

from vireid_jax.synthetic.layouts.tree import Tree
from vireid_jax.synthetic.plan import Spec

FULL = 412  # identities: 206 train and 206 test in each trial
LEAST = 2
_FIRST_PERSON = 2_000_000  # so that nobody is of another set as well
_IMAGES = 10  # of each identity in each modality
_FOLDERS = {"visible": ("Visible", "v", 1), "infrared": ("Thermal", "t", 2)}


def tree(ids: int, rng: np.random.Generator, max_images: int | None = None) -> Tree:
    """Plan a tree of `ids` identities, half of them for training in each trial."""
    out = Tree(suffix=".bmp")
    files: dict[tuple[str, int], list[str]] = {}
    count = min(_IMAGES, max_images or _IMAGES)
    for identity in range(1, ids + 1):
        sex = ("male", "female")[rng.integers(2)]
        side = ("front", "back")[rng.integers(2)]
        for modality, (folder, letter, camera) in _FOLDERS.items():
            names = files[modality, identity] = []
            for number in range(1, count + 1):
                frame = (identity - 1) * _IMAGES + number
                name = f"{sex}_{side}_{letter}_{frame:05d}_{identity}.bmp"
                names.append(f"{folder}/{identity}/{name}")
                out.images[names[-1]] = Spec(
                    "thermal", _FIRST_PERSON + identity, camera, modality, number
                )
    for trial in range(1, 11):
        drawn = (1 + rng.permutation(ids)).tolist()
        halves = {"train": drawn[: ids // 2], "test": drawn[ids // 2 :]}
        for split, members in halves.items():
            for modality, (folder, _, _) in _FOLDERS.items():
                # A label is the identity's index in the draw, as in the release.
                out.texts[f"idx/{split}_{folder.lower()}_{trial}.txt"] = "".join(
                    f"{filename} {label}\n"
                    for label, identity in enumerate(members)
                    for filename in files[modality, identity]
                )
    return out
