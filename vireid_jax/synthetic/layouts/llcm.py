"""The tree of LLCM: nine cameras, by day in visible and by night in infrared light."""

import numpy as np

from vireid_jax.synthetic.layouts.tree import Tree, choose, comma_line, deal
from vireid_jax.synthetic.plan import Spec

FULL = 1064  # identities: 713 train, 351 test
LEAST = 4  # two train, two test
_TRAIN = 713
_FIRST_PERSON = 3_000_000  # so that nobody is of another set as well
_EMPTY = 3  # this camera has no infrared test image in the release
_NAMES = {"visible": "vis", "infrared": "nir"}
_IMAGES = {
    ("train", "visible"): 16946, ("train", "infrared"): 13975,
    ("test", "visible"): 8680, ("test", "infrared"): 7166,
}  # fmt: skip


def tree(ids: int, rng: np.random.Generator, max_images: int | None = None) -> Tree:
    """Plan a tree of `ids` identities, two thirds of them for training."""
    everybody = list(range(1, ids + 1))
    train = choose(everybody, min(ids - 2, round(ids * _TRAIN / FULL)), rng)
    split = {"train": train, "test": sorted({*everybody} - {*train})}
    out = Tree(suffix=".jpg", empty=[f"test_nir/cam{_EMPTY}"])
    for (name, modality), total in _IMAGES.items():
        kind, index = _NAMES[modality], []
        cameras = list(range(1, 10))
        if (name, modality) == ("test", "infrared"):
            cameras.remove(_EMPTY)
        pairs = [  # nobody is in every camera
            (identity, int(camera))
            for identity in split[name]
            for camera in sorted(rng.permutation(cameras)[: rng.integers(2, 6)])
        ]
        counts = deal(round(total * ids / FULL), pairs, rng)
        for (identity, camera), count in counts.items():
            folder = f"test_{kind}/cam{camera}" if name == "test" else kind
            moment = 60_000 + 7 * camera + identity % 1000  # a time of day
            shot = f"{identity:04d}/{identity:04d}_c{camera:02d}_s{moment:06d}"
            label, person = split[name].index(identity), _FIRST_PERSON + identity
            for number in range(1, min(count, max_images or count) + 1):
                path = f"{folder}/{shot}_f{10 * number:04d}_{kind}.jpg"
                out.images[path] = Spec("nir", person, camera, modality, number)
                index.append(f"{path} {label}\n")
        out.texts[f"idx/{name}_{kind}.txt"] = "".join(index)
    out.texts["idx/test_id.txt"] = comma_line(split["test"])
    return out
