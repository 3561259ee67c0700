"""`sysu_mm01`: SYSU-MM01, from the release that comes after a signed agreement."""

import zlib
from collections import Counter
from pathlib import Path

import scipy.io
import tensorflow_datasets as tfds
from etils import epath
from scipy.io.matlab import MatReadError

from vireid_jax.prepare.release import (
    Image,
    ReleaseBuilder,
    Splits,
    check_ids,
    images_in,
    read_ids,
)

CAMERAS = {
    1: "visible", 2: "visible", 3: "infrared", 4: "visible", 5: "visible",
    6: "infrared",
}  # fmt: skip
VISIBLE = (1, 2, 4, 5)
INDOOR = (1, 2)
PERMUTATIONS = "exp/rand_perm_cam.mat"
_UNREADABLE = (
    MatReadError, NotImplementedError, ValueError, LookupError, TypeError, OSError,
    zlib.error,
)  # fmt: skip


class Builder(ReleaseBuilder):
    """Build `sysu_mm01` without TensorFlow: pass `file_format="array_record"`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS's own form)
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Send the signed agreement of https://github.com/wuancong/SYSU-MM01 to its authors,
    unpack SYSU-MM01.zip, and give the folder that holds cam1 to cam6 and exp:
    python -m vireid_jax.prepare --dataset sysu_mm01 --source /path/to/SYSU-MM01
    """
    pkg_dir_path = epath.Path(__file__).parent

    TITLE = "SYSU-MM01"
    ENTRIES = ("cam1", "cam2", "cam3", "cam4", "cam5", "cam6", "exp")
    HOMEPAGE = "https://github.com/wuancong/SYSU-MM01"
    PUBLISHED = {  # noqa: RUF012
        "train identities": 395,
        # The paper's totals are not what the totals of the set leave over.
        "train visible images": "22,258 or 23,296",
        "train infrared images": "11,909 or 11,989",
        "test identities": 96,
        "test visible images": 6775,
        "test infrared images": 3803,
        "test visible camera 1": (1374, 56),
        "test visible camera 2": (1565, 56),
        "test infrared camera 3": (1883, 93),
        "test visible camera 4": (1918, 94),
        "test visible camera 5": (1918, 95),
        "test infrared camera 6": (1920, 96),
    }

    @classmethod
    def read(cls, root: Path, config: str = "") -> Splits:
        """List the images of train + val, and of test, camera by camera."""
        del config  # there is only one
        read = lambda name: read_ids(root / "exp" / f"{name}_id.txt")
        ids = {
            "train": sorted({*read("train"), *read("val")}),
            "test": sorted({*read("test")}),
        }
        splits = {
            split: [
                Image(filename, identity, camera, modality)
                for identity in chosen
                for camera, modality in CAMERAS.items()
                for filename in images_in(root, f"cam{camera}/{identity:04d}")
            ]
            for split, chosen in ids.items()
        }
        check_ids(splits, ids, root / "exp")
        return splits

    @classmethod
    def more_counts(cls, root: Path, splits: Splits) -> dict[str, tuple[int, int]]:
        """Count the galleries of the four settings."""
        del root
        folders = _count_folders(splits["test"])
        return {
            f"gallery {mode}": (
                sum(min(n, most) for (_, camera), n in folders.items() if camera in of),
                published,
            )
            for mode, of, most, published in (
                ("all-search single-shot", VISIBLE, 1, 301),
                ("all-search multi-shot", VISIBLE, 10, 3010),
                ("indoor-search single-shot", INDOOR, 1, 112),
                ("indoor-search multi-shot", INDOOR, 10, 1120),
            )
        }

    @classmethod
    def remarks(cls, root: Path, splits: Splits) -> dict[str, bool]:
        """Compare the permutations of the official draws with the images."""
        path = root / PERMUTATIONS
        if not path.is_file():
            return {f"{PERMUTATIONS} is missing: no official draws": False}
        folders = _count_folders(splits["test"])
        try:
            cells = scipy.io.loadmat(path)["rand_perm_cam"]
            wrong = [
                (identity, camera)
                for (identity, camera), count in folders.items()
                if camera in VISIBLE
                and cells[camera - 1][0].squeeze()[identity - 1].shape != (10, count)
            ]
        except _UNREADABLE as error:
            reason = str(error).partition("\n")[0]
            return {f"{PERMUTATIONS} is damaged or of other people: {reason}": True}
        if not wrong:
            return {}
        identity, camera = wrong[0]
        text = (
            f"{PERMUTATIONS} does not fit the images of {len(wrong)} folders, the "
            f"first being cam{camera}/{identity:04d}: {folders[wrong[0]]} images"
        )
        return {text: True}


def _count_folders(images: list[Image]) -> Counter[tuple[int, int]]:
    """Count the images of each identity in each camera."""
    return Counter((image.identity, image.camera) for image in images)
