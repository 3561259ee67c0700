"""Embeddings of a folder's images in a file: `.npz`, or `.parquet`.

An .npz file holds `features` (float32 `[rows, dim]`), `filename` (relative to the
folder, with `/`), `modality` (0 visible, 1 infrared, a row each, as `evaluate` takes
it) and `about`, a text in JSON. A Parquet file holds the columns `filename`, `modality`
and `features`, and `about` in the schema's metadata. `about` names the folder and the
network; rows come in the order of the names. Equal rows make equal bytes.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError

SUFFIXES = (".npz", ".parquet")

# What reading a file raises that was cut, or never was one of ours.
DAMAGED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    zipfile.BadZipFile,
)


class FeatureFile(NamedTuple):
    """What a file holds."""

    features: Float32[np.ndarray, "rows dim"]
    filename: list[str]
    about: dict[str, Any]


def check_suffix(path: Path) -> None:
    """Raises UserError for a file name that says no known format."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: the suffix is one of {list(SUFFIXES)}")


def write_features(
    path: Path,
    filename: list[str],
    parts: Iterable[Float32[np.ndarray, "_ dim"]],
    about: dict[str, Any],
) -> None:
    """Writes a file part by part, so that memory holds one of them.

    `about` has `modality` and `dim`. Who is killed meanwhile leaves the old file.
    """
    new = path.with_name(f".{path.name}.new")
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    write(new, filename, parts, about)
    os.replace(new, path)


def _write_npz(path, filename, parts, about) -> None:
    form = np.lib.format
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            shape = (len(filename), about["dim"])
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            form.write_array_header_2_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, "<f4").tobytes())
        arrays = {
            "filename": np.array(filename, str),
            "modality": np.full(len(filename), _code(about), np.int8),
            "about": np.array(json.dumps(about)),
        }
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                form.write_array(file, array, allow_pickle=False)


def _write_parquet(path, filename, parts, about) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq  # here: an .npz is not to wait for it

    schema = pa.schema(
        [
            ("filename", pa.string()),
            ("modality", pa.int8()),
            ("features", pa.list_(pa.float32(), about["dim"])),
        ],
        metadata={"about": json.dumps(about)},
    )
    with pq.ParquetWriter(path, schema) as writer:
        first = 0
        for part in parts:
            names = filename[first : first + len(part)]
            first += len(part)
            values = pa.array(np.ascontiguousarray(part, np.float32).reshape(-1))
            columns = [
                pa.array(names, pa.string()),
                pa.array([_code(about)] * len(names), pa.int8()),
                pa.FixedSizeListArray.from_arrays(values, about["dim"]),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _code(about: dict[str, Any]) -> int:
    return MODALITIES.index(about["modality"])


def read_features(path: Path) -> FeatureFile:
    """Reads a file of `python -m vireid_jax.extract`, whole.

    Raises UserError where it is missing, damaged, none of ours, or names a file that
    would lie outside its folder.
    """
    check_suffix(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; make it: {_how(path)}")
    try:
        read = _read_npz if path.suffix == ".npz" else _read_parquet
        found = _checked(*read(path))
    except DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is no file of features ({reason}); make it anew: {_how(path)}"
        ) from error
    for name in found.filename:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise UserError(
                f"{path} names {name!r}, outside its folder; make it anew: {_how(path)}"
            )
    return found


def _how(path: Path) -> str:
    return (
        "python -m vireid_jax.extract --checkpoint DIR --images FOLDER --modality"
        f" MODALITY --out {path}"
    )


def _read_npz(path: Path) -> tuple[np.ndarray, list, str]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        names = ("features", "filename", "about")
        features, filename, about = (file[name] for name in names)
    return features, filename.tolist(), str(about)


def _read_parquet(path: Path) -> tuple[np.ndarray, list, str]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    about = table.schema.metadata[b"about"].decode()
    column = table.column("features").combine_chunks()
    width = column.type.list_size
    features = column.flatten().to_numpy().reshape(-1, width)
    return features, table.column("filename").to_pylist(), about


def _checked(features: np.ndarray, filename: list, about: str) -> FeatureFile:
    told = json.loads(about)
    if features.dtype != np.float32 or features.shape != (len(filename), told["dim"]):
        raise UserError(f"features are {features.dtype} {features.shape}")
    if not np.isfinite(features).all():
        raise UserError("some features are no numbers")
    texts = [told["network"], told["folder"], *filename]
    if not all(isinstance(text, str) for text in texts):
        raise UserError("the network, the folder and the file names are not all texts")
    if told["modality"] not in MODALITIES:
        raise UserError(f"its modality is {told['modality']!r}")
    return FeatureFile(features, filename, told)
