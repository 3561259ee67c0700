"""Features, or distances, of any framework: a file read into what a protocol ranks.

docs/evaluate.md has the format. Nothing that a file holds is ever run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from vireid_jax.evaluate.test_split import report
from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import Protocol, Result, Rows, evaluate, find_protocol
from vireid_jax.protocols.reranking import KReciprocal
from vireid_jax.run.errors import UserError

Arrays = dict[str, np.ndarray]

_COLUMNS = ("identity", "camera", "modality")
_SIDES = ("query", "gallery")


class Foreign(NamedTuple):
    """What a file holds: the rows of a split, and features or distances of them.

    With `distances` the rows are all queries, then the whole gallery pool.
    """

    rows: Rows
    features: np.ndarray | None  # [rows, dim]
    distances: np.ndarray | None  # [queries, gallery]


def read_arrays(path: Path) -> Arrays:
    """Reads an .npz file, or a .mat file up to MATLAB's version 7.

    Raises UserError for any other, and for one that holds Python objects.
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

        found = loadmat(path, squeeze_me=False, chars_as_strings=True)
    except NotImplementedError as error:  # an HDF5 file
        raise UserError(
            f"{path} is a MATLAB file of version 7.3; save it with '-v7'"
        ) from error
    except Exception as error:  # of a damaged file scipy raises almost anything
        reason = str(error).partition("\n")[0]
        if "pickle" in reason:  # numpy's advice is to run what the file holds
            reason = "it holds Python objects, or is no such file at all"
        raise UserError(
            f"{path} cannot be read ({reason}); write it anew, of plain numbers and"
            " texts"
        ) from error
    return {name: x for name, x in found.items() if not name.startswith("__")}


def _read_split(path: Path, arrays: Arrays, protocol: Protocol) -> Foreign:
    if "distances" in arrays:
        return _read_distances(path, arrays, protocol)
    # Official draws are by the release's image numbers: the order of its file names.
    names = ("filename",) if protocol.draws == "official" else ()
    _require(path, arrays, ("features", *_COLUMNS, *names))
    features = _matrix(path, arrays, "features")
    columns = {name: _column(path, arrays, name, len(features)) for name in _COLUMNS}
    filename = _filenames(path, arrays, "filename", len(features))
    columns["modality"] = _modalities(path, columns["modality"])
    zero = np.flatnonzero(~features.any(axis=1))
    if len(zero):
        raise UserError(
            f"{path}: {len(zero)} of {len(features)} features are all 0, the first is"
            f" row {zero[0]}; a feature needs a direction"
        )
    return Foreign(_rows(path, filename, **columns), features, None)


def _read_distances(path: Path, arrays: Arrays, protocol: Protocol) -> Foreign:
    names = [f"{side}_{name}" for side in _SIDES for name in ("identity", "camera")]
    if protocol.draws == "official":
        names.append("gallery_filename")
    _require(path, arrays, ("distances", *names))
    distances = _matrix(path, arrays, "distances")
    sides: dict[str, list] = {name: [] for name in (*_COLUMNS, "filename")}
    for side, modality, count in zip(
        _SIDES, protocol.modalities, distances.shape, strict=True
    ):
        for name in ("identity", "camera"):
            sides[name].append(_column(path, arrays, f"{side}_{name}", count))
        sides["modality"].append(np.full(count, MODALITIES.index(modality)))
        sides["filename"] += _filenames(path, arrays, f"{side}_filename", count)
    filename = sides.pop("filename")
    columns = {name: np.concatenate(parts) for name, parts in sides.items()}
    return Foreign(_rows(path, filename, **columns), None, distances)


def evaluate_features(
    arrays: Mapping[str, np.ndarray],
    protocols: Sequence[str],
    *,
    reranking: KReciprocal | None = None,
    console: Console | None = None,
) -> list[Result]:
    """Score features of any framework; return a result for each protocol.

    `arrays` are those of docs/evaluate.md: `features` `[rows, dim]`, `identity`,
    `camera` and `modality` `[rows]`, for instance. `protocols` are names of
    docs/protocols.md. `console` shows the tables, None: they are not shown. Raise
    UserError for arrays that a protocol cannot rank.
    """
    results, _ = _evaluate(
        Path("features"),
        {name: np.asarray(array) for name, array in arrays.items()},
        [find_protocol(name) for name in protocols],
        reranking,
    )
    if console:
        report(results, console)
    return results


def evaluate_file(
    path: Path, protocols: Sequence[Protocol], reranking: KReciprocal | None = None
) -> tuple[list[Result], Rows]:
    """Read a file once and rank it by each protocol; return its rows as well."""
    return _evaluate(path, read_arrays(path), protocols, reranking)


