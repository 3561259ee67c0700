"""Embed a folder of images into a file of features.

`--checkpoint` is a run's workdir, or one step's folder in it. Images of any size and
type are read, in the folder and below it. What cannot be read is left out and listed
in `night.npz.unreadable.txt`; with `--unreadable refuse` the command fails instead.
Stopped, the same command resumes; finished, the file is the same.

    python -m vireid_jax.extract --checkpoint runs/demo --images night/ \\
        --modality infrared --out night.npz
    python -m vireid_jax.extract --checkpoint runs/demo --images day/ \\
        --modality visible --out day.parquet
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vireid_jax.embed.embedder import load
from vireid_jax.embed.folder import check_out, extract, list_images
from vireid_jax.modality import MODALITIES
from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.runtime import set_up


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("extract", __doc__, "embed.md")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a run's workdir")
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--images", type=Path, required=True, metavar="DIR", help="their folder")
    add("--modality", choices=MODALITIES, required=True, help="what took them")
    add("--out", type=Path, required=True, help="FILE.npz or FILE.parquet")
    add("--unreadable", choices=("skip", "refuse"), default="skip",
        help="what to do with images that cannot be read")  # fmt: skip
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Embed the folder and print where the file is."""
    set_up()
    console = Console(emoji=False)
    check_out(arguments.out)
    count = len(list_images(arguments.images))
    embedder = load(arguments.checkpoint, arguments.which)
    errors = extract(
        embedder, arguments.images, arguments.modality, arguments.out,
        unreadable=arguments.unreadable, console=console,
    )  # fmt: skip
    for error in errors.values():
        console.print(f"Left out: {error}", soft_wrap=True, markup=False)
    done = f"{count - len(errors)} of {count} images, {embedder.dim} numbers each."
    console.print(f"Wrote {arguments.out}: {done}", soft_wrap=True, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
