"""Index the rows of a data set split and decode their images on demand.

Only the index stays in memory: identity, camera, modality and position of each image.
Pixels are read from the array_record files when a batch asks for them.
"""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsIndex

import cv2
import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from vireid_jax.data.any_image import decode, fit, truncation_error
from vireid_jax.data.builders import find_builder, next_step, prepare
from vireid_jax.data.manifest import Row, States, check_manifest, read_manifest
from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError
from vireid_jax.run.runtime import only_errors

_LABELS = "identity", "camera", "modality"
_FEATURES = {"image", "filename", *_LABELS}


class RecordStore:
    """Read the records of one split, by position, and keep what is decoded of them."""

    def __init__(self, data_source: Any, title: str, next_step: str):
        """Wrap serialised tf.train Examples; errors are `title: ...; next_step`."""
        # Here no thread is reading yet: two at once deadlock in its lazy modules.
        from tensorflow_datasets.proto import tf_example_pb2  # noqa: F401

        self._data_source, self._title, self._next_step = data_source, title, next_step
        self.decoded: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        """By size: the pixels of all positions, and a mask of those decoded so far."""

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._data_source)

    def example(self, position: SupportsIndex) -> Mapping[str, Any]:
        """Parse the record at `position` into its features, a tf.train proto each."""
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            record = self._data_source[int(position)]
            # TFDS's own reader takes longer for this than OpenCV for decoding a JPEG.
            features = tf_example_pb2.Example.FromString(record).features.feature
        except (DecodeError, IndexError, RuntimeError) as error:
            raise self.error(f"record {position} is damaged{_reason(error)}") from error
        if not set(features) >= _FEATURES:
            raise self.error(f"record {position} is not a complete tf.train Example")
        return features

    def error(self, message: str) -> UserError:
        """Return an error that names the damaged split and the remedy."""
        return UserError(f"{self._title}: {message}; {self._next_step}")

    def decode(
        self, position: SupportsIndex, feature: str, flags: int = cv2.IMREAD_COLOR_RGB
    ) -> np.ndarray:
        """Decode an image of a record; raise UserError if OpenCV cannot."""
        example = self.example(position)
        encoded = example[feature].bytes_list.value[0]
        pixels = decode(encoded, flags)
        if pixels is None:
            name = example["filename"].bytes_list.value[0].decode()
            text = f"{feature} {name!r} ({len(encoded)} bytes)"
            raise self.error(f"{text} cannot be decoded by OpenCV")
        return pixels

    def rows(self) -> list[Row]:
        """Read and hash all records; return their rows, ordered by file name.

        Raise UserError for a damaged record, an image that is truncated or not a JPEG,
        PNG or BMP, an unknown modality and a repeated file name.
        """
        rows = []
        for position in range(len(self)):
            example = self.example(position)
            try:
                filename = example["filename"].bytes_list.value[0].decode()
                numbers = [example[name].int64_list.value[0] for name in _LABELS]
                encoded = example["image"].bytes_list.value[0]
            except IndexError as error:
                raise self.error(f"record {position} has an empty feature") from error
            identity, camera, modality = numbers
            if reason := truncation_error(encoded):
                raise self.error(f"image {filename!r} ({len(encoded)} bytes) {reason}")
            if modality not in (0, 1):
                error = f"the modality of {filename!r} is {modality}"
                raise self.error(f"{error}; valid values: 0, 1")
            labels = identity, camera, MODALITIES[modality]
            sha256 = hashlib.sha256(encoded).hexdigest()
            rows.append(Row(filename, *labels, sha256, position))
        filename, count = Counter(row.filename for row in rows).most_common(1)[0]
        if count > 1:
            raise self.error(f"file name {filename!r} occurs more than once")
        return sorted(rows)


