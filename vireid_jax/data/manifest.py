"""Remember the rows of a prepared split, and refuse one that has changed since.

A manifest lies beside the records: tab-separated, a row an image, in the order of
`Records`.
"""

import contextlib
import csv
import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from vireid_jax.run.errors import UserError

Row = tuple[str, str, str, str, str]
COLUMNS = ("filename", "identity", "camera", "modality", "sha256")


def check_manifest(path: Path, rows: Sequence[Row], next_step: str) -> None:
    """Compare `rows` with the manifest at `path`; write it where there is none.

    Where it cannot be written it is not. Raises UserError, which ends with
    `next_step`, for a manifest that cannot be read, and for rows that differ from it.
    """
    encoded = _encode(rows)
    try:
        recorded = path.read_bytes()
        if recorded == encoded:
            return
        before = _decode(recorded)
    except FileNotFoundError:
        _write(path, encoded)
        return
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is no manifest ({error}); {next_step}.") from error

    now = {row[0]: row for row in rows}
    names = sorted(before.keys() | now.keys())
    differing = [name for name in names if before.get(name) != now.get(name)]
    if differing:
        first = differing[0]
        count = "1 row is" if len(differing) == 1 else f"{len(differing)} rows are"
        raise UserError(
            f"{path}: {count} not as recorded there, the first being {first!r} "
            f"({_difference(before.get(first), now.get(first))}); {next_step}."
        )


def _encode(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    return text.getvalue().encode()


def _decode(encoded: bytes) -> dict[str, Row]:
    """Return the rows by file name; raises UserError where it is no manifest."""
    text = io.StringIO(encoded.decode(), newline="")
    header, *rows = [tuple(row) for row in csv.reader(text, delimiter="\t")] or [()]
    if header != COLUMNS:
        raise UserError(f"its first line is not {' '.join(COLUMNS)}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS):
            raise UserError(f"row {number} has {len(row)} columns")
    by_name = {row[0]: row for row in rows}
    if len(by_name) < len(rows):
        raise UserError("a file name occurs more than once")
    return by_name


def _difference(before: Row | None, now: Row | None) -> str:
    if now is None:
        return "the row is missing"
    if before is None:
        return "the row is new"
    *labels, image = zip(COLUMNS, before, now, strict=True)
    changes = [f"{name} was {old}, is {new}" for name, old, new in labels if old != new]
    if image[1] != image[2]:
        changes.append("the image has other bytes")
    return ", ".join(changes)


def _write(path: Path, encoded: bytes) -> None:
    """Write the file whole or not at all; any number of processes may at once."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        new.write_bytes(encoded)
        os.replace(new, path)
    except OSError:  # a set can be used where nothing can be written
        with contextlib.suppress(OSError):
            new.unlink()
