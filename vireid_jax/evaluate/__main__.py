"""Evaluate a trained network, anybody's features, or several runs against each other.

    python -m vireid_jax.evaluate --workdir DIR [--which last|best|STEP]

embeds the test split once and ranks it by every protocol; needs the checkpoint and the
data set, and writes `DIR/eval.json`, each query's metrics and the embeddings beside it.
Training ends with the same. With --which, --protocol, --feature or --rerank it writes
only to --out.

    python -m vireid_jax.evaluate --features FILE.npz --protocol sysu_mm01/all/single
    python -m vireid_jax.evaluate --compare DIR_A DIR_B
    python -m vireid_jax.evaluate --runs DIR_1 DIR_2 ...

need no data set. docs/evaluate.md has all four.
"""

import argparse
from pathlib import Path

from rich.console import Console

from vireid_jax.config import with_defaults
from vireid_jax.embed.embedder import load
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
    dataset_title,
    evaluate_test_split,
    print_results,
    write_report,
)
from vireid_jax.protocols import KReciprocal
from vireid_jax.run.errors import UserError, one_line_errors
from vireid_jax.run.files import check_parent
from vireid_jax.run.runtime import set_up


def evaluate_workdir(arguments: argparse.Namespace, console: Console) -> None:
    """Evaluate a checkpoint; eval.json is of the last epoch, by all protocols."""
    set_up()
    which, path = arguments.which, arguments.out
    changed = arguments.protocol or arguments.feature or arguments.rerank
    if path is None and which == "last" and not changed:
        path = arguments.workdir / "eval.json"
    embedder = load(arguments.workdir, which, arguments.feature)
    config = with_defaults(embedder.about.config)
    evaluate_test_split(
        embedder,
        config,
        about=embedder.about,
        selection=None if which.isdigit() else which,
        path=path,
        console=console,
        protocols=choose_protocols(
            arguments.protocol, arguments.permutations, dataset_title(config)
        ),
        reranking=KReciprocal() if arguments.rerank else None,
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


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vireid_jax.evaluate",
        description="Evaluate a network or features, or compare runs: docs/evaluate.md",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    add = what.add_argument
    add("--workdir", type=Path, help="of a training run")
    add("--features", type=Path, help="FILE.npz or .mat of any framework")
    add("--compare", type=Path, nargs=2, metavar="DIR", help="test two runs, paired")
    add("--runs", type=Path, nargs="+", metavar="DIR", help="mean over several runs")
    add = parser.add_argument
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--protocol", nargs="+", default=[], metavar="NAME", help="docs/protocols.md")
    add(
        "--feature",
        choices=("all", "global"),
        help="of a network with parts: all, or global",
    )
    add("--permutations", type=Path, help="rand_perm_cam.mat, for /official")
    add("--rerank", action="store_true", help="by k-reciprocal neighbours")
    add("--out", type=Path, help="where to write the results as JSON")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments, console = parse(), Console(emoji=False)
    with one_line_errors():
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


if __name__ == "__main__":
    main()