def _evaluate(
    path: Path,
    arrays: Arrays,
    protocols: Sequence[Protocol],
    reranking: KReciprocal | None,
) -> tuple[list[Result], Rows]:
    """Rank the arrays by each protocol; errors name `path`.

    All trials of a protocol are ranked from one pass over the distances. Raise
    UserError for arrays that are missing, do not fit together, or are not finite; for
    distances, whose queries are of one modality, in both directions, or re-ranked.
    """
    directions = {protocol.direction for protocol in protocols}
    if "distances" in arrays and len(directions) > 1:
        raise UserError(
            f"{path} holds distances, whose queries are of one modality; protocols of"
            f" {' and '.join(sorted(directions))} need a file each"
        )
    found = [_read_split(path, arrays, protocol) for protocol in protocols]
    results = [
        _rank(path, foreign, protocol, reranking)
        for foreign, protocol in zip(found, protocols, strict=True)
    ]
    return results, found[0].rows


def _rank(
    path: Path, foreign: Foreign, protocol: Protocol, reranking: KReciprocal | None
) -> Result:
    labels = {"feature": path.name, "flip": None}  # nobody says what was combined
    if foreign.distances is None:
        features = foreign.features
        return evaluate(protocol, foreign.rows, features, reranking=reranking, **labels)
    if reranking:
        raise UserError(
            f"{path} holds distances between queries and gallery alone; --rerank needs"
            " features"
        )
    first = foreign.distances.shape[0]

    def distances(query, gallery):
        # What stands for features are row numbers.
        rows, columns = query[:, 0].astype(int), gallery[:, 0].astype(int) - first
        whole = np.array_equal(columns, np.arange(foreign.distances.shape[1]))

        def rows_at(block):
            found = foreign.distances[rows[block]]
            return found if whole else found[:, columns]

        return rows_at

    numbers = np.arange(len(foreign.rows.identity), dtype=np.float64)[:, None]
    return evaluate(protocol, foreign.rows, numbers, distances=distances, **labels)


# --- Arrays ---------------------------------------------------------------------------


def _require(path: Path, arrays: Arrays, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'no'}"
            " arrays. docs/evaluate.md says what each is"
        )


def _matrix(path: Path, arrays: Arrays, name: str) -> np.ndarray:
    x = arrays[name]
    if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise UserError(f"{path}: {name} is {x.dtype} {x.shape}; it is a real matrix")
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise UserError(
            f"{path}: {name} are not finite in {len(bad)} of {len(x)} rows, the first"
            f" is row {bad[0]}; legal are finite numbers"
        )
    return x


def _column(path: Path, arrays: Arrays, name: str, count: int) -> np.ndarray:
    """Returns one value a row, whichever way MATLAB has laid them."""
    x = arrays[name]
    x = x.reshape(-1) if x.size == max(x.shape, default=1) else x
    if x.shape != (count,):
        raise UserError(
            f"{path}: {name} is {arrays[name].shape}; there are {count} rows, so it is"
            f" [{count}]"
        )
    return x


def _filenames(path: Path, arrays: Arrays, name: str, count: int) -> list[str]:
    """Returns each row's name; where none is given, names in the order of rows."""
    if name not in arrays:
        return [f"{name}/{row:09}" for row in range(count)]
    return [_text(x) for x in _column(path, arrays, name, count)]


def _text(x: Any) -> str:
    while isinstance(x, np.ndarray) and x.size == 1:  # a cell of MATLAB's
        x = x.item() if x.dtype.kind != "O" else x.reshape(-1)[0]
    return str(x).strip()


def _modalities(path: Path, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "iufb" and np.isin(x, range(len(MODALITIES))).all():
        return x.astype(np.int32)
    texts = [_text(one) for one in x]
    wrong = sorted(set(texts) - set(MODALITIES))
    if wrong:
        raise UserError(
            f"{path}: modality {wrong[0]!r}; legal are {list(MODALITIES)}, or 0 and 1"
        )
    return np.array([MODALITIES.index(text) for text in texts], np.int32)


def _rows(path: Path, filename: list[str], **columns: np.ndarray) -> Rows:
    whole = {name: _whole(path, name, x) for name, x in columns.items()}
    # The order of files within (identity, camera) decides what a draw takes.
    places = zip(whole["identity"], whole["camera"], filename, strict=True)
    ((_, _, file), times), *_ = Counter(places).most_common(1)
    if times > 1:
        raise UserError(
            f"{path}: file name {file!r} stands {times} times in one identity and"
            " camera; names must tell the images of a draw apart, so give each image"
            " its own, or leave them out"
        )
    return SimpleNamespace(filename=filename, **whole)


def _whole(path: Path, name: str, x: np.ndarray) -> np.ndarray:
    """Returns int32; raises UserError for fractions, NaN, texts and huge numbers."""
    if x.dtype.kind not in "iuf":
        raise UserError(f"{path}: {name} is {x.dtype}; it is whole numbers")
    bounds = np.iinfo(np.int32)
    wrong = ~((x >= bounds.min) & (x <= bounds.max) & (x == np.floor(x)))
    if wrong.any():
        row = np.argmax(wrong)
        raise UserError(
            f"{path}: {name} is {x.dtype}; it is whole numbers below 2**31, and row"
            f" {row} holds {x[row]}"
        )
    return x.astype(np.int32)
