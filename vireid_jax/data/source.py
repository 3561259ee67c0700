"""Index the rows of a data set split and decode their images on demand.

`load_records` opens one split of a TFDS data set, and first makes a set that generates
itself. Only the index stays in memory: who, which camera, which modality. Pixels are
read from the array_record files when a batch asks for them.
"""

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsIndex

import cv2
import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from vireid_jax.data.any_image import fit
from vireid_jax.data.builders import find_builder, next_step, prepare
from vireid_jax.data.encoded import flaw
from vireid_jax.data.manifest import Row, check_manifest
from vireid_jax.data.record_files import RecordFiles, check_info_files
from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError
from vireid_jax.run.runtime import only_errors

_NUMBERS = ("identity", "camera", "modality")


class ImageStore:
    """Read and decode the images of one split, by position in its array_record files.

    Threads may share it. A pickled copy carries the list of files only: it opens them
    at its first read, wherever that is, and starts with an empty cache.
    """

    def __init__(self, data_source: Any, title: str, next_step: str):
        """Wrap the array_record `data_source`.

        Errors begin with `title`, which names the split, and end with `next_step`.
        """
        self._data_source = data_source
        self._title = title
        self._next_step = next_step
        self._decoded: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        """Count the images."""
        return len(self._data_source)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache out of a pickle."""
        return {**self.__dict__, "_decoded": {}}

    def example(self, position: SupportsIndex) -> Mapping[str, Any]:
        """Parse the record at `position` into its features, a tf.train proto each."""
        # TFDS's own reader spends more time on this than OpenCV on decoding a JPEG.
        from tensorflow_datasets.proto import tf_example_pb2

        record = self._data_source[int(position)]
        return tf_example_pb2.Example.FromString(record).features.feature

    def refusal(self, example: Mapping[str, Any], reason: str) -> UserError:
        """Make the error that refuses one image."""
        filename = example["filename"].bytes_list.value[0].decode()
        size = len(example["image"].bytes_list.value[0])
        return UserError(
            f"{self._title}: image {filename!r} ({size} bytes) {reason}; "
            f"{self._next_step}."
        )

    def image(
        self, position: SupportsIndex, size: tuple[int, int]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Decode one image, resized to `size` (height, width) if it differs."""
        example = self.example(position)
        encoded = np.frombuffer(example["image"].bytes_list.value[0], np.uint8)
        try:
            # A one-channel file comes out with three equal channels.
            pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        except cv2.error:  # a header that promises more pixels than OpenCV takes
            pixels = None
        if pixels is None:
            raise self.refusal(example, "is nothing that OpenCV can decode")
        return cv2.cvtColor(fit(pixels, size), cv2.COLOR_BGR2RGB)

    def images(
        self, positions: Int[np.ndarray, " rows"], size: tuple[int, int], cache: str
    ) -> UInt8[np.ndarray, "rows height width 3"]:
        """Decode many images; `cache="host"` keeps each one in memory."""
        if cache not in ("none", "host"):
            raise UserError(f"cache is {cache!r}; use 'none' or 'host'.")
        if cache == "none":
            out = np.empty((len(positions), *size, 3), np.uint8)
            for slot, position in enumerate(positions):
                out[slot] = self.image(position, size)
            return out
        if size not in self._decoded:
            # The operating system gives this array its pages only as they are written.
            shape = (len(self), *size, 3)
            decoded = np.empty(shape, np.uint8), np.zeros(len(self), bool)
            self._decoded.setdefault(size, decoded)
        pixels, known = self._decoded[size]
        for position in positions[~known[positions]]:
            # Two threads may both decode a row; they write the same bytes.
            pixels[position] = self.image(position, size)
            known[position] = True
        return pixels[positions]


