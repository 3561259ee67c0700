"""Draw synthetic people, visible and infrared.

Write a contact sheet, a manifest, or a tree of files like that of a release.

    python -m vireid_jax.synthetic --sheet people.png --ids 8
    python -m vireid_jax.synthetic --layout regdb --out RegDB --ids 20
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence

import cv2
import numpy as np

from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.console import track
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
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number.") from None


def _size(text: str) -> tuple[int, int]:
    """Read a size, HEIGHTxWIDTH."""
    try:
        height, width = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give HxW, as 128x64.") from None
    return height, width


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("synthetic", __doc__, "datasets.md")
    parser.add_argument("--sheet", metavar="PNG", help="write a contact sheet here")
    parser.add_argument(
        "--manifest",
        metavar="TSV",
        help="write name and SHA-256 of every file's pixels",
    )
    parser.add_argument(
        "--layout", help=f"write a release tree of: {', '.join(LAYOUTS)}"
    )
    parser.add_argument("--out", metavar="DIR", help="where the release tree goes")
    parser.add_argument("--variant", default="thermal", help="thermal, nir, or both")
    parser.add_argument(
        "--ids",
        type=_ids,
        help="number of people: 5, or with --layout as many as the release has (full)",
    )
    parser.add_argument("--first-id", type=int, default=0, help="the first of them")
    parser.add_argument(
        "--images",
        type=int,
        help="images per modality: 4, or with --layout at most so many per camera",
    )
    parser.add_argument("--height", type=int, default=192, help="pixels; width is half")
    parser.add_argument(
        "--size",
        type=_size,
        default=(128, 64),
        metavar="HxW",
        help="of the images of a release tree, 128x64 if left out",
    )
    parser.add_argument("--difficulty", default="easy", help="easy, mid or hard")
    parser.add_argument("--seed", type=int, default=0, help="which world")
    parser.add_argument("--workers", type=int, help="processes; all cores if left out")
    return parser


def write_manifest(path: str, specs, **world) -> None:
    """Write one line per image: file name, tab, SHA-256 of the decoded RGB pixels."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for spec, data, _ in generate(specs, **world):
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            digest = hashlib.sha256(pixels[..., ::-1].tobytes()).hexdigest()
            file.write(f"{spec.filename}\t{digest}\n")


def write_layout(options: argparse.Namespace) -> None:
    """Write the release tree that was asked for, with a progress bar."""
    bar = lambda made, total: track(made, f"drawing {options.layout}", total)
    tree = write_release(
        options.layout, options.out, ids=options.ids, size=options.size,
        seed=options.seed, max_images=options.images, workers=options.workers,
        progress=bar,
    )  # fmt: skip
    sys.stdout.write(f"{options.out}: {len(tree.images):,} synthetic images\n")


def run(options: argparse.Namespace) -> None:
    """Write the release tree, or the contact sheet and the manifest."""
    if bool(options.layout) != bool(options.out):
        raise UserError("give --layout NAME and --out DIR together")
    if options.layout:
        write_layout(options)
        return
    options.ids = 5 if options.ids is None else options.ids
    options.images = 4 if options.images is None else options.images
    variants = list(CAMERAS) if options.variant == "both" else [options.variant]
    identities = range(options.first_id, options.first_id + options.ids)
    size = (options.height, options.height // 2)
    if not options.sheet and not options.manifest:
        raise UserError(
            "nothing to do: give --sheet out.png, --manifest out.tsv or --layout"
        )
    if options.ids < 1 or options.seed < 0:
        raise UserError("give at least --ids 1 and a --seed of 0 or more")
    knobs = preset(options.difficulty)
    if options.sheet:
        sheet = contact_sheet(
            variants, identities, seed=options.seed, size=size, knobs=knobs,
            columns=options.images,
        )  # fmt: skip
        try:
            written = cv2.imwrite(options.sheet, sheet[..., ::-1])
        except cv2.error:  # an ending that it does not know
            written = False
        if not written:
            raise UserError(
                f"--sheet {options.sheet} cannot be written; give a FILE.png in a"
                " folder that exists"
            )
    if options.manifest:
        specs = [s for v in variants for s in plan(v, identities, options.images)]
        write_manifest(
            options.manifest, specs, seed=options.seed, size=size, knobs=knobs,
            workers=options.workers,
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
