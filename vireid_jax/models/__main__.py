"""List the networks, or describe one.

With `--name`, print for each stage the output shape of one image, parameters and MACs,
of the test graph and of the training graph (forward pass), and the latency measured
here. `--json` prints the same for programs.

    python -m vireid_jax.models
    python -m vireid_jax.models --name osnet_x1_0 --size 288x144
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from vireid_jax import models
from vireid_jax.models.build import init_variables
from vireid_jax.models.complexity import complexity
from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.console import plain_table
from vireid_jax.run.environment import processor
from vireid_jax.run.errors import UserError
from vireid_jax.run.runtime import set_up


def card(
    model: models.Network, name: str, size: tuple[int, int], runs: int
) -> dict[str, Any]:
    """Return a two-stream network's counts, and the latency of one image in ms.

    The latency is the median of `runs`, None if there are none.
    """
    about: dict[str, Any] = {"name": name, "size": list(size)}
    for graph in ("test", "train"):
        rows = complexity(model, size, graph == "train")
        about[f"{graph}_stages"] = [row._asdict() for row in rows]
        about[f"{graph}_params"] = sum(row.params for row in rows)
        about[f"{graph}_macs"] = sum(row.macs for row in rows)
    return about | {
        "latency_ms": _latency(model, size, runs) if runs else None,
        "machine": f"{processor() or platform.machine()}, {jax.devices()[0].platform}",
    }


def _latency(model: models.Network, size: tuple[int, int], runs: int) -> float:
    variables = jax.jit(lambda: init_variables(model, jax.random.key(0)))()
    images = np.zeros((1, 1, *size, 3), np.float32)
    apply = jax.jit(lambda variables, x: model.apply(variables, x, ("infrared",))[0])
    times = []
    for _ in range(1 + runs):  # the first one compiles
        start = time.perf_counter()
        apply(variables, images).block_until_ready()
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times[1:]), 2)


def show(about: dict[str, Any], console: Console) -> None:
    """Print a card as a table."""
    height, width = about["size"]
    title = f"{about['name']} at {height}x{width}, one image"
    columns = ("output", "test:\nparams", "MACs", "training:\nparams", "MACs")
    table = plain_table(title, *columns, no_wrap=True)
    test = {row["stage"]: row for row in about["test_stages"]}
    for row in about["train_stages"]:
        counts = [
            f"{graph[key]:,}" if graph else ""
            for graph in (test.get(row["stage"]), row)
            for key in ("params", "macs")
        ]
        table.add_row(row["stage"], "x".join(map(str, row["output"])), *counts)
    table.add_section()
    totals = ("test_params", "test_macs", "train_params", "train_macs")
    table.add_row("sum", "", *(f"{about[total]:,}" for total in totals))
    console.print(table)
    if about["latency_ms"] is not None:
        console.print(f"latency {about['latency_ms']} ms on {about['machine']}")


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("models", __doc__, "performance.md")
    add = parser.add_argument
    add("--name", help="one of the list")
    add("--size", default="288x144", help="height x width")
    add("--specific", type=int, default=1, help="number of specific stages, 0 to 5")
    add("--parts", default="", help="granularities, such as 2,3,6")
    add("--students", default="", help="such as conv2,conv3,conv4")
    add("--classes", type=int, default=395, help="of the training graph")
    add("--runs", type=int, default=20, help="0: measure no latency")
    add("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Print the list or the description."""
    console = Console()
    if not arguments.name:
        names = models.list_models()
        console.print(json.dumps(names) if arguments.json else "\n".join(names))
        return
    set_up()
    size = read_numbers(arguments.size, "x")
    if len(size) != 2 or any(n < 32 or n % 16 for n in size):
        raise UserError(
            f"--size is {arguments.size!r}; give HEIGHTxWIDTH, multiples of 16 from 32"
            " on"
        )
    if arguments.classes < 1 or arguments.runs < 0:
        raise UserError("give --classes of 1 or more and --runs of 0 or more")
    model = models.create(
        arguments.name,
        num_classes=arguments.classes,
        num_specific_stages=arguments.specific,
        granularities=read_numbers(arguments.parts, ","),
        students=tuple(filter(None, arguments.students.split(","))),
    )
    about = card(model, arguments.name, size, arguments.runs)
    if arguments.json:
        console.print_json(json.dumps(about))
    else:
        show(about, console)


def read_numbers(text: str, separator: str) -> tuple[int, ...]:
    """Read `288x144` or `2,3,6`; raise UserError for anything else."""
    parts = [part for part in text.split(separator) if part]
    if not all(part.isdigit() for part in parts):
        raise UserError(f"{text!r} is not numbers with {separator!r} between them")
    return tuple(map(int, parts))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
