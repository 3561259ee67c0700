"""Features, or distances, of any framework: a file read into what a protocol ranks.

docs/evaluate.md has the format. Nothing that a file holds is ever run.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from vireid_jax.evaluate.test_split import print_results
from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import Protocol, Result, Rows, evaluate, find_protocol
from vireid_jax.protocols.reranking import KReciprocal
from vireid_jax.run.errors import UserError

Arrays = dict[str, np.ndarray]


def read_arrays(path: Path) -> Arrays:
    """Read an .npz file, or a .mat file up to MATLAB's version 7.

    Raise UserError for any other, and for one that holds Python objects.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; give --features FILE.npz or .mat")
    if path.suffix not in (".npz", ".mat"):
        raise UserError(f"{path} is neither .npz nor .mat; docs/evaluate.md says how")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        from scipy.io import loadmat

        arrays = loadmat(path, squeeze_me=False, chars_as_strings=True)
    except NotImplementedError as error:  # an HDF5 file
        raise UserError(
            f"{path} is a MATLAB file of version 7.3; save it with '-v7'"
        ) from error
    except Exception as error:  # of a damaged file scipy raises almost anything
        reason = str(error).partition("\n")[0]
        if "pickle" in reason:  # numpy's advice is to run what the file holds
            reason = "it holds Python objects, or is no such file at all"
        raise UserError(
            f"{path} cannot be read ({reason}); write it again, of plain numbers and"
            " texts"
        ) from error
    return {name: x for name, x in arrays.items() if not name.startswith("__")}


def evaluate_file(
    path: Path, protocols: Sequence[Protocol], reranking: KReciprocal | None = None
) -> tuple[list[Result], Rows]:
    """Read a file once and rank it by each protocol; return its rows as well."""
    return _rank_arrays(path, read_arrays(path), protocols, reranking)


def evaluate_features(
    arrays: Mapping[str, np.ndarray],
    protocols: Sequence[str],
    *,
    reranking: KReciprocal | None = None,
    console: Console | None = None,
) -> list[Result]:
    """Score features of any framework; return a result for each protocol.

    `arrays` are those of docs/evaluate.md: `features` `[rows, dim]`, and `identity`,
    `camera` and `modality` `[rows]`, for instance. `protocols` are names of
    docs/protocols.md. `console` shows the tables, None: they are not shown. Raise
    UserError for arrays that a protocol cannot rank.
    """
    found = [find_protocol(name) for name in protocols]
    given = {name: np.asarray(array) for name, array in arrays.items()}
    results, _ = _rank_arrays(Path("features"), given, found, reranking)
    if console:
        print_results(results, console)
    return results


def _rank_arrays(
    path: Path,
    arrays: Arrays,
    protocols: Sequence[Protocol],
    reranking: KReciprocal | None,
) -> tuple[list[Result], Rows]:
    """Rank the arrays of the file `path` by each protocol; return its rows as well.

    Raise UserError for arrays that are missing, do not fit together, or are not finite;
    for distances, whose queries are of one modality, in both directions, or re-ranked.
    """
    rank = functools.partial(evaluate, feature=path.name, flip=None)  # flip: not known
    try:
        if "distances" not in arrays:
            splits = [_read_features(arrays, protocol) for protocol in protocols]
            results = [
                rank(protocol, rows, features, reranking=reranking)
                for protocol, (rows, features) in zip(protocols, splits, strict=True)
            ]
            return results, splits[0][0]
        directions = sorted({protocol.direction for protocol in protocols})
        if len(directions) > 1:
            raise UserError(
                "the queries of distances are of one modality; protocols of"
                f" {' and '.join(directions)} need a file each"
            )
        if reranking:
            raise UserError(
                "these are distances between queries and gallery alone; --rerank needs"
                " features"
            )
        splits = [_read_distances(arrays, protocol) for protocol in protocols]
        results = []
        for protocol, (rows, distances) in zip(protocols, splits, strict=True):
            numbers = np.arange(len(rows.identity), dtype=np.float64)[:, None]
            between = functools.partial(_rows_between, distances)
            results.append(rank(protocol, rows, numbers, distances=between))
        return results, splits[0][0]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _rows_between(
    distances: np.ndarray, query: np.ndarray, gallery: np.ndarray
) -> Callable[[slice], np.ndarray]:
    """Look distances up: in place of features come row numbers, queries first."""
    lines, columns = query[:, 0].astype(int), gallery[:, 0].astype(int)
    columns = columns - len(distances)
    every = np.array_equal(columns, np.arange(distances.shape[1]))
    chosen = slice(None) if every else columns
    return lambda block: distances[lines[block]][:, chosen]


# --- Arrays: the caller puts the file's name before an error --------------------------


