"""Features, or distances, of any framework: a file read into what a protocol ranks.

docs/evaluate.md has the format. Nothing that a file holds is ever run.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from vireid_jax.evaluate.compare_runs import read_npz
from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import KReciprocal, Protocol, Result, Rows, find_protocol
from vireid_jax.protocols.ranking import cosine_rows
from vireid_jax.protocols.result import RowsBetween, evaluate
from vireid_jax.protocols.tables import print_results
from vireid_jax.run.errors import UserError

Arrays = dict[str, np.ndarray]


def read_arrays(path: Path) -> Arrays:
    """Read an .npz file, or a .mat file up to MATLAB's version 7.

    Raise UserError for any other, and for one that holds Python objects.
    """
    if path.suffix == ".npz":
        return read_npz(path, "give --features FILE.npz, of plain numbers and texts")
    if path.suffix != ".mat" or not path.is_file():
        raise UserError(f"{path} is no .npz or .mat file; see docs/evaluate.md")
    from scipy.io import loadmat

    try:
        arrays = loadmat(path)
    except NotImplementedError as error:  # an HDF5 file
        raise UserError(f"{path} is of MATLAB 7.3; save it with '-v7'") from error
    except Exception as error:  # of a damaged file scipy raises almost anything
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({reason}); write it again") from error
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
    directions = {protocol.direction for protocol in protocols}
    try:
        if "distances" in arrays and (reranking or len(directions) > 1):
            raise UserError(
                "these are distances between queries of one modality and a gallery;"
                " --rerank needs features, and each direction needs a file of its own"
            )
        splits = [_read(arrays, protocol) for protocol in protocols]
        label = functools.partial(evaluate, feature=path.name, flip=None)  # not known
        results = [
            label(protocol, rows, x, distances=distances, reranking=reranking)
            for protocol, (rows, x, distances) in zip(protocols, splits, strict=True)
        ]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return results, splits[0][0]


# --- Arrays: the caller puts the file's name before an error --------------------------


def _read(arrays: Arrays, protocol: Protocol) -> tuple[Rows, np.ndarray, RowsBetween]:
    """Return rows, and what `evaluate` takes as their features and distances."""
    of_pairs = "distances" in arrays
    sides = ("query_", "gallery_") if of_pairs else ("",)
    columns = ("identity", "camera") if of_pairs else ("identity", "camera", "modality")
    names = ["distances" if of_pairs else "features"]
    names += [side + column for side in sides for column in columns]
    if protocol.draws == "official":  # by image numbers: the order of file names
        names.append(f"{sides[-1]}filename")
    if missing := [name for name in names if name not in arrays]:
        raise UserError(
            f"it has no {', '.join(missing)}; it holds {', '.join(arrays) or 'no'}"
            " arrays. docs/evaluate.md has the format"
        )
    values = _matrix(arrays, names[0])
    counts = dict(zip(sides, values.shape, strict=False))

    def column(name):
        parts = [_column(arrays, side + name, n) for side, n in counts.items()]
        return np.concatenate(parts)

    rows = SimpleNamespace(
        identity=_integers("identity", column("identity")),
        camera=_integers("camera", column("camera")),
        filename=[
            name for side, n in counts.items() for name in _filenames(arrays, side, n)
        ],
    )
    # The order of files within (identity, camera) decides what a draw takes.
    images = zip(rows.identity, rows.camera, rows.filename, strict=True)
    ((_, _, file), times), *_ = Counter(images).most_common(1)
    if times > 1:
        raise UserError(
            f"file name {file!r} is given {times} times in one identity and camera; a"
            " draw chooses by name, so give each image its own, or leave the names out"
        )
    if not of_pairs:
        rows.modality = _modalities(column("modality"))
        return rows, values, cosine_rows
    codes = np.array([MODALITIES.index(name) for name in protocol.modalities], np.int32)
    rows.modality = np.repeat(codes, values.shape)

    def rows_between(query, gallery):  # row numbers in place of features
        lines, items = query[:, 0].astype(int), gallery[:, 0].astype(int) - len(values)
        return lambda block: values[np.ix_(lines[block], items)]

    numbers = np.arange(len(rows.identity), dtype=np.float64)  # queries first
    return rows, numbers[:, None], rows_between


def _matrix(arrays: Arrays, name: str) -> np.ndarray:
    x = arrays[name]
    if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise UserError(f"{name} is {x.dtype} {x.shape}; valid values: a real matrix")
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    bad = ~np.isfinite(x).all(axis=1)
    if name == "features":
        bad |= ~x.any(axis=1)
    if bad.any():
        raise UserError(
            f"{name} are not finite, or all 0, in {bad.sum()} of {len(x)} rows, the"
            f" first is row {np.argmax(bad)}; valid values: finite numbers, and"
            " features with a direction"
        )
    return x


def _column(arrays: Arrays, name: str, count: int) -> np.ndarray:
    """Return one value a row: MATLAB writes a row or a column."""
    x = arrays[name]
    x = x.reshape(-1) if x.size == max(x.shape, default=1) else x
    if x.shape != (count,):
        raise UserError(f"{name} is {arrays[name].shape}; give [{count}], one a row")
    return x


def _filenames(arrays: Arrays, side: str, count: int) -> list[str]:
    """Return each row's name; by default, names in the order of rows."""
    name = f"{side}filename"
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
        raise UserError(f"modality {wrong[0]!r}; valid values: {MODALITIES}, 0 and 1")
    return np.array([MODALITIES.index(text) for text in texts], np.int32)


def _integers(name: str, x: np.ndarray) -> np.ndarray:
    """Return int32; raise UserError for fractions, NaN, texts and huge numbers."""
    bounds, valid = np.iinfo(np.int32), np.zeros(len(x), bool)
    if x.dtype.kind in "iuf":
        valid = (x >= bounds.min) & (x <= bounds.max) & (x == np.floor(x))
    if not valid.all():
        row = np.argmin(valid)
        raise UserError(
            f"{name} is {x[row]} in row {row}; valid values: whole numbers below 2**31"
        )
    return x.astype(np.int32)
