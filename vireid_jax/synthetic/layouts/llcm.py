"""The tree of LLCM: nine cameras, by day in visible and by night in infrared light."""

import numpy as np

from vireid_jax.synthetic.layouts.tree import Tree, choose, comma_line, deal
from vireid_jax.synthetic.plan import Spec

FULL = 1064  # identities: 713 train, 351 test
LEAST = 4  # two train, two test
_TRAIN = 713
_FIRST_PERSON = 3_000_000  # so that nobody is of another set as well
_CAMERAS = range(1, 10)
_EMPTY = 3  # this camera has no infrared test image in the release
_NAMES = {"visible": "vis", "infrared": "nir"}
_IMAGES = {
    ("train", "visible"): 16946, ("train", "infrared"): 13975,
    ("test", "visible"): 8680, ("test", "infrared"): 7166,
}  # fmt: skip


def tree(ids: int, rng: np.random.Generator, max_images: int | None = None) -> Tree:
    """Plan a tree of `ids` identities, two thirds of them for training.

    `max_images` bounds the images of an identity in a camera and modality.
    """
    everybody = list(range(1, ids + 1))
    train = choose(everybody, min(ids - 2, round(ids * _TRAIN / FULL)), rng)
    split = {"train": train, "test": sorted({*everybody} - {*train})}
    labels = {i: label for members in split.values() for label, i in enumerate(members)}
    out = Tree(suffix=".jpg", empty=[f"test_nir/cam{_EMPTY}"])
    for (name, modality), total in _IMAGES.items():
        full = len(split[name]) * FULL / ids  # identities of the full tree
        total = round(total * len(split[name]) / full)
        index = []
        for pair, count in _counts(name, modality, split[name], total, rng).items():
            for number in range(1, min(count, max_images or count) + 1):
                path = _path(name, modality, *pair, number)
                out.images[path] = _spec(modality, *pair, number)
                index.append(f"{path} {labels[pair[0]]}\n")
        out.texts[f"idx/{name}_{_NAMES[modality]}.txt"] = "".join(index)
    out.texts["idx/test_id.txt"] = comma_line(split["test"])
    return out


def _counts(
    name: str, modality: str, ids: list[int], total: int, rng: np.random.Generator
) -> dict[tuple[int, int], int]:
    """Share `total` images among (identity, camera); nobody is in every camera."""
    cameras = [
        c for c in _CAMERAS if (name, modality, c) != ("test", "infrared", _EMPTY)
    ]
    pairs = [
        (identity, int(camera))
        for identity in ids
        for camera in sorted(rng.permutation(cameras)[: rng.integers(2, 6)])
    ]
    return deal(total, pairs, rng)


def _spec(modality: str, identity: int, camera: int, number: int) -> Spec:
    return Spec("nir", _FIRST_PERSON + identity, camera, modality, number)


def _path(split: str, modality: str, identity: int, camera: int, number: int) -> str:
    kind = _NAMES[modality]
    moment = 60_000 + 7 * camera + identity % 1000  # a time of day, and a frame then
    name = f"{identity:04d}_c{camera:02d}_s{moment:06d}_f{10 * number:04d}_{kind}.jpg"
    if split == "train":
        return f"{kind}/{identity:04d}/{name}"
    return f"test_{kind}/cam{camera}/{identity:04d}/{name}"
