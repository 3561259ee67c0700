"""What the builders of the releases share: features, reading, a fast writer."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from vireid_jax.modality import MODALITIES
from vireid_jax.prepare.image_files import read_images
from vireid_jax.prepare.release import Image, Splits, find_root
from vireid_jax.run.console import track
from vireid_jax.run.errors import UserError

_SHARD_BYTES = 2**28
_NAMED = 5  # unreadable images that an error names


class Remark(NamedTuple):
    """Something to say about a release; `judged` if results would change."""

    text: str
    judged: bool = True


class ReleaseBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds a set from a release; the files are stored byte for byte.

    Pass `file_format="array_record"`. A builder says where `read` finds the images.
    """

    TITLE: ClassVar[str]
    ENTRIES: ClassVar[tuple[str, ...]] = ()
    """What the root of the release holds."""
    HOMEPAGE: ClassVar[str]
    PUBLISHED: ClassVar[dict[str, int | tuple[int, int] | str]] = {}
    """Counts to find, by the names of release_check.py; a text is not judged."""

    source: Path | None = None
    """The release; TFDS's manual_dir if left out."""
    skip_unreadable: bool = False
    unreadable: list[str]

    @classmethod
    def root(cls, source: Path) -> Path:
        """Return the release's root; raises UserError where `source` is not that."""
        return find_root(source, cls.ENTRIES, cls.TITLE)

    @classmethod
    def read(cls, root: Path, config: str) -> Splits:
        """List the images of each split; raises UserError for a flawed release."""
        raise NotImplementedError

    @classmethod
    def person(cls, image: Image) -> str:
        """Name the person in `image`, the same in all splits and configs."""
        return str(image.identity)

    @classmethod
    def more_counts(cls, splits: Splits) -> dict[str, int]:
        """Count what only this release has, by the names of PUBLISHED."""
        del splits
        return {}

    @classmethod
    def folder_counts(cls, root: Path) -> dict[str, tuple[int, int]]:
        """Count what no split shows, as (found, published)."""
        del root
        return {}

    @classmethod
    def remarks(cls, root: Path, splits: Splits) -> list[Remark]:
        """Say what else a check of the release is to tell."""
        del root, splits
        return []

    @property
    def config_name(self) -> str:
        """Name the builder config; "" where the set has none."""
        return self.builder_config.name if self.builder_config else ""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "identity": np.int64,
                    "camera": np.int64,
                    "modality": tfds.features.ClassLabel(names=list(MODALITIES)),
                    "filename": tfds.features.Text(),
                }
            ),
            homepage=self.HOMEPAGE,
        )

    def _split_generators(self, dl_manager):
        self.unreadable = []
        root = self.root(Path(self.source or dl_manager.manual_dir))
        splits = self.read(root, self.config_name)
        folder = root if root.is_dir() else root.parent
        return {
            split: self._generate_examples(folder, split, images)
            for split, images in splits.items()
        }

    def _generate_examples(self, root: Path, split: str, images: list[Image]):
        refused = []
        files = read_images(root, [image.filename for image in images])
        title = (
            f"storing {' '.join(filter(None, [self.name, self.config_name, split]))}"
        )
        found = zip(images, files, strict=True)
        for image, (encoded, reason) in track(found, title, len(images)):
            if reason:
                refused.append(f"{image.filename} {reason}")
                continue
            yield image.filename, {**image._asdict(), "image": io.BytesIO(encoded)}
        self.unreadable += refused
        if refused and not self.skip_unreadable:
            raise UserError(
                f"{root}: {len(refused)} of {len(images)} images of {split!r} cannot "
                f"be used: {'; '.join(refused[:_NAMED])}"
                f"{'; ...' if len(refused) > _NAMED else ''}. Unpack the release again "
                "or leave them out with --skip-unreadable."
            )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        """Write the records without TFDS's serializer, which takes half of its time."""
        del download_config
        self.info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    self._write(split, (example for _, example in examples))
                    for split, examples in self._split_generators(dl_manager).items()
                ]
            )
        )

    def _write(self, split: str, examples: Iterable[dict[str, Any]]) -> Any:
        """Write a split's record files; returns what TFDS wants to know of them."""
        folder = Path(self.data_path)
        template = tfds.core.naming.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=self.name,
            split=split,
            filetype_suffix="array_record",
        )
        part = folder / f"{split}.writing"
        lengths, sizes = _write_shards(part, map(_serialize, examples))
        if not lengths:
            raise UserError(f"{self.name}: no image of {split!r} is left to store.")
        for shard in range(len(lengths)):
            new = template.sharded_filepath(shard_index=shard, num_shards=len(lengths))
            os.rename(f"{part}-{shard}", new)
        return tfds.core.splits.SplitInfo(
            name=split,
            shard_lengths=lengths,
            num_bytes=sum(sizes),
            filename_template=template,
        )


def _serialize(example: dict[str, Any]) -> bytes:
    """Serialise an example as TFDS does."""
    out = tf_example_pb2.Example()
    feature = out.features.feature
    feature["image"].bytes_list.value.append(example["image"].getvalue())
    feature["filename"].bytes_list.value.append(example["filename"].encode())
    feature["identity"].int64_list.value.append(example["identity"])
    feature["camera"].int64_list.value.append(example["camera"])
    modality = MODALITIES.index(example["modality"])
    feature["modality"].int64_list.value.append(modality)
    return out.SerializeToString()


def _write_shards(path: Path, records: Iterator[bytes]) -> tuple[list[int], list[int]]:
    """Write PATH-0, PATH-1 and so on; returns the records and bytes of each."""
    lengths, sizes, writer = [], [], None
    for record in records:
        if writer is None or sizes[-1] >= _SHARD_BYTES:
            if writer:
                writer.close()
            # One record a group, as TFDS has it: records are read at random.
            writer = ArrayRecordWriter(f"{path}-{len(lengths)}", "group_size:1")
            lengths.append(0)
            sizes.append(0)
        writer.write(record)
        lengths[-1] += 1
        sizes[-1] += len(record)
    if writer:
        writer.close()
    return lengths, sizes
