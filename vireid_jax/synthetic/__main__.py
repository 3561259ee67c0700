"""Draw synthetic people, visible and infrared.

Write a contact sheet, a manifest, or a tree of files like that of a release.

    python -m vireid_jax.synthetic --sheet people.png --ids 8
    python -m vireid_jax.synthetic --layout regdb --out RegDB --ids 20
"""

import argparse
import contextlib
import hashlib
import sys
from collections.abc import Sequence

import cv2
import numpy as np

from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.errors import UserError
from vireid_jax.synthetic.generate import generate
from vireid_jax.synthetic.knobs import preset
from vireid_jax.synthetic.layouts import LAYOUTS, write_release
from vireid_jax.synthetic.plan import CAMERAS, plan
from vireid_jax.synthetic.sheet import contact_sheet


def _ids(text: str) -> int | None:
    """Read a number of people, or "full" for as many as a release has."""
    try:
        return None if text == "full" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number") from None


def _size(text: str) -> tuple[int, int]:
    """Read a size, HEIGHTxWIDTH."""
    try:
        height, width = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give HxW, as 128x64") from None
    return height, width


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("synthetic", __doc__, "datasets.md")
    add = parser.add_argument
    add("--sheet", metavar="PNG", help="write a contact sheet here")
    add("--manifest", metavar="TSV", help="write name and SHA-256 of all files' pixels")
    add("--layout", help=f"write a release tree of: {', '.join(LAYOUTS)}")
    add("--out", metavar="DIR", help="where the release tree goes")
    add("--variant", default="thermal", help="thermal, nir, or both")
    number = "number of people: 5, or with --layout as many as the release has (full)"
    add("--ids", type=_ids, help=number)
    add("--first-id", type=int, default=0, help="the first of them")
    each = "images per modality: 4, or with --layout at most so many per camera"
    add("--images", type=int, help=each)
    add("--height", type=int, default=192, help="pixels; width is half")
    size = "of the images of a release tree, 128x64 if left out"
    add("--size", type=_size, default=(128, 64), metavar="HxW", help=size)
    add("--difficulty", default="easy", help="easy, mid or hard")
    add("--seed", type=int, default=0, help="which world")
    add("--workers", type=int, help="processes; all cores if left out")
    return parser


def write_layout(options: argparse.Namespace) -> None:
    """Write a release tree."""
    tree = write_release(
        options.layout, options.out, ids=options.ids, size=options.size,
        seed=options.seed, max_images=options.images, workers=options.workers,
    )  # fmt: skip
    sys.stdout.write(f"{options.out}: {len(tree.images):,} synthetic images\n")


def write_sheet_and_manifest(options: argparse.Namespace) -> None:
    """Write a contact sheet, and one line per image with the hash of its pixels."""
    ids = 5 if options.ids is None else options.ids
    images = 4 if options.images is None else options.images
    if not options.sheet and not options.manifest:
        raise UserError("nothing to do: give --sheet PNG, --manifest TSV or --layout")
    if ids < 1 or options.seed < 0:
        raise UserError("give at least --ids 1 and a --seed of 0 or more")
    variants = list(CAMERAS) if options.variant == "both" else [options.variant]
    identities = range(options.first_id, options.first_id + ids)
    size, knobs = (options.height, options.height // 2), preset(options.difficulty)
    world = {"seed": options.seed, "size": size, "knobs": knobs}
    if options.sheet:
        sheet = contact_sheet(variants, identities, columns=images, **world)
        written = False
        with contextlib.suppress(cv2.error):  # a suffix that it does not know
            written = cv2.imwrite(options.sheet, sheet[..., ::-1])
        if not written:
            remedy = "give a FILE.png in a folder that exists"
            raise UserError(f"--sheet {options.sheet} cannot be written; {remedy}")
    if options.manifest:
        specs = [spec for v in variants for spec in plan(v, identities, images)]
        with open(options.manifest, "w", encoding="utf-8", newline="\n") as file:
            for spec, data, _ in generate(specs, workers=options.workers, **world):
                bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                digest = hashlib.sha256(np.asarray(bgr)[..., ::-1].tobytes())
                file.write(f"{spec.filename}\t{digest.hexdigest()}\n")


def run(options: argparse.Namespace) -> None:
    """Write the release tree, or the contact sheet and the manifest."""
    if bool(options.layout) != bool(options.out):
        raise UserError("give --layout NAME and --out DIR together")
    (write_layout if options.layout else write_sheet_and_manifest)(options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
