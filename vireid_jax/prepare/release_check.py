"""Compare a release with its published numbers, and decode all of its images."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vireid_jax.data.source import Records
from vireid_jax.modality import MODALITIES
from vireid_jax.prepare.image_files import read_images
from vireid_jax.prepare.release import Splits, images_folder
from vireid_jax.run.console import track
from vireid_jax.run.errors import UserError

Count = int | tuple[int, int]
"""A number, or the numbers of images and of identities in them."""

_NAMED = 3


class Row(NamedTuple):
    """A line of the report."""

    what: str
    found: str
    expected: str = ""
    verdict: str = (
        ""  # "ok", "differs" (a count), "wrong" (anything else), or not judged
    )


def check_release(builder: Any, root: Path, configs: Sequence[str]) -> list[Row]:
    """Check the release at `root`, every config of it, by the TFDS builder class.

    Raise UserError for a release that cannot be read at all.
    """
    read = {config: builder.read(root, config) for config in configs}
    counts = {config: count(splits) for config, splits in read.items()}
    rows = _count_rows(counts, builder.PUBLISHED)
    more = builder.more_counts(root, read[configs[0]])
    for what, (found, expected) in more.items():
        rows.append(_judge(what, found, expected))
    for config, splits in read.items():
        where = f" ({config})" if len(read) > 1 else ""
        for text, is_wrong in builder.remarks(root, splits).items():
            rows.append(Row(text + where, "", "", "wrong" if is_wrong else ""))
        for split, images in splits.items():
            seen = Counter(i for i, _ in {(im.identity, im.modality) for im in images})
            if lonely := sum(modalities == 1 for modalities in seen.values()):
                what = f"{split} identities in one modality only{where}"
                rows.append(Row(what, f"{lonely:,}"))  # no reader depends on them
    return rows + _file_rows(builder, root, read)


def check_same_release(
    builder: Any, source: Path, split: str, records: Records
) -> None:
    """Raise UserError unless a prepared split was made from the release at `source`.

    Compare names, identities, cameras, modalities and the bytes of every image: a
    synthetic tree has the names of the real release.
    """
    folder = Path(builder.data_path)
    root = builder.root(source.expanduser().absolute())
    listed = builder.read(root, builder.config_name).get(split, [])
    left_out = folder / "unreadable.txt"
    lines = left_out.read_text().splitlines() if left_out.exists() else []
    is_left_out = lambda image: any(x.startswith(f"{image.filename} ") for x in lines)
    expected = [image for image in listed if not is_left_out(image)]
    modality = [MODALITIES[index] for index in records.modality]
    labels = zip(
        records.filename, records.identity, records.camera, modality, strict=True
    )
    stored = dict(zip(labels, map(bytes, records.digest), strict=True))
    different = []
    for image in expected:
        with (images_folder(root) / image.filename).open("rb") as file:
            if stored.get(image) != hashlib.file_digest(file, "sha256").digest():
                different.append(image.filename)
    if different or len(expected) != len(stored):
        first = f", the first being {different[0]!r}" if different else ""
        raise UserError(
            f"{folder} exists and was not made from {source}: {len(different)} of its"
            f" {len(expected)} images of {split!r} are different in the set{first}. To"
            f" replace the set, delete it (rm -r {shlex.quote(str(folder))}) and run"
            " the same command again; to keep both, give another folder,"
            " --config.data.dir=DIR"
        )


def count(splits: Splits) -> dict[str, Count]:
    """Count identities and images: of each split, modality and camera."""
    counts: dict[str, Count] = {}
    for split, images in splits.items():
        counts[f"{split} identities"] = len({image.identity for image in images})
        for modality in MODALITIES:
            of = [image for image in images if image.modality == modality]
            counts[f"{split} {modality} images"] = len(of)
            cameras = sorted({image.camera for image in of})
            for camera in cameras if len(cameras) > 1 else ():
                seen = [image.identity for image in of if image.camera == camera]
                name = f"{split} {modality} camera {camera}"
                counts[name] = len(seen), len(set(seen))
    return counts


def _count_rows(counts: dict[str, dict[str, Count]], published: dict) -> list[Row]:
    """Make a row of each count; configs that agree share it."""
    names = dict.fromkeys(name for found in counts.values() for name in found)
    rows = []
    for name in names | dict.fromkeys(published):
        groups: dict[Count, list[str]] = {}
        for config, found in counts.items():
            groups.setdefault(found.get(name, 0), []).append(config)
        for value, configs in groups.items():
            row = _judge(name, value, published.get(name))
            if len(counts) > 1:
                all_agree = len(configs) == len(counts)
                where = " in each" if all_agree else f" in {', '.join(configs)}"
                row = row._replace(found=row.found + where)
            rows.append(row)
    return rows


def _judge(what: str, found: Count, expected: Count | str | None) -> Row:
    """Judge a count, unless a text or nothing was published."""
    if expected is None or isinstance(expected, str):
        return Row(what, _text(found), expected or "")
    verdict = "ok" if found == expected else "differs"
    return Row(what, _text(found), _text(expected), verdict)


def _text(value: Count) -> str:
    if isinstance(value, tuple):
        return "{:,} of {:,} people".format(*value)
    return f"{value:,}"


def _file_rows(builder: Any, root: Path, read: dict[str, Splits]) -> list[Row]:
    """Decode every image once; look for repeated files, and empty folders."""
    images = {
        image.filename: image
        for splits in read.values()
        for members in splits.values()
        for image in members
    }
    folder = images_folder(root)
    errors, copies = [], {}
    files = read_images(folder, list(images))
    files = track(files, f"reading {root}", len(images))
    for image, (encoded, error) in zip(images.values(), files, strict=True):
        if error:
            errors.append(f"{image.filename} {error}")
        else:
            copies.setdefault(hashlib.sha256(encoded).digest(), []).append(image)
    twice = [same for same in copies.values() if len(same) > 1]
    mixed = [
        " = ".join(image.filename for image in same)
        for same in twice
        if len({builder.person(image) for image in same}) > 1
    ]
    rows = [
        _problem("unreadable images", errors),
        _problem("the same file as two people", mixed),
        Row("the same file twice", f"{len(twice):,}"),
    ]
    if builder.ENTRIES:
        rows.append(_problem("empty folders", _empty_folders(folder, images)))
    return rows


def _empty_folders(root: Path, filenames: Iterable[str]) -> list[str]:
    """List the empty folders beside those of the images: people without any."""
    parents = {(root / name).parents[1] for name in filenames}
    return [
        str(path.relative_to(root))
        for parent in sorted(parents)
        for path in sorted(parent.iterdir())
        if path.is_dir() and not any(path.iterdir())
    ]


def _problem(what: str, found: list[str]) -> Row:
    """Make a row of something that must not occur."""
    text = "; ".join(found[:_NAMED]) + ("; ..." if len(found) > _NAMED else "")
    verdict = "wrong" if found else "ok"
    return Row(what, f"{len(found):,}" + (f": {text}" if found else ""), "0", verdict)
