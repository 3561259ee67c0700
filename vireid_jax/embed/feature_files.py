"""Embeddings of a folder's images in a file: `.npz`, or `.parquet`.

An .npz file holds `features` (float32 `[rows, dim]`), `filename` (relative to the
folder, with `/`), `modality` (0 visible, 1 infrared, one a row, as `evaluate` takes it)
and `about`, a text in JSON. A Parquet file holds the columns `filename`, `modality` and
`features`, and `about` in the schema's metadata. `about` names the folder and the
network; rows are in the order of the names. Equal rows make equal bytes.
"""

import json
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError

SUFFIXES = (".npz", ".parquet")
_ROWS_A_GROUP = 2**14  # of a Parquet file

# What reading a file raises that is truncated, or was not written by vireid_jax.
_DAMAGED = (ValueError, LookupError, TypeError, AttributeError)
_DAMAGED += (EOFError, MemoryError, zipfile.BadZipFile)


class FeatureFile(NamedTuple):
    """The content of a file."""

    features: Float32[np.ndarray, "rows dim"]
    filename: list[str]
    about: dict[str, Any]


def check_suffix(path: Path) -> None:
    """Raise UserError for a file name of no known format."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: the suffix is one of {list(SUFFIXES)}")


def write_features(
    path: Path,
    filename: list[str],
    features: Float32[np.ndarray, "rows dim"],
    about: dict[str, Any],
) -> None:
    """Write a file atomically: a crash leaves the old file intact.

    `about` has `modality` and `dim`. Of `features` on disk (`np.memmap`) little is in
    memory at a time.
    """
    new = path.with_name(f".{path.name}.new")
    modality = np.full(len(filename), MODALITIES.index(about["modality"]), np.int8)
    if path.suffix == ".npz":
        with new.open("wb") as file:
            names, text = np.array(filename, str), np.array(json.dumps(about))
            np.savez(
                file, features=features, filename=names, modality=modality, about=text
            )
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq  # here: an .npz file does not need it

        values = pa.array(features.reshape(-1))
        columns = {
            "filename": pa.array(filename, pa.string()),
            "modality": pa.array(modality),
            "features": pa.FixedSizeListArray.from_arrays(values, about["dim"]),
        }
        table = pa.table(columns, metadata={"about": json.dumps(about)})
        pq.write_table(table, new, row_group_size=_ROWS_A_GROUP)
    os.replace(new, path)


def read_features(path: Path) -> FeatureFile:
    """Read a file of `python -m vireid_jax.extract`.

    Raise UserError where it is missing, damaged, not written by vireid_jax, or names a
    file that would lie outside its folder.
    """
    check_suffix(path)
    how = "make it: python -m vireid_jax.extract --checkpoint DIR --images FOLDER"
    how += f" --modality MODALITY --out {path}"
    if not path.is_file():
        raise UserError(f"there is no file {path}; {how}")
    try:
        read = _read_npz if path.suffix == ".npz" else _read_parquet
        features, filename, text = read(path)
        about = json.loads(text)
        _check(features, filename, about)
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is no feature file ({reason}); {how}") from error
    return FeatureFile(features, filename, about)


def _read_npz(path: Path) -> tuple[np.ndarray, list, str]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return file["features"], file["filename"].tolist(), str(file["about"])


def _read_parquet(path: Path) -> tuple[np.ndarray, list, str]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    column = table.column("features").combine_chunks()
    features = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    about = table.schema.metadata[b"about"].decode()
    return features, table.column("filename").to_pylist(), about


def _check(features: np.ndarray, filename: list, about: dict[str, Any]) -> None:
    if features.dtype != np.float32 or features.shape != (len(filename), about["dim"]):
        raise UserError(f"features are {features.dtype} {features.shape}")
    if not np.isfinite(features).all():
        raise UserError("some features are NaN or infinite")
    texts = [about["network"], about["folder"], *filename]
    if not all(isinstance(text, str) for text in texts):
        raise UserError("the network, the folder and the file names are not all texts")
    for path in map(PurePosixPath, filename):
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"the file name {str(path)!r} is outside the folder")
    if about["modality"] not in MODALITIES:
        raise UserError(f"its modality is {about['modality']!r}")