def _read_features(arrays: Arrays, protocol: Protocol) -> tuple[Rows, np.ndarray]:
    # Official draws are by the release's image numbers: the order of its file names.
    names = ("filename",) if protocol.draws == "official" else ()
    columns = ("identity", "camera", "modality")
    _require(arrays, ("features", *columns, *names))
    features = _matrix(arrays, "features")
    identity, camera, modality = (_column(arrays, n, len(features)) for n in columns)
    zero = np.flatnonzero(~features.any(axis=1))
    if len(zero):
        raise UserError(
            f"{len(zero)} of {len(features)} features are all 0, the first is row"
            f" {zero[0]}; a feature needs a direction"
        )
    filename = _filenames(arrays, "filename", len(features))
    return _rows(filename, identity, camera, _modalities(modality)), features


def _read_distances(arrays: Arrays, protocol: Protocol) -> tuple[Rows, np.ndarray]:
    columns = ("identity", "camera")
    names = [f"{side}_{name}" for side in ("query", "gallery") for name in columns]
    if protocol.draws == "official":
        names.append("gallery_filename")
    _require(arrays, ("distances", *names))
    distances = _matrix(arrays, "distances")
    sides = list(zip(("query", "gallery"), distances.shape, strict=True))
    identity, camera = (
        np.concatenate([_column(arrays, f"{side}_{name}", n) for side, n in sides])
        for name in columns
    )
    filename = [
        x for side, n in sides for x in _filenames(arrays, f"{side}_filename", n)
    ]
    codes = [MODALITIES.index(modality) for modality in protocol.modalities]
    modality = np.repeat(codes, distances.shape)
    return _rows(filename, identity, camera, modality), distances


def _require(arrays: Arrays, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in arrays]:
        raise UserError(
            f"it has no {', '.join(missing)}; it holds {', '.join(arrays) or 'no'}"
            " arrays. docs/evaluate.md says what each is"
        )


def _matrix(arrays: Arrays, name: str) -> np.ndarray:
    x = arrays[name]
    if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise UserError(f"{name} is {x.dtype} {x.shape}; valid values: a real matrix")
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise UserError(
            f"{name} are not finite in {len(bad)} of {len(x)} rows, the first is row"
            f" {bad[0]}; valid values: finite numbers"
        )
    return x


def _column(arrays: Arrays, name: str, count: int) -> np.ndarray:
    """Return one value a row: MATLAB writes a row or a column."""
    x = arrays[name]
    x = x.reshape(-1) if x.size == max(x.shape, default=1) else x
    if x.shape != (count,):
        raise UserError(
            f"{name} is {arrays[name].shape}; there are {count} rows, so it is"
            f" [{count}]"
        )
    return x


def _filenames(arrays: Arrays, name: str, count: int) -> list[str]:
    """Return each row's name; by default, names in the order of rows."""
    if name not in arrays:
        return [f"{name}/{row:09}" for row in range(count)]
    return [_text(x) for x in _column(arrays, name, count)]


def _text(x: Any) -> str:
    while isinstance(x, np.ndarray) and x.size == 1:  # a MATLAB cell
        x = x.item() if x.dtype.kind != "O" else x.reshape(-1)[0]
    return str(x).strip()


def _modalities(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "iufb" and np.isin(x, range(len(MODALITIES))).all():
        return x.astype(np.int32)
    texts = [_text(one) for one in x]
    if wrong := sorted(set(texts) - set(MODALITIES)):
        raise UserError(
            f"modality {wrong[0]!r}; valid values: {list(MODALITIES)}, or 0 and 1"
        )
    return np.array([MODALITIES.index(text) for text in texts], np.int32)


def _rows(
    filename: list[str], identity: np.ndarray, camera: np.ndarray, modality: np.ndarray
) -> Rows:
    identity = _integers("identity", identity)
    camera, modality = _integers("camera", camera), _integers("modality", modality)
    # The order of files within (identity, camera) decides what a draw takes.
    images = zip(identity, camera, filename, strict=True)
    ((_, _, file), times), *_ = Counter(images).most_common(1)
    if times > 1:
        raise UserError(
            f"file name {file!r} is given {times} times in one identity and camera; a"
            " draw chooses by name, so give each image its own, or leave the names out"
        )
    return SimpleNamespace(
        identity=identity, camera=camera, modality=modality, filename=filename
    )


def _integers(name: str, x: np.ndarray) -> np.ndarray:
    """Return int32; raise UserError for fractions, NaN, texts and huge numbers."""
    bounds, valid = np.iinfo(np.int32), np.zeros(len(x), bool)
    if x.dtype.kind in "iuf":
        valid = (x >= bounds.min) & (x <= bounds.max) & (x == np.floor(x))
    if not valid.all():
        row = np.argmin(valid)
        raise UserError(
            f"{name} is {x.dtype}; valid values: whole numbers below 2**31, and row"
            f" {row} holds {x[row]}"
        )
    return x.astype(np.int32)
