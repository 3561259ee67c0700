"""`regdb`: RegDB, from the release that comes after a signed agreement."""

from pathlib import Path, PurePosixPath

import tensorflow_datasets as tfds
from etils import epath

from vireid_jax.prepare.release import (
    Image,
    ReleaseBuilder,
    Splits,
    images_in,
    read_index,
)

TRIALS = range(1, 11)
CAMERAS = {"visible": 1, "infrared": 2}
_NAMES = {"visible": "visible", "infrared": "thermal"}  # of the index files


class Builder(ReleaseBuilder):
    """Build `regdb` without TensorFlow: pass `file_format="array_record"`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS's own form)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(
            name=f"trial_{trial}", description=f"Split {trial} of the ten."
        )
        for trial in TRIALS
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Fill in the form of DBPerson-Recog-DB1 at http://dm.dongguk.edu/link.html, unpack
    what you get, and give the folder that holds Visible, Thermal and idx:
    python -m vireid_jax.prepare --dataset regdb --source /path/to/RegDB
    """
    pkg_dir_path = epath.Path(__file__).parent

    TITLE = "RegDB"
    ENTRIES = ("Visible", "Thermal", "idx")
    HOMEPAGE = "http://dm.dongguk.edu/link.html"
    PUBLISHED = {  # noqa: RUF012
        **{f"{split} identities": 206 for split in ("train", "test")},
        **{
            f"{split} {modality} images": 2060
            for split in ("train", "test")
            for modality in CAMERAS
        },
    }

    @classmethod
    def read(cls, root: Path, config: str) -> Splits:
        """List the images of a trial; an identity is the label that the index gives."""
        trial = config.removeprefix("trial_")
        return {
            split: [
                Image(filename, label, CAMERAS[modality], modality)
                for modality, name in _NAMES.items()
                for filename, label in read_index(
                    root / f"idx/{split}_{name}_{trial}.txt", root
                ).items()
            ]
            for split in ("train", "test")
        }

    @classmethod
    def person(cls, image: Image) -> str:
        """Return the folder: a label means another person in each trial and split."""
        return PurePosixPath(image.filename).parent.name

    @classmethod
    def remarks(cls, root: Path, splits: Splits) -> dict[str, bool]:
        """Compare people of both splits, labels with folders, and labels with 0..n."""
        del root
        people, remarks = {}, []
        for split, images in splits.items():
            pairs = {(image.identity, cls.person(image)) for image in images}
            people[split] = {person for _, person in pairs}
            labels = {label for label, _ in pairs}
            if len(labels) != len(pairs) or len(people[split]) != len(pairs):
                remarks.append(f"labels of {split!r} do not match one folder each")
            if labels != set(range(len(labels))):
                remarks.append(f"labels of {split!r} are not 0 to {len(labels) - 1}")
        if both := sorted(people["train"] & people["test"]):
            remarks.append(f"people {both[:5]} are in train and test ({len(both)})")
        return dict.fromkeys(remarks, True)

    @classmethod
    def more_counts(cls, root: Path, splits: Splits) -> dict[str, tuple[int, int]]:
        """Count the folders and their images, whatever the trials list."""
        del splits
        counts = {}
        for folder in ("Visible", "Thermal"):
            people = [path.name for path in (root / folder).iterdir() if path.is_dir()]
            images = sum(len(images_in(root, f"{folder}/{name}")) for name in people)
            counts[f"{folder} folders"] = len(people), 412
            counts[f"{folder} images"] = images, 4120
        return counts
