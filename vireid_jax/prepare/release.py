"""Read what the releases are made of: folders, id lists, and indices of images."""

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

from vireid_jax.run.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


class Image(NamedTuple):
    """An image file of a release, and what the release says of it."""

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

    Raises UserError where it is not there, is empty, lacks an entry, or lies one level
    above or below the root; the error then names the root.
    """
    layout = f"{title} holds {', '.join(entries)}"
    if not source.is_dir():
        state = "is a file" if source.exists() else "does not exist"
        raise UserError(f"{source} {state}; give the folder of the release: {layout}.")
    found = set(os.listdir(source))
    if not found:
        raise UserError(f"{source} is empty; unpack the release there: {layout}.")
    missing = [entry for entry in entries if entry not in found]
    if not missing:
        return source
    is_root = lambda folder: all((folder / entry).exists() for entry in entries)
    for folder in (source / name for name in sorted(found)):
        if is_root(folder):
            _refuse_level(source, "high", folder)
    if is_root(source.absolute().parent):
        _refuse_level(source, "deep", source.absolute().parent)
    raise UserError(
        f"{source} lacks {', '.join(missing)}; {layout}. Give the folder that does."
    )


def _refuse_level(source: Path, level: str, root: Path) -> NoReturn:
    raise UserError(
        f"{source} is one level too {level}: the release begins at {root}; give "
        f"--source {shlex.quote(str(root))}."
    )


def read_lines(path: Path) -> list[str]:
    """Read an index file; raises UserError where it is missing, empty or no text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; it is part of the release: unpack that again."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text; unpack the release again.") from None
    if not any(line.strip() for line in lines):
        raise UserError(f"{path} is empty; unpack the release again.")
    return lines


def read_ids(path: Path) -> list[int]:
    """Read a file that holds one line of comma-separated identities.

    Raises UserError, naming the entry, for anything else.
    """
    first, *rest = read_lines(path)
    for number, line in enumerate(rest, 2):
        if line.strip():
            raise UserError(
                f"{path}, line {number}: {line[:40]!r} is one line too many; all "
                "identities stand in line 1, with commas between them."
            )
    ids = []
    for number, entry in enumerate(first.split(","), 1):
        if not entry.strip().isdecimal():
            raise UserError(
                f"{path}, line 1, entry {number}: {entry[:40]!r} is no identity; give "
                "whole numbers with commas between them."
            )
        ids.append(int(entry))
    return ids


def read_index(path: Path, root: Path) -> list[IndexLine]:
    """Read an index file of lines `path label`; the paths are below `root`.

    Raises UserError, naming the line, where one is malformed or occurs twice, or where
    there is no such image.
    """
    found: dict[str, IndexLine] = {}
    absent: list[IndexLine] = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        name, *label = line.split()
        if len(label) != 1 or not label[0].isdecimal():
            raise UserError(
                f"{where}: {line[:80]!r} is malformed; a line is a path, a space and a "
                "label, a whole number from 0 on."
            )
        filename = str(PurePosixPath(name))
        if ".." in PurePosixPath(name).parts or filename.startswith("/"):
            raise UserError(f"{where}: {name!r} does not lie below {root}.")
        if filename in found:
            raise UserError(f"{where}: {name!r} has been listed before; once is right")
        found[filename] = IndexLine(filename, int(label[0]), where)
        if not (root / filename).is_file():
            absent.append(found[filename])
    if absent:
        filename, _, where = absent[0]
        folder = (root / filename).parent
        lacking = "it" if folder.is_dir() else f"the folder {folder}"
        raise UserError(
            f"{where}: {root / filename} is not there ({lacking} is missing), and so "
            f"are {len(absent)} of {len(found)} images; unpack the release again."
        )
    return list(found.values())


def list_images(root: Path, folder: str) -> list[str]:
    """List the image files right in `root`/`folder`, sorted; none if it is absent."""
    try:
        names = os.listdir(root / folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        f"{folder}/{name}"
        for name in sorted(names)
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]


def check_ids(splits: Splits, ids: dict[str, Iterable[int]], where: Path) -> None:
    """Raise UserError where splits share an identity, or one of `ids` has no images.

    `where` is the folder of the id lists.
    """
    if both := sorted(set(ids["train"]) & set(ids["test"])):
        raise UserError(
            f"{where}: identities {both[:5]} are to be trained on and tested on "
            f"({len(both)} in all); unpack the release again."
        )
    for split, wanted in ids.items():
        absent = sorted(set(wanted) - {image.identity for image in splits[split]})
        if absent:
            raise UserError(
                f"{where}: identities {absent[:5]} of {split!r} have no folder with "
                f"images in any camera ({len(absent)} in all); unpack the release "
                "again."
            )
