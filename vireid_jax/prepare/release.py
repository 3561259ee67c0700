"""Read what the releases are made of: folders, id lists, and indices of images."""

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vireid_jax.run.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


class Image(NamedTuple):
    """An image file of a release and its labels."""

    filename: str  # below the release's root, with slashes
    identity: int
    camera: int
    modality: str


Splits = dict[str, list[Image]]


class IndexLine(NamedTuple):
    """A line `path label` of an index file."""

    filename: str
    label: int
    where: str  # the index file and the line's number


def find_root(source: Path, entries: Sequence[str], title: str) -> Path:
    """Return `source` if it is the root of the release, which holds `entries`.

    Raise UserError if it does not exist, is empty, has not all entries, or is one level
    above or below the root; the error then names the root.
    """
    layout = f"{title} holds {', '.join(entries)}"
    if not source.is_dir():
        state = "is a file" if source.exists() else "does not exist"
        raise UserError(f"{source} {state}; give the folder of the release: {layout}")
    names = sorted(os.listdir(source))
    if not names:
        raise UserError(f"{source} is empty; unpack the release there: {layout}")
    missing = [entry for entry in entries if entry not in names]
    if not missing:
        return source
    candidates = [*(("high", source / name) for name in names)]
    candidates.append(("deep", source.absolute().parent))
    for level, root in candidates:
        if all((root / entry).exists() for entry in entries):
            raise UserError(
                f"{source} is one level too {level}: the release begins at {root}; "
                f"give --source {shlex.quote(str(root))}"
            )
    raise UserError(
        f"{source} has no {', '.join(missing)}; {layout}. Give the folder that has them"
    )


def images_folder(root: Path) -> Path:
    """Return the folder that file names are relative to; a root may be a CSV file."""
    return root if root.is_dir() else root.parent


def read_lines(path: Path) -> list[str]:
    """Read an index file; raise UserError if it is missing, empty or not text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        state = "" if any(map(str.strip, lines)) else "empty"
    except FileNotFoundError:
        state = "missing"
    except UnicodeDecodeError:
        state = "not text"
    if state:
        raise UserError(
            f"{path} is {state}; it is part of the release: unpack that again"
        )
    return lines


def read_ids(path: Path) -> list[int]:
    """Read a file of one line of comma-separated identities.

    Raise UserError, with the line and entry, for anything else.
    """
    first, *rest = read_lines(path)
    for number, line in enumerate(rest, 2):
        if line.strip():
            raise UserError(
                f"{path}, line {number}: {line[:40]!r} is one line too many; write all "
                "identities in line 1, with commas between them"
            )
    entries = first.split(",")
    for number, entry in enumerate(entries, 1):
        if not entry.strip().isdecimal():
            raise UserError(
                f"{path}, line 1, entry {number}: {entry[:40]!r} is not an identity; "
                "valid values: whole numbers with commas between them"
            )
    return [int(entry) for entry in entries]


def read_index(path: Path, root: Path) -> list[IndexLine]:
    """Read an index file of lines `path label`; the paths are below `root`.

    Raise UserError, with the line, where one is malformed or repeated, or its image is
    missing.
    """
    index: dict[str, IndexLine] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        name, *label = line.split()
        if len(label) != 1 or not label[0].isdecimal():
            raise UserError(
                f"{where}: {line[:80]!r} is malformed; a line is a path, a space and a "
                "label, a whole number from 0 on"
            )
        filename = str(PurePosixPath(name))
        if ".." in PurePosixPath(name).parts or filename.startswith("/"):
            raise UserError(f"{where}: {name!r} is not below {root}")
        if filename in index:
            raise UserError(f"{where}: {name!r} is repeated; list each image once")
        index[filename] = IndexLine(filename, int(label[0]), where)
    absent = [line for line in index.values() if not (root / line.filename).is_file()]
    if absent:
        path = root / absent[0].filename
        missing = "" if path.parent.is_dir() else f" (so is the folder {path.parent})"
        raise UserError(
            f"{absent[0].where}: {path} is missing{missing}, and so are {len(absent)} "
            f"of {len(index)} images; unpack the release again"
        )
    return list(index.values())


def images_in(root: Path, folder: str) -> list[str]:
    """List the image files directly in `root`/`folder`, sorted; [] if it is missing."""
    return sorted(
        f"{folder}/{path.name}"
        for path in (root / folder).glob("[!.]*")
        if path.name.lower().endswith(SUFFIXES)
    )


def check_ids(splits: Splits, ids: dict[str, Iterable[int]], where: Path) -> None:
    """Raise UserError where splits share an identity, or one of `ids` has no images.

    `where` is the folder of the id lists.
    """
    if both := sorted(set(ids["train"]) & set(ids["test"])):
        raise UserError(
            f"{where}: identities {both[:5]} are in train and in test ({len(both)} in "
            "all); unpack the release again"
        )
    for split, wanted in ids.items():
        absent = sorted(set(wanted) - {image.identity for image in splits[split]})
        if absent:
            raise UserError(
                f"{where}: identities {absent[:5]} of {split!r} have no folder with "
                f"images in any camera ({len(absent)} in all); unpack the release again"
            )
