"""Embed the images of a folder, part by part, so that a stopped command resumes."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from vireid_jax import __version__
from vireid_jax.embed.feature_files import (
    DAMAGED,
    SUFFIXES,
    check_suffix,
    read_features,
    write_features,
)
from vireid_jax.modality import MODALITIES
from vireid_jax.run.console import progress_bar
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import check_parent, lock, replace_bytes, replace_text

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
BATCHES_A_PART = 16  # what a killed process has to do again
_PART = "?????????-????????????????.npz"  # the first image's number, and `_key`
_LOCK = ".lock"


class Part(NamedTuple):
    """Some neighbouring images of a folder, once they are embedded."""

    features: np.ndarray  # float32 [rows, dim]
    filename: list[str]
    unreadable: dict[str, str]  # by file name: why
    place: Path | None = None  # where it is kept


def list_images(folder: Path) -> list[str]:
    """Lists a folder's images, those below it too, in the order of their names.

    Names are relative, with `/`; links to folders are not followed. Raises UserError
    where there is no such folder, no image in it, a link leads to a file outside it, or
    a name cannot stand in a line of UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give a folder of images")
    found = []
    for place, _, names in os.walk(folder, onerror=_fail):
        for path in (Path(place, name) for name in names):
            # A link to nothing is listed, to be told as unreadable; a pipe is not.
            is_image = path.is_file() or not path.exists()
            if is_image and path.suffix.lower() in IMAGES:
                _check_place(path, folder)
                found.append(path.relative_to(folder).as_posix())
    if not found:
        raise UserError(
            f"{folder} has no image; looked for {', '.join(IMAGES)}, below it too"
        )
    return sorted(found)


def _fail(error: OSError) -> None:
    raise error


def _check_place(path: Path, folder: Path) -> None:
    if path.is_symlink() and not leads_inside(path, folder):
        raise UserError(
            f"{path} is a link to {os.path.realpath(path)}, outside {folder}; put a"
            " copy in its place, or take it away"
        )
    if any(sign < " " or "\ud800" <= sign <= "\udfff" for sign in path.name):
        raise UserError(
            f"the file name {os.fsencode(path)!r} has control characters or is no"
            " UTF-8; rename the file"
        )


def leads_inside(path: Path, folder: Path) -> bool:
    """Tells whether a path, its links followed, is in the folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def describe(embedder: Any, folder: Path, modality: str) -> dict[str, Any]:
    """Says what made a file's features."""
    return {
        "network": embedder.fingerprint,
        "modality": modality,
        "dim": embedder.dim,
        "feature": embedder.feature,
        "flip": embedder.flip,
        "size": list(embedder.size),
        "step": embedder.about["step"],
        "folder": str(folder.resolve()),
        "version": __version__,
    }


def embed_folder(
    embedder: Any,
    folder: Path,
    filename: Sequence[str],
    modality: str,
    *,
    console: Console,
    kept: Path | None = None,
) -> Iterator[Part]:
    """Yields the embeddings of a folder's images, part by part, with a progress bar.

    Where `kept` is given each part is written there, and not embedded again if it is
    there, whole, of the same network and the same files.
    """
    count = BATCHES_A_PART * embedder.batch_size
    with progress_bar("embed", console) as bar:
        task = bar.add_task("embed", total=len(filename))
        for start in range(0, len(filename), count):
            names = filename[start : start + count]
            place = part = None
            if kept:
                key = _key(embedder, folder, names, modality)
                place = kept / f"{start:09}-{key}.npz"
                with contextlib.suppress(FileNotFoundError, *DAMAGED):
                    part = _read_part(place)
            if part is None:
                part = _embed_part(embedder, folder, names, modality, bar, task)
                if place:
                    _write_part(place, part)
            yield part._replace(place=place)
            bar.update(task, completed=start + len(names))


def _embed_part(embedder, folder, names, modality, bar, task) -> Part:
    rows, read, unreadable = [], [], {}
    paths = [folder / name for name in names]
    for batch in embedder.embed_stream(paths, modality):
        rows.append(batch.embeddings)
        read += [names[place] for place in batch.places]
        unreadable |= {names[place]: why for place, why in batch.unreadable.items()}
        bar.advance(task, len(batch.places) + len(batch.unreadable))
    return Part(np.concatenate(rows), read, unreadable)


