"""Show a run, or two beside each other, in one self-contained HTML file.

Write `DIR/report.html` from the files that training and evaluation left in the workdir,
and from the images of the test split.

    python -m vireid_jax.report --workdir runs/demo
    python -m vireid_jax.report --workdir runs/a --workdir runs/b --out both.html
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.runtime import set_up


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("report", __doc__, "report.md")
    add = parser.add_argument
    add("--workdir", type=Path, action="append", required=True, metavar="DIR",
        help="of a training run; a second one is compared with the first")  # fmt: skip
    add("--out", type=Path, help="where to write; without it DIR/report.html")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    set_up()
    from vireid_jax.report.build import write

    path = arguments.out or arguments.workdir[0] / "report.html"
    size = write(arguments.workdir, path)
    text = f"Wrote {path}, {size / 2**20:.1f} MiB."
    Console(emoji=False).print(text, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
