"""Show a run, or two beside each other, in one self-contained HTML file.

    python -m vireid_jax.report --workdir DIR [--out FILE.html]
    python -m vireid_jax.report --workdir DIR_A --workdir DIR_B

writes `DIR/report.html` from the files that training and evaluation left in the
workdir, and from the images of the test split. docs/report.md lists what is on the
page.
"""

import argparse
from pathlib import Path

from rich.console import Console

from vireid_jax.run.errors import one_line_errors
from vireid_jax.run.runtime import set_up


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vireid_jax.report",
        description="Show a run, or two, in one HTML file: docs/report.md",
    )
    add = parser.add_argument
    add("--workdir", type=Path, action="append", required=True, metavar="DIR",
        help="of a training run; a second one is compared with the first")  # fmt: skip
    add("--out", type=Path, help="where to write; without it DIR/report.html")
    return parser.parse_args()


def main() -> None:
    """Runs the command."""
    arguments, console = parse(), Console(emoji=False)
    set_up()
    with one_line_errors():
        from vireid_jax.report.build import write

        path = arguments.out or arguments.workdir[0] / "report.html"
        size = write(arguments.workdir, path)
    console.print(f"Wrote {path}, {size / 2**20:.1f} MiB.", soft_wrap=True)


if __name__ == "__main__":
    main()
