"""What the builders of the releases share: features and reading."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from vireid_jax.modality import MODALITIES
from vireid_jax.prepare import release
from vireid_jax.prepare.release import Image, Splits
from vireid_jax.run.console import track
from vireid_jax.run.errors import UserError

Example = tuple[str, dict[str, Any]]  # a key and the features
_NAMED = 5  # unreadable images that an error names


class ReleaseBuilder(  # type: ignore[call-arg]  # TFDS has no types
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Build a set from a release; the files are stored byte for byte.

    Pass `file_format="array_record"`. A subclass defines `read`.
    """

    TITLE: ClassVar[str]
    ENTRIES: ClassVar[tuple[str, ...]] = ()
    """Folders in the root of the release."""
    HOMEPAGE: ClassVar[str]
    PUBLISHED: ClassVar[dict[str, int | tuple[int, int] | str]] = {}
    """Published counts, by the names of release_check.py; a text is not judged."""

    source: Path | None = None
    """The release; TFDS's manual_dir if None."""
    skip_unreadable: bool = False
    unreadable: list[str]

    @classmethod
    def root(cls, source: Path) -> Path:
        """Return the release's root; raise UserError if `source` is not that."""
        return release.find_root(source, cls.ENTRIES, cls.TITLE)

    @classmethod
    def read(cls, root: Path, config: str) -> Splits:
        """List the images of each split; raise UserError for a damaged release."""
        raise NotImplementedError

    @classmethod
    def person(cls, image: Image) -> str:
        """Return the name of the person in `image`, the same in all configs."""
        return str(image.identity)

    @classmethod
    def more_counts(cls, root: Path, splits: Splits) -> dict[str, tuple[int, int]]:
        """Return what else to count, by name, as (found, published)."""
        del root, splits
        return {}

    @classmethod
    def remarks(cls, root: Path, splits: Splits) -> dict[str, bool]:
        """Return more lines for a check's report, and whether they change results."""
        del root, splits
        return {}

    @property
    def config_name(self) -> str:
        """Return the name of the builder config; "" if the set has none."""
        return self.builder_config.name if self.builder_config else ""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "identity": np.int64,
            "camera": np.int64,
            "modality": tfds.features.ClassLabel(names=list(MODALITIES)),
            "filename": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), homepage=self.HOMEPAGE
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        self.unreadable = []
        root = self.root(Path(self.source or dl_manager.manual_dir))
        return {
            split: self._generate_examples(release.images_folder(root), split, images)
            for split, images in self.read(root, self.config_name).items()
        }

    def _generate_examples(
        self, root: Path, split: str, images: list[Image]
    ) -> Iterator[Example]:
        errors = []
        files = release.read_images(root, [image.filename for image in images])
        title = " ".join(filter(None, ["storing", self.name, self.config_name, split]))
        pairs = zip(images, files, strict=True)
        for image, (encoded, error) in track(pairs, title, len(images)):
            if error:
                errors.append(f"{image.filename} {error}")
            else:
                yield image.filename, {**image._asdict(), "image": io.BytesIO(encoded)}
        self.unreadable += errors
        if errors and not self.skip_unreadable:
            raise UserError(
                f"{root}: {len(errors)} of {len(images)} images of {split!r} cannot "
                f"be used: {'; '.join(errors[:_NAMED])}"
                f"{'; ...' if len(errors) > _NAMED else ''}. Unpack the release again "
                "or leave them out with --skip-unreadable"
            )
        if len(errors) == len(images):
            raise UserError(f"{self.name}: no image of {split!r} is left to store")
