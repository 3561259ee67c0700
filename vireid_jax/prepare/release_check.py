"""Compare a release with its published numbers, and decode all of its images."""

import collections
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vireid_jax.data.source import Records
from vireid_jax.modality import MODALITIES
from vireid_jax.prepare.release import Splits, images_folder, read_images
from vireid_jax.run.console import track
from vireid_jax.run.errors import UserError

Count = int | tuple[int, int]
"""A number, or the numbers of images and of identities in them."""

_NAMED = 3


class Finding(NamedTuple):
    """A line of the report."""

    what: str
    found: str
    expected: str = ""
    verdict: str = ""  # "ok", "differs" (a count), "wrong" (the rest); "": not judged


def check_release(builder: Any, root: Path, configs: Sequence[str]) -> list[Finding]:
    """Check the release at `root`, every config of it, by the TFDS builder class.

    Raise UserError for a release that cannot be read at all.
    """
    read = {config: builder.read(root, config) for config in configs}
    counts = {config: count(splits) for config, splits in read.items()}
    rows = _count_rows(counts, builder.PUBLISHED)
    more = builder.more_counts(root, read[configs[0]])
    rows += [_judge(what, *numbers) for what, numbers in more.items()]
    for config, splits in read.items():
        where = f" ({config})" if len(read) > 1 else ""
        for text, is_wrong in builder.remarks(root, splits).items():
            rows.append(Finding(text + where, "", "", "wrong" if is_wrong else ""))
        for split, images in splits.items():
            visible, infrared = (
                {image.identity for image in images if image.modality == modality}
                for modality in MODALITIES
            )
            if lonely := visible ^ infrared:
                what = f"{split} identities in one modality only{where}"
                rows.append(Finding(what, f"{len(lonely):,}"))
    return rows + _file_rows(builder, root, read)


def check_same_release(
    builder: Any, source: Path, split: str, records: Records
) -> None:
    """Raise UserError unless a prepared split was made from the release at `source`.

    Compare labels and the bytes of every image: a synthetic tree has the names of the
    real release.
    """
    folder = Path(builder.data_path)
    root = builder.root(source.expanduser().absolute())
    listed = builder.read(root, builder.config_name).get(split, [])
    left_out = folder / "unreadable.txt"
    lines = left_out.read_text().splitlines() if left_out.exists() else []
    is_left_out = lambda image: any(x.startswith(f"{image.filename} ") for x in lines)
    expected = [image for image in listed if not is_left_out(image)]
    modality = [MODALITIES[index] for index in records.modality]
    columns = records.filename, records.identity, records.camera, modality
    labels = zip(*columns, strict=True)
    stored = dict(zip(labels, map(bytes, records.digest), strict=True))
    different = []
    for image in expected:
        encoded = (images_folder(root) / image.filename).read_bytes()
        if stored.get(image) != hashlib.sha256(encoded).digest():
            different.append(image.filename)
    if different or len(expected) != len(stored):
        first = f", the first being {different[0]!r}" if different else ""
        raise UserError(
            f"{folder} exists and was not made from {source}: {len(different)} of "
            f"{len(expected)} images of {split!r} are different{first}. Delete the set "
            f"(rm -r {shlex.quote(str(folder))}) and run the same command again, or "
            "give another folder, --config.data.dir=DIR"
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


def _count_rows(counts: dict[str, dict[str, Count]], published: dict) -> list[Finding]:
    """Make a row of each count; configs that agree share it."""
    names = dict.fromkeys(
        name for found in [*counts.values(), published] for name in found
    )
    rows = []
    for name in names:
        groups = collections.defaultdict(list)
        for config, found in counts.items():
            groups[found.get(name, 0)].append(config)
        for value, configs in groups.items():
            where = "each" if len(configs) == len(counts) else ", ".join(configs)
            where = f" in {where}" if len(counts) > 1 else ""
            rows.append(_judge(name, value, published.get(name), where))
    return rows


def _judge(
    what: str, found: Count, expected: Count | str | None, where: str = ""
) -> Finding:
    """Judge a count, unless a text or nothing was published."""
    images = lambda number, people: f"{number:,} of {people:,} people"
    text = lambda value: images(*value) if isinstance(value, tuple) else f"{value:,}"
    if expected is None or isinstance(expected, str):
        return Finding(what, text(found) + where, expected or "")
    verdict = "ok" if found == expected else "differs"
    return Finding(what, text(found) + where, text(expected), verdict)


def _file_rows(builder: Any, root: Path, read: dict[str, Splits]) -> list[Finding]:
    """Decode every image once; look for repeated files, and empty folders."""
    images = {
        image.filename: image
        for splits in read.values()
        for members in splits.values()
        for image in members
    }
    folder = images_folder(root)
    errors, copies = [], collections.defaultdict(list)
    files = track(read_images(folder, list(images)), f"reading {root}", len(images))
    for image, (encoded, error) in zip(images.values(), files, strict=True):
        if error:
            errors.append(f"{image.filename} {error}")
        else:
            copies[hashlib.sha256(encoded).digest()].append(image)
    twice = [same for same in copies.values() if len(same) > 1]
    mixed = [
        " = ".join(image.filename for image in same)
        for same in twice
        if len({builder.person(image) for image in same}) > 1
    ]
    rows = [
        _problem("unreadable images", errors),
        _problem("the same file as two people", mixed),
        Finding("the same file twice", f"{len(twice):,}"),
    ]
    if builder.ENTRIES:  # people without images have a folder beside the others
        empty = [
            str(path.relative_to(folder))
            for parent in sorted({(folder / name).parents[1] for name in images})
            for path in sorted(parent.iterdir())
            if path.is_dir() and not any(path.iterdir())
        ]
        rows.append(_problem("empty folders", empty))
    return rows


def _problem(what: str, found: list[str]) -> Finding:
    """Make a row of something that must not occur."""
    text = "; ".join(found[:_NAMED]) + ("; ..." if len(found) > _NAMED else "")
    verdict = "wrong" if found else "ok"
    return Finding(
        what, f"{len(found):,}" + (f": {text}" if found else ""), "0", verdict
    )
