"""Evaluate a trained network, exported features, or several runs together.

`--workdir` embeds the test split once and ranks it by every protocol; it needs the
checkpoint and the data set, and writes `DIR/eval.json` with each query's metrics and
the embeddings beside it, as training does at its end. With --which, --protocol,
--feature or --rerank it writes only to --out. `--features`, `--compare` and `--runs`
need no data set.

    python -m vireid_jax.evaluate --workdir runs/demo --which best
    python -m vireid_jax.evaluate --features f.npz --protocol sysu_mm01/all/single
    python -m vireid_jax.evaluate --compare runs/a runs/b
    python -m vireid_jax.evaluate --runs runs/regdb-1 runs/regdb-2 runs/regdb-3
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vireid_jax.evaluate.compare_runs import (
    compare,
    fingerprint,
    queries_path,
    summarise,
    write_queries,
)
from vireid_jax.evaluate.foreign_features import evaluate_file
from vireid_jax.evaluate.test_split import (
    choose_protocols,
    evaluate_run,
    print_results,
    write_report,
)
from vireid_jax.protocols import KReciprocal
from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import check_parent
from vireid_jax.run.runtime import set_up


def evaluate_workdir(arguments: argparse.Namespace, console: Console) -> None:
    """Evaluate a checkpoint; eval.json is of the last epoch, by all protocols."""
    set_up()
    changed = arguments.protocol or arguments.feature or arguments.rerank
    path = arguments.out
    if path is None and arguments.which == "last" and not changed:
        path = arguments.workdir / "eval.json"
    evaluate_run(
        arguments.workdir,
        arguments.which,
        protocols=arguments.protocol,
        feature=arguments.feature,
        permutations=arguments.permutations,
        reranking=KReciprocal() if arguments.rerank else None,
        path=path,
        console=console,
    )
    if path is None:
        console.print("Not written: eval.json keeps the run's result; give --out FILE.")


def evaluate_features(arguments: argparse.Namespace, console: Console) -> None:
    """Evaluate the features, or distances, of a file."""
    if not arguments.protocol:
        raise UserError("--features needs --protocol NAME; docs/protocols.md has all")
    results, rows = evaluate_file(
        arguments.features,
        choose_protocols(arguments.protocol, arguments.permutations),
        KReciprocal() if arguments.rerank else None,
    )
    print_results(results, console)
    if arguments.out:
        queries = queries_path(arguments.out)
        write_queries(queries, results, rows.filename, fingerprint(rows))
        write_report(results, {"features": str(arguments.features)}, arguments.out)


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("evaluate", __doc__, "evaluate.md")
    what = parser.add_mutually_exclusive_group(required=True)
    add = what.add_argument
    add("--workdir", type=Path, help="of a training run")
    add("--features", type=Path, help="FILE.npz or .mat of any framework")
    add("--compare", type=Path, nargs=2, metavar="DIR", help="test two runs, paired")
    add("--runs", type=Path, nargs="+", metavar="DIR", help="mean over several runs")
    add = parser.add_argument
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--protocol", nargs="+", default=[], metavar="NAME", help="docs/protocols.md")
    add("--feature", choices=("all", "global"), help="of a network with parts")
    add("--permutations", type=Path, help="rand_perm_cam.mat, for /official")
    add("--rerank", action="store_true", help="by k-reciprocal neighbours")
    add("--out", type=Path, help="where to write the results as JSON")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print the tables."""
    console = Console(emoji=False)
    if arguments.out:
        check_parent(arguments.out)
    if arguments.workdir:
        evaluate_workdir(arguments, console)
    elif arguments.features:
        evaluate_features(arguments, console)
    elif arguments.compare:
        console.print(compare(*arguments.compare))
    else:
        console.print(summarise(arguments.runs))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
