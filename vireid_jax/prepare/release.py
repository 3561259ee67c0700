"""Read what the releases are made of: folders, id lists, indices, and images.

`ReleaseBuilder` is what the TFDS builders of all releases share.
"""

import io
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vireid_jax.data.any_image import decode, truncation_error
from vireid_jax.data.pipeline import ahead
from vireid_jax.modality import MODALITIES
from vireid_jax.run.console import track
from vireid_jax.run.environment import cores
from vireid_jax.run.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_CHUNK = 32  # images a thread takes at a time
_NAMED = 5  # unreadable images that an error names


class Image(NamedTuple):
    """An image file of a release and its labels."""

    filename: str  # below the release's root, with slashes
    identity: int
    camera: int
    modality: str


Splits = dict[str, list[Image]]
Example = tuple[str, dict[str, Any]]  # a key and the features


def find_root(source: Path, entries: Sequence[str], title: str) -> Path:
    """Return `source` if it is the root of the release, which holds `entries`.

    Raise UserError otherwise; it names a root that is one level above or below.
    """
    layout = f"{title} holds {', '.join(entries)}"
    if not source.is_dir():
        state = "is a file" if source.exists() else "does not exist"
        raise UserError(f"{source} {state}; give the folder of the release: {layout}")
    names = sorted(os.listdir(source))
    if not names:
        raise UserError(f"{source} is empty; unpack the release there: {layout}")
    missing = [entry for entry in entries if entry not in names]
    if not missing:
        return source
    below = [("high", source / name) for name in names]
    for level, root in [*below, ("deep", source.absolute().parent)]:
        if all((root / entry).exists() for entry in entries):
            raise UserError(
                f"{source} is one level too {level}: the release begins at {root}; "
                f"give --source {shlex.quote(str(root))}"
            )
    raise UserError(f"{source} has no {', '.join(missing)}; {layout}")


def images_folder(root: Path) -> Path:
    """Return the folder that file names are relative to; a root may be a CSV file."""
    return root if root.is_dir() else root.parent


def read_lines(path: Path) -> list[str]:
    """Read an index file; raise UserError if it is missing, empty or not text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        state = "" if any(map(str.strip, lines)) else "empty"
    except FileNotFoundError:
        state = "missing"
    except UnicodeDecodeError:
        state = "not text"
    if state:
        raise UserError(f"{path} is {state}; unpack the release again")
    return lines


def read_ids(path: Path) -> list[int]:
    """Read a file of one line of comma-separated identities.

    Raise UserError, with the line and entry, for anything else.
    """
    first, *rest = read_lines(path)
    valid = "valid values: whole numbers in line 1, with commas between them"
    for number, line in enumerate(rest, 2):
        if line.strip():
            raise UserError(f"{path}, line {number}: {line[:40]!r} is extra; {valid}")
    entries = first.split(",")
    for number, entry in enumerate(entries, 1):
        if not entry.strip().isdecimal():
            where = f"{path}, line 1, entry {number}"
            raise UserError(f"{where}: {entry[:40]!r} is no identity; {valid}")
    return [int(entry) for entry in entries]


def read_index(path: Path, root: Path) -> dict[str, int]:
    """Read an index file of lines `path label`; return labels by path, below `root`.

    Raise UserError, with the line, where one is malformed or repeated, and for missing
    images.
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        name, *label = line.split()
        filename, error = str(PurePosixPath(name)), ""
        if len(label) != 1 or not label[0].isdecimal():
            error = f"{line[:80]!r} is malformed; give a path, a space, a whole number"
        elif ".." in PurePosixPath(name).parts or filename.startswith("/"):
            error = f"{name!r} is not below {root}"
        elif filename in labels:
            error = f"{name!r} is repeated; list each image once"
        if error:
            raise UserError(f"{path}, line {number}: {error}")
        labels[filename] = int(label[0])
    if absent := [name for name in labels if not (root / name).is_file()]:
        folder = (root / absent[0]).parent
        state = "missing" if folder.is_dir() else f"missing, with its folder {folder}"
        raise UserError(
            f"{path}: {root / absent[0]} is {state}; {len(absent)} of {len(labels)} "
            "images are missing: unpack the release again"
        )
    return labels


def images_in(root: Path, folder: str) -> list[str]:
    """List the image files directly in `root`/`folder`, sorted; [] if it is missing."""
    return sorted(
        f"{folder}/{path.name}"
        for path in (root / folder).glob("[!.]*")
        if path.name.lower().endswith(SUFFIXES)
    )


def check_ids(splits: Splits, ids: dict[str, Iterable[int]], folder: Path) -> None:
    """Raise UserError where splits share an identity, or one of `ids` has no images."""
    if both := sorted(set(ids["train"]) & set(ids["test"])):
        raise UserError(
            f"{folder}: identities {both[:5]} are in train and in test ({len(both)} in "
            "all); unpack the release again"
        )
    for split, wanted in ids.items():
        absent = sorted(set(wanted) - {image.identity for image in splits[split]})
        if absent:
            raise UserError(
                f"{folder}: identities {absent[:5]} of {split!r} have no folder with "
                f"images in any camera ({len(absent)} in all); unpack the release again"
            )


def read_images(root: Path, filenames: Sequence[str]) -> Iterator[tuple[bytes, str]]:
    """Yield each file's bytes and what is wrong with it ("": nothing), in order.

    Threads read and decode ahead: OpenCV releases the interpreter lock meanwhile.
    """

    def load(chunk: int) -> list[tuple[bytes, str]]:
        names = filenames[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        return [_read(root / name) for name in names]

    for files in ahead(load, 0, math.ceil(len(filenames) / _CHUNK), cores()):
        yield from files


def _read(path: Path) -> tuple[bytes, str]:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    reason = truncation_error(encoded)
    if not reason and decode(encoded) is None:
        reason = "cannot be decoded by OpenCV"
    return encoded, reason


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
        return find_root(source, cls.ENTRIES, cls.TITLE)

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
            split: self._generate_examples(images_folder(root), split, images)
            for split, images in self.read(root, self.config_name).items()
        }

    def _generate_examples(
        self, root: Path, split: str, images: list[Image]
    ) -> Iterator[Example]:
        errors = []
        files = read_images(root, [image.filename for image in images])
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