@dataclass(frozen=True, eq=False)
class Records:
    """The rows of one split, ordered by file name, so the same on every machine.

    `identity` and `camera` are the data set's own numbers, `modality` indexes
    MODALITIES (all int32 `[rows]`). `identities` is the label space, ascending: label i
    stands for identity `identities[i]`. `select` keeps the label space, so that the
    visible and the infrared half of a training set agree about labels.
    """

    title: str  # data set, config, version and split
    identity: Int32[np.ndarray, " rows"]
    camera: Int32[np.ndarray, " rows"]
    modality: Int32[np.ndarray, " rows"]
    filename: list[str]
    identities: Int32[np.ndarray, " identities"]
    store: ImageStore
    position: Int[np.ndarray, " rows"]  # of the image in the store
    digest: UInt8[np.ndarray, "rows 32"]  # SHA-256 of the encoded image

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.position)

    @property
    def labels(self) -> Int32[np.ndarray, " rows"]:
        """Give every row's training label, 0..num_identities-1, int32 `[rows]`."""
        return np.searchsorted(self.identities, self.identity).astype(np.int32)

    @property
    def num_identities(self) -> int:
        """Count the identities of the label space: the width of a classifier."""
        return len(self.identities)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash set, config, version, split and all rows, images included (hex)."""
        sha = hashlib.sha256("\0".join([self.title, *self.filename]).encode())
        for column in (self.identity, self.camera, self.modality):
            sha.update(column.astype("<i4").tobytes())
        sha.update(self.digest.tobytes())
        return sha.hexdigest()

    def image(
        self, row: SupportsIndex, size: tuple[int, int]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Decode the RGB image of `row` at `size` = (height, width).

        A file of another size is resized (OpenCV INTER_AREA where no side grows, else
        INTER_LINEAR). Raises UserError when the stored bytes are no image.
        """
        return self.store.image(self.position[row], size)

    def images(
        self,
        rows: Int[np.ndarray, " chosen"],
        size: tuple[int, int],
        cache: str = "none",
    ) -> UInt8[np.ndarray, "chosen height width 3"]:
        """Decode the images of `rows`; `cache="host"` keeps them in memory, decoded.

        The cache holds height x width x 3 bytes an image and belongs to the split: all
        selections from it share one.
        """
        return self.store.images(self.position[rows], tuple(size), cache)

    def silhouettes(self) -> UInt8[np.ndarray, "rows 32 16"]:
        """Decode every row's own visible mask, 0..255, 32 high and 16 wide.

        Raises UserError where the data set has none; only `walkers` has.
        """
        masks = np.empty((len(self), 32, 16), np.uint8)
        for row, position in enumerate(self.position):
            example = self.store.example(position)
            if "silhouette" not in example:
                raise UserError(
                    f"{self.title} has no silhouettes; only 'walkers' has: "
                    "load_records('walkers', ...)."
                )
            encoded = example["silhouette"].bytes_list.value[0]
            encoded = np.frombuffer(encoded, np.uint8)
            masks[row] = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        return masks

    def select(
        self, rows: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " rows"]
    ) -> "Records":
        """Keep `rows` (numbers in any order, or a mask), and the label space."""
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
            raise UserError(f"modality is {modality!r}; use one of {MODALITIES}.")
        return self.select(self.modality == MODALITIES.index(modality))


def split_identities(
    records: Records, held_out: int, seed: int
) -> tuple[Records, Records]:
    """Hold `held_out` identities out of a training set, for validation (our choice).

    They are drawn, as a function of `seed` alone, from the identities seen in both
    modalities. Returns (train, validation); each has a label space of its own.
    Raises UserError unless 1 <= held_out < the number of such identities.
    """
    candidates = np.intersect1d(
        records.of("visible").identity, records.of("infrared").identity
    )
    if not 1 <= held_out < len(candidates):
        raise UserError(
            f"config.data.validation_identities is {held_out}; {records.title} has "
            f"{len(candidates)} identities in both modalities, so choose 1 to "
            f"{len(candidates) - 1}, or 0 for no validation."
        )
    rng = np.random.default_rng(seed)
    drawn = rng.choice(candidates, held_out, replace=False)
    mask = np.isin(records.identity, drawn)
    train, validation = records.select(~mask), records.select(mask)
    return (
        replace(train, identities=np.unique(train.identity)),
        replace(validation, identities=np.unique(validation.identity)),
    )