@dataclass(frozen=True, eq=False)
class Records:
    """The rows of one split, ordered by file name, so the same on every machine.

    `identity` and `camera` are the data set's own numbers, `modality` indexes
    MODALITIES. `identities` is the label space, ascending: label i means identity
    `identities[i]`. `select` keeps it, so that the visible and the infrared half of a
    training set agree about labels.
    """

    title: str  # data set, config, version and split
    identity: Int32[np.ndarray, " rows"]
    camera: Int32[np.ndarray, " rows"]
    modality: Int32[np.ndarray, " rows"]
    filename: list[str]
    identities: Int32[np.ndarray, " identities"]
    store: RecordStore
    position: Int[np.ndarray, " rows"]  # of the image in the store
    digest: UInt8[np.ndarray, "rows 32"]  # SHA-256 of the encoded image

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.position)

    @property
    def labels(self) -> Int32[np.ndarray, " rows"]:
        """Return every row's training label, 0..num_identities-1.

        Raise UserError for an identity that is not in the label space.
        """
        unknown = np.setdiff1d(self.identity, self.identities)
        if len(unknown):
            raise UserError(
                f"{self.title}: identity {unknown[0]} is not in the label space of "
                f"{self.num_identities} identities"
            )
        return np.searchsorted(self.identities, self.identity).astype(np.int32)

    @property
    def num_identities(self) -> int:
        """Return the size of the label space: the width of a classifier."""
        return len(self.identities)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of data set, config, version, split and all rows (hex)."""
        sha = hashlib.sha256("\0".join([self.title, *self.filename]).encode())
        for column in (self.identity, self.camera, self.modality):
            sha.update(column.astype("<i4").tobytes())
        sha.update(self.digest.tobytes())
        return sha.hexdigest()

    def image(
        self, row: SupportsIndex, size: tuple[int, int]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Decode the RGB image of `row` at `size` = (height, width).

        A file of another size is resized (`fit`); a one-channel file gets three equal
        channels. Raise UserError when the stored bytes are not an image.
        """
        return fit(self.store.decode(self.position[row], "image"), size)

    def images(
        self,
        rows: Int[np.ndarray, " chosen"],
        size: tuple[int, int],
        cached: bool = False,
    ) -> UInt8[np.ndarray, "chosen height width 3"]:
        """Decode the images of `rows`; with `cached` keep them in memory, decoded.

        All selections from a split share one cache.
        """
        if not cached:
            out = np.empty((len(rows), *size, 3), np.uint8)
            for slot, row in enumerate(rows):
                out[slot] = self.image(row, size)
            return out
        if size not in self.store.decoded:
            # The operating system gives this array its pages only as they are written.
            pixels = np.empty((len(self.store), *size, 3), np.uint8)
            self.store.decoded.setdefault(size, (pixels, np.zeros(len(pixels), bool)))
        pixels, known = self.store.decoded[size]
        positions = self.position[rows]
        for row, position in zip(rows, positions, strict=True):
            if not known[position]:
                # Two threads may both decode a row; they write the same bytes.
                pixels[position] = self.image(row, size)
                known[position] = True
        return pixels[positions]

    def silhouettes(self) -> UInt8[np.ndarray, "rows 32 16"]:
        """Decode the mask of the visible body in every row, 0..255.

        Raise UserError for a data set without them; only `walkers` has them.
        """
        if "silhouette" not in self.store.example(self.position[0]):
            raise UserError(f"{self.title} has no silhouettes; only walkers has")
        grey = cv2.IMREAD_GRAYSCALE
        masks = (self.store.decode(at, "silhouette", grey) for at in self.position)
        return np.stack([*masks])

    def select(
        self, rows: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " rows"]
    ) -> "Records":
        """Keep `rows` (indices in any order, or a mask), and the label space."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            identity=self.identity[rows],
            camera=self.camera[rows],
            modality=self.modality[rows],
            filename=[self.filename[row] for row in rows],
            position=self.position[rows],
            digest=self.digest[rows],
        )

    def of(self, modality: str) -> "Records":
        """Keep the rows of one modality (a name in MODALITIES), and the label space."""
        if modality not in MODALITIES:
            raise UserError(f"modality is {modality!r}; valid values: {MODALITIES}")
        return self.select(self.modality == MODALITIES.index(modality))


def split_identities(
    records: Records, held_out: int, seed: int
) -> tuple[Records, Records]:
    """Hold `held_out` identities out of a training set, for validation (our choice).

    `seed` alone draws them from the identities in both modalities. Return (train,
    validation), each with its own label space. Raise UserError unless
    1 <= held_out < the number of such identities.
    """
    candidates = np.intersect1d(
        records.of("visible").identity, records.of("infrared").identity
    )
    if not 1 <= held_out < len(candidates):
        raise UserError(
            f"config.data.validation_identities is {held_out}; valid values for "
            f"{records.title}: 1 to {len(candidates) - 1}, or 0 for no validation"
        )
    drawn = np.random.default_rng(seed).choice(candidates, held_out, replace=False)
    mask = np.isin(records.identity, drawn)
    train, validation = records.select(~mask), records.select(mask)
    own_labels = lambda part: replace(part, identities=np.unique(part.identity))
    return own_labels(train), own_labels(validation)


def load_records(
    name: str,
    split: str,
    *,
    config: str | Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    verify: bool = False,
) -> Records:
    """Open one split of the data set `name`, preparing the set first if it is missing.

    `config` is the name of a builder config, keyword arguments for the builder module's
    `make_config`, or None for the default. `data_dir` holds prepared sets (TFDS's
    default is ~/tensorflow_datasets), `manual_dir` the release of a set that needs one.
    For `verify` see `open_records`. Raise UserError for an unknown name, config or
    split, a missing release, a folder that cannot be written to, and damaged or changed
    records.
    """
    with only_errors():  # TFDS: that our configs are not among those it knows
        builder = find_builder(name, config, data_dir)
        if not os.path.exists(builder.data_path):  # or is out of sight: see `prepare`
            prepare(builder, manual_dir)
            builder = find_builder(name, config, data_dir)
        return open_records(builder, split, verify=verify)


def open_records(builder: Any, split: str, *, verify: bool = False) -> Records:
    """Index one split of a prepared TFDS builder (array_record files).

    The first opening reads and hashes every record, and writes a manifest of the rows.
    Later ones read the manifest alone, while size and modification time of the record
    files are unchanged; otherwise, and with `verify`, they hash every record again and
    compare. Raise UserError for an unknown split, a missing or damaged file, records
    that differ from the manifest, and as `RecordStore.rows` does.
    """
    step = next_step(builder)
    folder, info = Path(builder.data_path), builder.info
    for path in (folder / "dataset_info.json", folder / "features.json"):
        if not path.is_file() or path.stat().st_size == 0:
            raise UserError(f"{path} is missing or empty; {step}")
    if split not in info.splits:
        valid = f"valid values for {info.full_name}: {sorted(info.splits)}"
        raise UserError(f"split is {split!r}; {valid}")
    instructions = info.splits[split].file_instructions
    if not instructions:
        path = folder / "dataset_info.json"
        raise UserError(f"{path} lists no rows of {split!r}; {step}")
    files, states = _open_files(instructions, step)
    title, manifest = f"{info.full_name}:{split}", folder / f"manifest-{split}.tsv"
    rows = None if verify else read_manifest(manifest, states)
    if rows is None:
        rows = RecordStore(files, title, step).rows()
        check_manifest(manifest, rows, states, step)
    return index_records(files, title, step, rows)


def _open_files(instructions: Sequence[Any], next_step: str) -> tuple[Any, States]:
    """Open the array_record files of TFDS's file `instructions`, by head and tail only.

    Return a sequence of records, and each file's size and modification time (ns).
    Raise UserError for a file that is missing, cut short, or has not as many records as
    dataset_info.json says.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from array_record.python.array_record_module import ArrayRecordReader

    states = {}
    for file in instructions:
        path = Path(file.filename)
        if not path.is_file():
            raise UserError(f"{path} is missing; {next_step}")
        states[path.name] = path.stat().st_size, path.stat().st_mtime_ns
        try:
            reader = ArrayRecordReader(str(path))
            count = reader.num_records()
            reader.close()
        except RuntimeError as error:
            reason = f"is damaged or cut short{_reason(error)}"
            raise UserError(f"{path} {reason}; {next_step}") from error
        if count != file.examples_in_shard:
            raise UserError(
                f"{path} holds {count} records, dataset_info.json says "
                f"{file.examples_in_shard}; {next_step}"
            )
    return ArrayRecordDataSource(list(instructions)), states


def _reason(error: Exception) -> str:
    reason = str(error).partition("\n")[0]  # sometimes nothing
    return f" ({reason})" if reason else ""


def index_records(
    data_source: Any,
    title: str,
    next_step: str = "prepare the data set again",
    rows: Sequence[Row] | None = None,
) -> Records:
    """Index a sequence of serialised tf.train Examples, as our builders write them.

    `title` names the split in errors and in the fingerprint; errors end with
    `next_step`. Without `rows` every record is read; raise UserError as
    `RecordStore.rows` does.
    """
    store = RecordStore(data_source, title, next_step)
    columns = zip(*(store.rows() if rows is None else rows), strict=True)
    filename, identity, camera, modality, sha256, position = columns
    return Records(
        title=title,
        identity=np.array(identity, np.int32),
        camera=np.array(camera, np.int32),
        modality=np.array([MODALITIES.index(name) for name in modality], np.int32),
        filename=list(filename),
        identities=np.unique(np.array(identity, np.int32)),
        store=store,
        position=np.array(position),
        digest=np.frombuffer(bytes.fromhex("".join(sha256)), np.uint8).reshape(-1, 32),
    )
