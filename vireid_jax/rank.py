"""Rank a gallery of your own images for a query, as a table and as a page.

`--gallery` is a folder, or a file of `python -m vireid_jax.extract` by the same
checkpoint, which knows its modality. The page holds the images themselves and needs
nothing else; images of a feature file are read from the folder that it was made of, or
from `--images`.

    python -m vireid_jax.rank --checkpoint runs/demo --query night/7.png \\
        --query_modality infrared --gallery day/ --gallery_modality visible
    python -m vireid_jax.rank --checkpoint runs/demo --query night/7.png \\
        --query_modality infrared --gallery day.npz --top 20 --out ranks.html
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vireid_jax.data.any_image import read_image
from vireid_jax.embed.embedder import Embedder, load
from vireid_jax.embed.folder import Gallery, is_inside, open_gallery
from vireid_jax.modality import MODALITIES
from vireid_jax.report.build import templates
from vireid_jax.report.pictures import HIGHEST, data_uri
from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.errors import UserError, check_installed
from vireid_jax.run.files import check_parent, replace_text
from vireid_jax.run.runtime import set_up


class Shown(NamedTuple):
    """One image on the page; `source` is None where its file cannot be shown."""

    name: str
    source: str | None
    cosine: float | None = None  # None for the query


class RankList(NamedTuple):
    """A query and its nearest gallery images, nearest first."""

    query: Shown
    nearest: list[Shown]


def rank_images(
    embedder: Embedder,
    queries: Sequence[Path],
    modality: str,
    gallery: Gallery,
    top: int,
) -> list[RankList]:
    """Return the gallery's images nearest to each query, with small pictures of all.

    Raise UserError for a query that cannot be read, and for a `top` below 1.
    """
    ranked = embedder.rank(embedder.embed(queries, modality), gallery.features, top)
    size, folder = embedder.size, gallery.folder
    lists = []
    for query, indices, scores in zip(queries, *ranked, strict=True):
        names = [gallery.filename[index] for index in indices]
        nearest = [
            Shown(name, _picture(folder / name, size, folder), float(score))
            for name, score in zip(names, scores, strict=True)
        ]
        lists.append(RankList(Shown(str(query), _picture(query, size)), nearest))
    return lists


def _picture(
    path: Path, size: tuple[int, int], inside: Path | None = None
) -> str | None:
    """Return an image as a `data:` address; None for a pipe, or one not `inside`."""
    width = round(HIGHEST * size[1] / size[0])  # in the proportions the network takes
    try:
        if inside and not (is_inside(path, inside) and path.is_file()):
            return None
        return data_uri(read_image(path, (HIGHEST, width)))
    except (OSError, UserError):  # moved or damaged since it was embedded
        return None


def table(one: RankList) -> Table:
    """Return a query's nearest images with their cosines."""
    # Text is printed as it is: a name may hold [red].
    rows = Table(title=Text(f"nearest to {one.query.name}"))
    rows.add_column("rank", justify="right")
    rows.add_column("image", overflow="fold")
    rows.add_column("cosine", justify="right")
    for number, image in enumerate(one.nearest, 1):
        rows.add_row(str(number), image.name, f"{image.cosine:.3f}")
    return rows


def page(lists: Sequence[RankList], gallery: Gallery, modality: str) -> str:
    """Return rank lists as one page of HTML that needs nothing else."""
    template = templates().get_template("ranks.html.j2")
    return template.render(lists=lists, gallery=gallery, modality=modality)


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("rank", __doc__, "embed.md")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a run's workdir")
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--query", type=Path, nargs="+", required=True, metavar="IMAGE")
    add("--query_modality", choices=MODALITIES, required=True)
    add("--gallery", type=Path, required=True, help="a folder, or a feature file")
    add("--gallery_modality", choices=MODALITIES, help="of a folder")
    add("--images", type=Path, help="where a feature file's images are now")
    add("--top", type=int, default=10, help="how many of the gallery to show")
    add("--out", type=Path, help="where to write the page, FILE.html")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Raise UserError for what would only be noticed after the work is done."""
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; give 1 or more")
    if arguments.out:
        if arguments.out.suffix != ".html":
            raise UserError(f"--out {arguments.out}: the page is a FILE.html")
        check_parent(arguments.out)
        check_installed("this page", "report", "jinja2")


def run(arguments: argparse.Namespace) -> None:
    """Rank the gallery, print a table for each query, and write the page."""
    set_up()
    check(arguments)
    console = Console(emoji=False)
    embedder = load(arguments.checkpoint, arguments.which)
    gallery = open_gallery(
        embedder, arguments.gallery, arguments.gallery_modality, arguments.images,
        console,
    )  # fmt: skip
    modality = arguments.query_modality
    lists = rank_images(embedder, arguments.query, modality, gallery, arguments.top)
    for one in lists:
        console.print(table(one), markup=False)
    if arguments.out:
        replace_text(arguments.out, page(lists, gallery, modality))
        console.print(f"Wrote {arguments.out}.", soft_wrap=True, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