def load_records(
    name: str,
    split: str,
    *,
    config: str | Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
) -> Records:
    """Open one split of the data set `name`, preparing the set first if it is missing.

    `config` is the name of a builder config, or keyword arguments for the builder
    module's `make_config`, or None for the set's default. `data_dir` is where prepared
    sets live (TFDS's default is ~/tensorflow_datasets). A set that is made from a
    signed release is prepared from `manual_dir`, the folder that holds the release.
    The first opening writes a manifest of the rows beside them.
    Raises UserError for an unknown name, config or split, a release not given, a
    folder that cannot be written to, and for rows that are damaged or are not those of
    the manifest.
    """
    with only_errors():  # TFDS: that our configs are not among those it knows
        builder = find_builder(name, config, data_dir)
        folder = Path(builder.data_path)
        if not os.path.exists(folder):  # or is out of sight: `prepare` will say
            prepare(builder, manual_dir)
            builder = find_builder(name, config, data_dir)
        records = open_records(builder, split)
    manifest = folder / f"manifest-{split}.tsv"
    check_manifest(manifest, _manifest_rows(records), next_step(builder))
    return records


def open_records(builder: Any, split: str) -> Records:
    """Index one split of a prepared TFDS builder (array_record files).

    Raises UserError for an unknown split, a file that is missing or damaged, and for
    what `index_records` refuses.
    """
    step = next_step(builder)
    check_info_files(Path(builder.data_path), step)
    if split not in builder.info.splits:
        raise UserError(
            f"split is {split!r}; {builder.info.full_name} has "
            f"{sorted(builder.info.splits)}."
        )
    # The array_record reader below TFDS's: workers then need not rebuild the builder.
    instructions = builder.info.splits[split].file_instructions
    if not instructions:
        info = Path(builder.data_path) / "dataset_info.json"
        raise UserError(f"{info} says that {split!r} has no rows; {step}.")
    files = RecordFiles(instructions, step)
    return index_records(files, f"{builder.info.full_name}:{split}", step)


def index_records(
    data_source: Any, title: str, next_step: str = "prepare the data set again"
) -> Records:
    """Index serialised tf.train Examples: all that `data_source[0..len-1]` gives.

    Their features are those of our builders: image, identity, camera, modality and
    filename. Reads each once, some 30,000 small images a second. `title` names the
    split in errors and in the fingerprint; `next_step` is what an error tells to do.
    Raises UserError when two rows share a file name, and for an image that is no JPEG,
    PNG or BMP or lacks its end.
    """
    from google.protobuf.message import DecodeError

    store = ImageStore(data_source, title, next_step)
    filename, numbers, digest = [], [], []
    for position in range(len(store)):
        try:
            example = store.example(position)
            filename.append(example["filename"].bytes_list.value[0].decode())
            numbers.append([example[key].int64_list.value[0] for key in _NUMBERS])
            encoded = example["image"].bytes_list.value[0]
        except (DecodeError, IndexError) as error:
            raise UserError(
                f"{title}: record {position} lacks a feature, or is no tf.train "
                f"Example; {next_step}."
            ) from error
        if reason := flaw(encoded):
            raise store.refusal(example, reason)
        digest.append(hashlib.sha256(encoded).digest())
    if len(set(filename)) < len(filename):
        twice = next(f for f in filename if filename.count(f) > 1)
        raise UserError(
            f"{title}: file name {twice!r} occurs more than once; {next_step}."
        )

    order = np.array(sorted(range(len(store)), key=filename.__getitem__), np.int64)
    identity, camera, modality = np.array(numbers, np.int32)[order].T.copy()
    for row in np.flatnonzero((modality < 0) | (modality >= len(MODALITIES)))[:1]:
        raise UserError(
            f"{title}: the modality of {filename[order[row]]!r} is {modality[row]}; 0 "
            f"to {len(MODALITIES) - 1} are {MODALITIES}; {next_step}."
        )
    return Records(
        title=title,
        identity=identity,
        camera=camera,
        modality=modality,
        filename=[filename[i] for i in order],
        identities=np.unique(identity),
        store=store,
        position=order,
        digest=np.frombuffer(b"".join(digest), np.uint8).reshape(-1, 32)[order],
    )


def _manifest_rows(records: Records) -> list[Row]:
    return [
        (name, str(identity), str(camera), MODALITIES[modality], digest.tobytes().hex())
        for name, identity, camera, modality, digest in zip(
            records.filename,
            records.identity,
            records.camera,
            records.modality,
            records.digest,
            strict=True,
        )
    ]
