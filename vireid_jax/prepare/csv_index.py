"""Read a CSV file that describes the images of a custom data set."""

import csv
from pathlib import Path, PurePosixPath

from vireid_jax.modality import MODALITIES
from vireid_jax.prepare.release import SUFFIXES, Image, Splits
from vireid_jax.run.errors import UserError

COLUMNS = ("image", "identity", "camera", "modality", "split")
SPLITS = ("train", "test")
_HIGHEST = 2**31 - 1  # of an int32


def find_csv(source: Path) -> Path:
    """Return `source`, or the only CSV file in it; raise UserError for none or more."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"{source} does not exist; give a CSV file, or its folder")
    paths = sorted(source.glob("*.csv"))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise UserError(
            f"{source} holds {len(paths)} CSV files ({names}); give the file itself, "
            f"with {','.join(COLUMNS)} as its first line"
        )
    return paths[0]


def read_csv(path: Path) -> Splits:
    """List the images of each split; their paths are below the folder of the CSV.

    Raise UserError, with the line, for a missing or malformed value, and for people in
    both splits.
    """
    splits: Splits = {}
    lines: dict[tuple[str, str], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            header = list(rows.fieldnames or ())
            if missing := [column for column in COLUMNS if column not in header]:
                raise UserError(
                    f"{path}, line 1: the column {missing[0]!r} is missing from "
                    f"{header}; begin with {','.join(COLUMNS)}"
                )
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                image = _read_row(row, where, path.parent)
                split = row["split"].strip()
                first = lines.setdefault((split, image.filename), rows.line_num)
                if first != rows.line_num:
                    error = f"{image.filename!r} is in line {first} too"
                    raise UserError(f"{where}: {error}; list each image once")
                splits.setdefault(split, []).append(image)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    if not splits:
        raise UserError(f"{path} has a header and no rows; give one row an image")
    people = [{im.identity for im in splits.get(split, ())} for split in SPLITS]
    if both := sorted(people[0] & people[1]):
        raise UserError(
            f"{path}: identities {both[:5]} are in train and in test ({len(both)} in "
            "all); give each person one split"
        )
    return splits


def _read_row(row: dict, where: str, folder: Path) -> Image:
    """Check a row and return its image."""
    if None in row or None in row.values():
        state = "more" if None in row else "fewer"
        error = f"it has {state} columns than the header"
        raise UserError(f"{where}: {error}; put a value with a comma into quotes")
    values = {column: row[column].strip() for column in COLUMNS}
    for column in ("identity", "camera"):
        if not values[column].isdecimal() or int(values[column]) > _HIGHEST:
            valid = f"valid values: whole numbers from 0 to {_HIGHEST}"
            raise UserError(f"{where}: {column} is {values[column]!r}; {valid}")
    for column, names in (("modality", MODALITIES), ("split", SPLITS)):
        if values[column] not in names:
            valid = f"valid values: {names}"
            raise UserError(f"{where}: {column} is {values[column]!r}; {valid}")
    name = PurePosixPath(values["image"])
    error = ""
    if not name.name.lower().endswith(SUFFIXES):
        error = f"has no suffix of an image; valid suffixes: {SUFFIXES}"
    elif name.is_absolute() or ".." in name.parts:
        error = f"is not below {folder}; give a path relative to the CSV file"
    elif not (folder / name).is_file():
        error = f"is missing from {folder}; give a path relative to the CSV file"
    if error:
        raise UserError(f"{where}: image {values['image']!r} {error}")
    numbers = int(values["identity"]), int(values["camera"])
    return Image(str(name), *numbers, values["modality"])
