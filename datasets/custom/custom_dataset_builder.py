"""`custom`: a data set of your own, from image files and a CSV file about them."""

import re
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from vireid_jax.prepare.csv_index import SPLITS, find_csv, read_csv
from vireid_jax.prepare.release import ReleaseBuilder, Splits
from vireid_jax.run.errors import UserError

_DEFAULT = tfds.core.BuilderConfig(name="default", description="A custom set.")


def make_config(name: str = "default") -> tfds.core.BuilderConfig:
    """Return a config that keeps the set `name` apart from others.

    Raise UserError for a name that a folder cannot have.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(
            f"config is {name!r}; valid characters: letters, digits, '_', '-' and '.'"
        )
    if name == _DEFAULT.name:
        return _DEFAULT  # TFDS refuses another one of that name
    return tfds.core.BuilderConfig(name=name, description=f"A custom set: {name}.")


class Builder(ReleaseBuilder):
    """Build `custom` without TensorFlow: pass `file_format="array_record"`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS's own form)
    BUILDER_CONFIGS = [_DEFAULT]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Give a CSV file with the columns image, identity, camera, modality and split, or the
    folder it lies in: python -m vireid_jax.prepare --dataset custom --source FILE.csv
    """
    pkg_dir_path = epath.Path(__file__).parent

    TITLE = "a custom set"
    HOMEPAGE = "https://github.com/vireid-jax/vireid_jax"

    @classmethod
    def root(cls, source: Path) -> Path:
        """Return the CSV file; raise UserError if `source` holds none."""
        return find_csv(source)

    @classmethod
    def read(cls, root: Path, config: str = "") -> Splits:
        """List the images of each split."""
        del config
        return read_csv(root)

    @classmethod
    def remarks(cls, root: Path, splits: Splits) -> dict[str, bool]:
        """Report a split without images."""
        del root
        return {f"no images of {name!r}": True for name in SPLITS if name not in splits}
