"""`llcm`: LLCM, from the release that comes after a signed agreement."""

import re
from pathlib import Path, PurePosixPath

import tensorflow_datasets as tfds
from etils import epath

from vireid_jax.prepare.release import (
    Image,
    ReleaseBuilder,
    Splits,
    check_ids,
    images_in,
    read_ids,
    read_index,
)
from vireid_jax.run.errors import UserError

CAMERAS = range(1, 10)
EMPTY = "test_nir/cam3"  # in the release itself
UNKNOWN_CAMERA = 0
_NAMES = {"visible": "vis", "infrared": "nir"}


class Builder(ReleaseBuilder):
    """Build `llcm` without TensorFlow: pass `file_format="array_record"`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS's own form)
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Send the signed agreement of https://github.com/ZYK100/LLCM to its authors, unpack
    what you get, and give the folder that holds vis, nir, test_vis, test_nir and idx:
    python -m vireid_jax.prepare --dataset llcm --source /path/to/LLCM
    """
    pkg_dir_path = epath.Path(__file__).parent

    TITLE = "LLCM"
    ENTRIES = ("vis", "nir", "test_vis", "test_nir", "idx")
    HOMEPAGE = "https://github.com/ZYK100/LLCM"
    PUBLISHED = {  # noqa: RUF012
        "train identities": 713,
        "test identities": 351,
        # Only the paper has these, and its own text disagrees about them.
        "train visible images": "16,946",
        "train infrared images": "13,975",
        "test visible images": "8,680",
        "test infrared images": "7,166",
    }

    @classmethod
    def read(cls, root: Path, config: str = "") -> Splits:
        """List the images that the index trains on, and the folders of test ids."""
        del config  # there is only one
        train = [
            Image(filename, _identity(filename), _camera(filename), modality)
            for modality, name in _NAMES.items()
            for filename in read_index(root / f"idx/train_{name}.txt", root)
        ]
        ids = sorted(set(read_ids(root / "idx/test_id.txt")))
        test = [
            Image(filename, identity, camera, modality)
            for modality, name in _NAMES.items()
            for identity in ids
            for camera in CAMERAS
            for filename in images_in(root, f"test_{name}/cam{camera}/{identity:04d}")
        ]
        splits = {"train": train, "test": test}
        trained = {image.identity for image in train}
        check_ids(splits, {"train": trained, "test": ids}, root / "idx")
        return splits

    @classmethod
    def more_counts(cls, root: Path, splits: Splits) -> dict[str, tuple[int, int]]:
        """Count all images."""
        del root
        return {"images in all": (sum(map(len, splits.values())), 46767)}

    @classmethod
    def remarks(cls, root: Path, splits: Splits) -> dict[str, bool]:
        """Compare labels with folders; report the camera that is empty as released."""
        pairs = {
            (label, _identity(filename))
            for name in _NAMES.values()
            for filename, label in read_index(
                root / f"idx/train_{name}.txt", root
            ).items()
        }
        labels = {label for label, _ in pairs}
        remarks = {}
        if not len(labels) == len(pairs) == len({identity for _, identity in pairs}):
            remarks["training labels do not match one folder each"] = True
        if labels != set(range(len(labels))):
            remarks[f"training labels are not 0 to {len(labels) - 1}"] = True
        if not any(image.filename.startswith(EMPTY) for image in splits["test"]):
            remarks[f"{EMPTY} is empty, as released"] = False
        return remarks


def _identity(filename: str) -> int:
    """Return the identity of a training image from its folder, as vis/0001/*.jpg."""
    folder = PurePosixPath(filename).parent.name
    if not folder.isdecimal():
        raise UserError(
            f"{filename!r} in the training index is not in a folder named by the "
            "identity's number, as vis/0001/"
        )
    return int(folder)


def _camera(filename: str) -> int:
    """Return the camera from a training image's name, 0001_c01_s185535_f7010.jpg."""
    found = re.search(r"_c(\d+)_", PurePosixPath(filename).name)
    return int(found[1]) if found else UNKNOWN_CAMERA
