"""Draw a contact sheet, a manifest or a release tree; see --help.

`python -m vireid_jax.synthetic --layout regdb --out DIR` writes a tree as RegDB's.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import cv2
import numpy as np

from vireid_jax.run.errors import UserError
from vireid_jax.synthetic.generate import generate
from vireid_jax.synthetic.knobs import preset
from vireid_jax.synthetic.layouts import LAYOUTS, write_release
from vireid_jax.synthetic.plan import CAMERAS, plan
from vireid_jax.synthetic.sheet import contact_sheet


class _Parser(argparse.ArgumentParser):
    """Report a bad value in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


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


def _parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = _Parser(
        prog="python -m vireid_jax.synthetic",
        description="Draw synthetic people, visible and infrared.",
    )
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
        raise UserError(
            "nothing to do: give --sheet out.png, --manifest out.tsv or --layout"
        )
    if ids < 1 or options.seed < 0:
        raise UserError("give at least --ids 1 and a --seed of 0 or more")
    variants = list(CAMERAS) if options.variant == "both" else [options.variant]
    identities = range(options.first_id, options.first_id + ids)
    size, knobs = (options.height, options.height // 2), preset(options.difficulty)
    world = {"seed": options.seed, "size": size, "knobs": knobs}
    if options.sheet:
        sheet = contact_sheet(variants, identities, columns=images, **world)
        if not cv2.imwrite(options.sheet, sheet[..., ::-1]):
            raise OSError(f"cannot write {options.sheet}")
    if options.manifest:
        specs = [spec for v in variants for spec in plan(v, identities, images)]
        with open(options.manifest, "w", encoding="utf-8", newline="\n") as file:
            for spec, data, _ in generate(specs, workers=options.workers, **world):
                bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                digest = hashlib.sha256(
                    np.asarray(bgr)[..., ::-1].tobytes()
                ).hexdigest()
                file.write(f"{spec.filename}\t{digest}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if bool(options.layout) != bool(options.out):
            raise UserError("give --layout NAME and --out DIR together")
        (write_layout if options.layout else write_sheet_and_manifest)(options)
    except (UserError, OSError, cv2.error) as error:
        parser.error(str(error).strip().splitlines()[0])


if __name__ == "__main__":
    main()
