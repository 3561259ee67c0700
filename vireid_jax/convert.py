"""Convert torchreid's OSNet checkpoints into weights and checkpoints of this package.

Write `out/osnet_x1_0.safetensors`, for `config.model.pretrained`, and
`out/osnet_x1_0/`, an orbax checkpoint of the variables of
`models.create_single("osnet_x1_0")`. Nothing that a file holds is ever run: torch reads
it with `weights_only=True`, or it is an error.

    python -m vireid_jax.convert osnet_x1_0_imagenet.pth weights/
    python -m vireid_jax.convert my_osnet.pth.tar weights/ --name osnet_x0_5
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.runtime import set_up
from vireid_jax.weights.torchreid import Report, convert


def show(report: Report, out: Path, console: Console) -> None:
    """Prints what became of every tensor, the counts, and how to go on."""
    name, rows, notes = report
    table = Table("torch key", "shape", "here", "", box=box.SIMPLE_HEAD)
    for row in rows:
        shape = "x".join(map(str, row.shape)) or "scalar"
        table.add_row(row.key, shape, row.path, row.fate)
    console.print(table)
    counts = Counter(row.fate for row in rows).most_common()
    weights = out / f"{name}.safetensors"
    lines = [
        *notes,
        f"{name}, {len(rows)} tensors: "
        + ", ".join(f"{count} {fate}" for fate, count in counts),
        f"wrote {weights} and {out / name}/; to start from them:"
        f" --config.model.name={name} --config.model.pretrained={weights}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("convert", __doc__, "weights.md")
    parser.add_argument("file", type=Path, help=".pth, .pt, .pth.tar or .safetensors")
    parser.add_argument("out", type=Path, help="the folder that gets both outputs")
    parser.add_argument("--name", help="of the network, if its tensors do not tell")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Convert the file and print what became of every tensor."""
    set_up()
    report = convert(arguments.file, arguments.out, arguments.name)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 150  # a row is a line, in a file and in a pipe
    show(report, arguments.out, console)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
