"""Embed a folder of images into a file of features.

    python -m vireid_jax.extract --checkpoint runs/demo --images night/ \
        --modality infrared --out night.npz

`--checkpoint` is a run's workdir, or one step's folder in it. Images of any size and
type are read, in the folder and below it. What cannot be read is left out and listed
in `night.npz.unreadable.txt`; with `--unreadable refuse` the command fails instead.
Stopped, the same command resumes, to the same file. docs/embed.md.
"""

import argparse
from pathlib import Path

from rich.console import Console

from vireid_jax.embed.embedder import load
from vireid_jax.embed.folder import check_out, extract, list_images
from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import one_line_errors
from vireid_jax.run.runtime import set_up


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vireid_jax.extract",
        description="Embed a folder of images into a file of features: docs/embed.md",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a run's workdir")
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--images", type=Path, required=True, metavar="DIR", help="their folder")
    add("--modality", choices=MODALITIES, required=True, help="what took them")
    add("--out", type=Path, required=True, help="FILE.npz or FILE.parquet")
    add("--unreadable", choices=("skip", "refuse"), default="skip",
        help="what to do with images that cannot be read")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments, console = parse(), Console(emoji=False)
    set_up()
    with one_line_errors():
        check_out(arguments.out)
        count = len(list_images(arguments.images))
        embedder = load(arguments.checkpoint, arguments.which)
        errors = extract(
            embedder,
            arguments.images,
            arguments.modality,
            arguments.out,
            unreadable=arguments.unreadable,
            console=console,
        )
    for error in errors.values():
        console.print(f"Left out: {error}", soft_wrap=True, markup=False)
    console.print(
        f"Wrote {arguments.out}: {count - len(errors)} of {count} images,"
        f" {embedder.dim} numbers each.",
        soft_wrap=True,
        markup=False,
    )


if __name__ == "__main__":
    main()
