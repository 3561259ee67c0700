"""Read a CSV file that says what the images of one's own data set are."""

import csv
from pathlib import Path, PurePosixPath

from vireid_jax.modality import MODALITIES
from vireid_jax.prepare.release import SUFFIXES, Image, Splits
from vireid_jax.run.errors import UserError

COLUMNS = ("image", "identity", "camera", "modality", "split")
SPLITS = ("train", "test")
_HIGHEST = 2**31 - 1  # of an int32


def find_csv(source: Path) -> Path:
    """Return the CSV file: `source` itself, or the only one in that folder.

    Raises UserError where there is none, or more than one.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(
            f"{source} does not exist; give a CSV file, or a folder with one in it."
        )
    found = sorted(source.glob("*.csv"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(
            f"{source} holds {len(found)} CSV files ({names}); give the file itself: "
            f"its first line is {','.join(COLUMNS)}."
        )
    return found[0]


def read_csv(path: Path) -> Splits:
    """List the images of each split; their paths are below the folder of the CSV.

    Raises UserError, naming the line, for what is missing or malformed, and for people
    in both splits.
    """
    splits: Splits = {}
    seen: dict[tuple[str, str], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            _check_header(path, rows.fieldnames)
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                split, image = _read_row(row, where, path.parent)
                key = split, image.filename
                if key in seen:
                    raise UserError(
                        f"{where}: {image.filename!r} stands in line {seen[key]} too; "
                        "once is right."
                    )
                seen[key] = rows.line_num
                splits.setdefault(split, []).append(image)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8 ({error}).") from error
    if not splits:
        raise UserError(f"{path} has a header and no rows; give one row an image.")
    people = [{im.identity for im in splits.get(split, ())} for split in SPLITS]
    if both := sorted(people[0] & people[1]):
        raise UserError(
            f"{path}: identities {both[:5]} are in train and in test ({len(both)} in "
            "all); who is to be found must not be known. Give each person one split."
        )
    return splits


def _check_header(path: Path, found) -> None:
    missing = [column for column in COLUMNS if column not in (found or ())]
    if missing:
        raise UserError(
            f"{path}, line 1: the column {missing[0]!r} is missing, found are "
            f"{list(found or ())}; begin with {','.join(COLUMNS)}."
        )


def _read_row(row: dict, where: str, folder: Path) -> tuple[str, Image]:
    """Check a row; returns its split and image."""
    if None in row or None in row.values():
        state = "more" if None in row else "fewer"
        raise UserError(
            f"{where}: it has {state} columns than the header; a value with a comma "
            "stands in quotes."
        )
    values = {column: row[column].strip() for column in COLUMNS}
    for column in ("identity", "camera"):
        if not values[column].isdecimal() or int(values[column]) > _HIGHEST:
            raise UserError(
                f"{where}: {column} is {values[column]!r}; give a whole number from 0 "
                f"to {_HIGHEST}."
            )
    for column, legal in (("modality", MODALITIES), ("split", SPLITS)):
        if values[column] not in legal:
            raise UserError(
                f"{where}: {column} is {values[column]!r}; use one of {legal}."
            )
    name = PurePosixPath(values["image"])
    if not values["image"].lower().endswith(SUFFIXES):
        raise UserError(
            f"{where}: image is {values['image']!r}; its name has to end with one of "
            f"{SUFFIXES}."
        )
    if name.is_absolute() or ".." in name.parts:
        raise UserError(
            f"{where}: image {values['image']!r} does not lie below {folder}; give a "
            "path relative to the CSV file."
        )
    if not (folder / name).is_file():
        raise UserError(
            f"{where}: there is no image {str(folder / name)!r}; paths are relative to "
            "the CSV file."
        )
    image = Image(
        str(name), int(values["identity"]), int(values["camera"]), values["modality"]
    )
    return values["split"], image
