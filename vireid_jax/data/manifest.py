"""Store the rows of a prepared split beside its record files.

`manifest-SPLIT.tsv` has one line an image, in the order of `Records`;
`manifest-SPLIT.json` the SHA-256 of these lines, and the size and modification time of
each record file. While these match, no record needs to be read.
"""

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_bytes, replace_text

States = Mapping[str, tuple[int, int]]
"""Size and modification time (ns) of each record file, by name."""


class Row(NamedTuple):
    """One image of a split. The field names are the columns of the manifest."""

    filename: str
    identity: int
    camera: int
    modality: str  # a name in MODALITIES
    sha256: str  # of the encoded image, hex
    record: int  # position in the record files


def read_manifest(path: Path, files: States) -> list[Row] | None:
    """Return the rows at `path`; None if they or a record file may have changed."""
    with contextlib.suppress(OSError, ValueError):
        content = path.read_bytes()
        if json.loads(path.with_suffix(".json").read_text()) == _seal(content, files):
            return _decode(content)
    return None


def check_manifest(
    path: Path, rows: Sequence[Row], files: States, next_step: str
) -> None:
    """Compare `rows`, just read, with the manifest at `path`, then write it.

    In a folder that cannot be written to, nothing is written. Raise UserError, which
    ends with `next_step`, for a damaged manifest and for rows that differ from it.
    """
    now = {row.filename: row[:5] for row in rows}
    try:
        recorded = _decode(path.read_bytes())
        before = {row.filename: row[:5] for row in recorded}
        if len(before) < len(recorded):
            raise UserError("a file name occurs more than once")
    except FileNotFoundError:
        before = now
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a manifest ({error}); {next_step}") from error

    names = sorted(before.keys() | now.keys())
    differing = [name for name in names if before.get(name) != now.get(name)]
    if differing:
        first = differing[0]
        difference = _difference(before.get(first), now.get(first))
        raise UserError(
            f"{path} differs from the records in {len(differing)} of {len(names)} "
            f"rows, the first being {first!r} ({difference}); {next_step}"
        )
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows([Row._fields, *rows])
    content = text.getvalue().encode()
    with contextlib.suppress(OSError):  # a set can be used where nothing can be written
        replace_bytes(path, content)
        replace_text(path.with_suffix(".json"), json.dumps(_seal(content, files)))


def _seal(content: bytes, files: States) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "files": {name: [*state] for name, state in files.items()},
    }


def _decode(content: bytes) -> list[Row]:
    text = io.StringIO(content.decode(), newline="")
    header, *lines = [*csv.reader(text, delimiter="\t")] or [[]]
    # Manifests of the first version have no column `record`: only `check_manifest`,
    # which does not use it, reads them, since they have no seal.
    if tuple(header) not in (Row._fields, Row._fields[:5]):
        raise UserError(f"its first line is not {' '.join(Row._fields)}")
    rows = []
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise UserError(f"line {number} has {len(line)} columns")
        filename, identity, camera, modality, sha256, *record = line
        labels = int(identity), int(camera), modality
        rows.append(Row(filename, *labels, sha256, int(*record)))
    return rows


def _difference(before: tuple | None, now: tuple | None) -> str:
    if now is None:
        return "the row is missing"
    if before is None:
        return "the row is new"
    columns = zip(Row._fields, before, now, strict=False)  # without the record
    return ", ".join(
        f"{name} was {a!s:.12}, is {b!s:.12}" for name, a, b in columns if a != b
    )