def _key(embedder: Any, folder: Path, names: Sequence[str], modality: str) -> str:
    """Hashes what decides a part: the network, and the files as they are now."""
    told = [embedder.fingerprint, modality, str(embedder.batch_size)]
    for name in names:
        try:
            status = (folder / name).stat()
        except OSError:  # it will be told as unreadable
            told.append(name)
            continue
        # By its inode's time too: that of a file made readable changes, no other does.
        times = f"{status.st_mtime_ns}\t{status.st_ctime_ns}"
        told.append(f"{name}\t{status.st_size}\t{times}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _write_part(path: Path, part: Part) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        features=part.features,
        filename=np.array(part.filename, str),
        unreadable=np.array(list(part.unreadable.items()), str).reshape(-1, 2),
    )
    replace_bytes(path, buffer.getvalue())


def _read_part(path: Path) -> Part:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        unreadable = dict(file["unreadable"].tolist())
        return Part(file["features"], file["filename"].tolist(), unreadable)


def extract(
    embedder: Any,
    folder: Path,
    modality: str,
    out: Path,
    *,
    unreadable: str = "skip",
    console: Console | None = None,
) -> dict[str, str]:
    """Embeds a folder's images into the file `out`; returns why some are not in it.

    `unreadable` is "skip" or "refuse". Raises UserError where none could be read, or
    with "refuse" where one could not; parts that are done are kept beside `out`.
    """
    check_out(out)
    filename = list_images(folder)
    console = console or Console(quiet=True)
    read, why, places = [], {}, []
    with _parts_of(out) as kept:
        for part in embed_folder(
            embedder, folder, filename, modality, console=console, kept=kept
        ):
            read += part.filename
            why |= part.unreadable
            places.append(part.place)
            if why and unreadable == "refuse":
                raise UserError(f"{next(iter(why.values()))}; nothing was written")
        if not read:
            raise UserError(
                f"none of the {len(filename)} images in {folder} can be read; the"
                f" first: {next(iter(why.values()))}"
            )
        # As they were embedded: the images may have changed meanwhile.
        features = (_read_part(place).features for place in places)
        write_features(out, read, features, describe(embedder, folder, modality))
        lines = "".join(f"{name}\t{reason}\n" for name, reason in why.items())
        listed = out.with_name(f"{out.name}.unreadable.txt")
        replace_text(listed, lines) if lines else listed.unlink(missing_ok=True)
        for pattern in (_PART, f".{_PART}.new", _LOCK):
            for path in kept.glob(pattern):
                path.unlink()
    with contextlib.suppress(OSError):  # who keeps something else there keeps it
        kept.rmdir()
    return why


def check_out(out: Path) -> None:
    """Raises UserError for a place where no feature file can be written."""
    check_suffix(out)
    check_parent(out)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give a file's name")


@contextlib.contextmanager
def _parts_of(out: Path) -> Iterator[Path]:
    """Makes the folder of parts beside `out`, and keeps other processes out of it."""
    kept = out.with_name(f"{out.name}.parts")
    kept.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(kept / _LOCK))
        except BlockingIOError as error:
            raise UserError(
                f"{error} is writing {out}; wait for it, or give another --out"
            ) from error
        yield kept


class Gallery(NamedTuple):
    """Embedded images that are to be ranked."""

    features: np.ndarray  # float32 [rows, dim]
    filename: list[str]
    folder: Path  # that the names are relative to
    modality: str


def open_gallery(
    embedder: Any,
    place: Path,
    modality: str | None,
    images: Path | None,
    console: Console,
) -> Gallery:
    """Reads a feature file, or embeds a folder's images with `modality`.

    What cannot be read in a folder is left out, and said. Raises UserError for
    features of another network, and for a folder without images or modality.
    """
    if place.suffix in SUFFIXES and not place.is_dir():
        found = read_features(place)
        about = found.about
        if about["network"] != embedder.fingerprint:
            raise UserError(
                f"{place} has embeddings of {about['dim']} numbers, by the network"
                f" {about['network'][:12]}; this checkpoint's, of {embedder.dim}, is"
                f" {embedder.fingerprint[:12]}. Embed the gallery with it: python -m"
                " vireid_jax.extract"
            )
        if modality not in (None, about["modality"]):
            raise UserError(
                f"--gallery_modality {modality}: {place} holds {about['modality']}"
                " images; leave the flag out"
            )
        folder = images or Path(about["folder"])
        return Gallery(found.features, found.filename, folder, about["modality"])
    filename = list_images(place)
    if modality is None:
        raise UserError(
            f"--gallery_modality is missing; {place} is a folder, so say which of"
            f" {list(MODALITIES)} it shows"
        )
    parts = list(embed_folder(embedder, place, filename, modality, console=console))
    for reason in (why for part in parts for why in part.unreadable.values()):
        console.print(f"Left out: {reason}", soft_wrap=True, markup=False)
    read = [name for part in parts for name in part.filename]
    if not read:
        raise UserError(f"none of the {len(filename)} images in {place} can be read")
    features = np.concatenate([part.features for part in parts])
    return Gallery(features, read, place, modality)
