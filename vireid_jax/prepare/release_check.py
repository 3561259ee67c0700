"""Compare a release with what was published of it, and try all of its images."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vireid_jax.modality import MODALITIES
from vireid_jax.prepare.image_files import read_images
from vireid_jax.prepare.release import Splits

Count = int | tuple[int, int]
"""A number, or images and the identities that they show."""

_NAMED = 3


class Row(NamedTuple):
    """A line of the report."""

    what: str
    found: str
    expected: str
    verdict: str  # "ok", "differs" (a count), "wrong" (anything else), or "" (unjudged)


Progress = Callable[[Iterator, int], Iterator]


def check_release(
    builder: Any, root: Path, configs: Sequence[str], progress: Progress
) -> list[Row]:
    """Check the release at `root`, every config of it, by the TFDS builder class.

    `progress` wraps the images as they are read and is told how many there will be.
    Raises UserError for a release that cannot be read at all.
    """
    read = {config: builder.read(root, config) for config in configs}
    counts = {
        config: count(splits) | builder.more_counts(splits)
        for config, splits in read.items()
    }
    rows = _count_rows(counts, builder.PUBLISHED)
    for what, (found, expected) in builder.folder_counts(root).items():
        rows.append(_judge(what, found, expected))
    for config, splits in read.items():
        for text, judged in builder.remarks(root, splits):
            where = f" ({config})" if len(read) > 1 else ""
            rows.append(Row(text + where, "", "", "wrong" if judged else ""))
        rows += _lonely_rows(splits, config if len(read) > 1 else "")
    return rows + _file_rows(builder, root, read, progress)


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
                counts[f"{split} {modality} camera {camera}"] = (
                    len(seen),
                    len(set(seen)),
                )
    return counts


def _count_rows(counts: dict[str, dict[str, Count]], published: dict) -> list[Row]:
    """Make a row of each count; configs that agree share it."""
    names = {name: None for found in counts.values() for name in found}
    rows = []
    for name in {**names, **dict.fromkeys(published)}:
        groups: dict[Count, list[str]] = {}
        for config, found in counts.items():
            groups.setdefault(found.get(name, 0), []).append(config)
        for value, configs in groups.items():
            row = _judge(name, value, published.get(name))
            if len(counts) > 1:
                alike = len(configs) == len(counts)
                where = " in each" if alike else f" in {', '.join(configs)}"
                row = row._replace(found=row.found + where)
            rows.append(row)
    return rows


def _judge(what: str, found: Count, expected: Count | str | None) -> Row:
    """Judge a count, unless what was published is a text, or nothing was."""
    if expected is None or isinstance(expected, str):
        return Row(what, _text(found), expected or "", "")
    verdict = "ok" if found == expected else "differs"
    return Row(what, _text(found), _text(expected), verdict)


def _text(value: Count) -> str:
    if isinstance(value, tuple):
        images, identities = value
        return f"{images:,} of {identities:,} people"
    return f"{value:,}"


def _lonely_rows(splits: Splits, config: str) -> list[Row]:
    """Tell which identities are seen in one modality only; no reader minds them."""
    rows = []
    for split, images in splits.items():
        modalities = Counter(
            i for i, _ in {(im.identity, im.modality) for im in images}
        )
        lonely = sum(1 for seen in modalities.values() if seen == 1)
        if lonely:
            what = f"{split} identities in one modality only {config}".rstrip()
            rows.append(Row(what, f"{lonely:,}", "", ""))
    return rows


def _file_rows(
    builder: Any, root: Path, read: dict[str, Splits], progress: Progress
) -> list[Row]:
    """Decode every image once; look for the same bytes twice, and empty folders."""
    images = {
        image.filename: image
        for splits in read.values()
        for members in splits.values()
        for image in members
    }
    folder = root if root.is_dir() else root.parent
    reasons, copies = [], {}
    files = progress(read_images(folder, list(images)), len(images))
    for image, (encoded, reason) in zip(images.values(), files, strict=True):
        if reason:
            reasons.append(f"{image.filename} {reason}")
        else:
            copies.setdefault(hashlib.sha256(encoded).digest(), []).append(image)
    twice = [same for same in copies.values() if len(same) > 1]
    mixed = [same for same in twice if len({builder.person(im) for im in same}) > 1]
    names = lambda group: " = ".join(image.filename for image in group)
    return [
        _problem("unreadable images", reasons),
        _problem("the same file as two people", [names(group) for group in mixed]),
        Row("the same file twice", f"{len(twice):,}", "", ""),
        *(
            [_problem("empty folders", _empty(folder, images))]
            if builder.ENTRIES
            else []
        ),
    ]


def _empty(root: Path, filenames: Iterable[str]) -> list[str]:
    """List the empty folders beside those of the images: people without any."""
    parents = {(root / name).parents[1] for name in filenames}
    return [
        str(path.relative_to(root))
        for parent in sorted(parents)
        for path in sorted(parent.iterdir())
        if path.is_dir() and not any(path.iterdir())
    ]


def _problem(what: str, found: list[str]) -> Row:
    """Make a row of what there should be none of."""
    text = "; ".join(found[:_NAMED]) + ("; ..." if len(found) > _NAMED else "")
    verdict = "wrong" if found else "ok"
    return Row(what, f"{len(found):,}" + (f": {text}" if found else ""), "0", verdict)
