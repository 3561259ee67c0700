"""Convert torchreid's OSNet checkpoints, or a run, into weights to start from.

Write `out/osnet_x1_0.safetensors`, for `config.model.pretrained`, with torchreid's
names. Nothing in a file is ever executed: torch reads it with `weights_only=True`, or
it is refused. A run has to be of one stream (config.model.num_specific_stages=0).

    python -m vireid_jax.convert osnet_x1_0_imagenet.pth out/
    python -m vireid_jax.convert runs/pretrain out/
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
from vireid_jax.training.checkpoint import read
from vireid_jax.weights.torchreid import TAKEN, Report, convert, write_new


def convert_run(workdir: Path, out: Path) -> Report:
    """Write a run's last weights, with all that its checkpoint says as metadata.

    Raise UserError if the network has a copy of some layer per modality.
    """
    variables, about = read(workdir)
    name = about.config["model"]["name"]
    path = write_new(out, name, variables, about.to_json())
    return Report(name, [], [], path)


def show(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Print the tensors that were not simply taken (`verbose`: all), and a summary."""
    rows = [row for row in report.rows if verbose or row.status != TAKEN]
    if rows:
        table = Table("torch key", "shape", "here", "", box=box.SIMPLE_HEAD)
        for row in rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            table.add_row(row.key, shape, row.path, row.status)
        console.print(table)
    counts = Counter(row.status for row in report.rows).most_common()
    summary = ", ".join(f"{count} {status}" for status, count in counts)
    lines = [*report.notes]
    if report.rows:
        lines.append(f"{report.name}, {len(report.rows)} tensors: {summary}")
    lines.append(
        f"wrote {report.weights}; to start from it: --config.model.name={report.name}"
        f" --config.model.pretrained={report.weights}"
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("convert", __doc__, "weights.md")
    add = parser.add_argument
    add("input", type=Path, help=".pth, .pt, .pth.tar, .safetensors, or a workdir")
    add("out", type=Path, help="the folder that gets NAME.safetensors")
    add("--name", help="of the network; default: by keys and shapes")
    add("--verbose", action="store_true", help="print every tensor")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Convert the input and print the result."""
    set_up()
    if arguments.input.is_dir():
        report = convert_run(arguments.input, arguments.out)
    else:
        report = convert(arguments.input, arguments.out, arguments.name)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 150  # a row is a line, in a file and in a pipe
    show(report, console, verbose=arguments.verbose)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
