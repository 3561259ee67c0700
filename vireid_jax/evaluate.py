"""Evaluate a trained network, anybody's features, or several runs against each other.

    python -m vireid_jax.evaluate --workdir DIR [--which last|best|STEP]

embeds the test split once and ranks it by every protocol; needs the checkpoint and the
data set, and writes `DIR/eval.json`, each query's metrics beside it. Training ends with
the same. With --which, --protocol, --feature or --rerank it writes only where --out
says.

    python -m vireid_jax.evaluate --features FILE.npz --protocol sysu_mm01/all/single
    python -m vireid_jax.evaluate --compare DIR_A DIR_B
    python -m vireid_jax.evaluate --runs DIR_1 DIR_2 ...

need no data set. docs/evaluate.md tells of all four.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax.baselines import evaluate_baselines
from vireid_jax.compare_runs import (
    compare,
    fingerprint,
    queries_path,
    summarise,
    write_queries,
)
from vireid_jax.config import with_defaults
from vireid_jax.data.source import Records, load_records
from vireid_jax.foreign_features import evaluate_file
from vireid_jax.protocols import (
    KReciprocal,
    Protocol,
    Result,
    counts_that_differ,
    evaluate,
    find_protocol,
    get_protocols,
    results_table,
    trials_table,
    uncertainty_table,
)
from vireid_jax.run.errors import one_line_errors
from vireid_jax.run.runtime import set_up
from vireid_jax.run.workdir import replace_text

Config = ConfigDict | FrozenConfigDict


def open_split(config: Config, split: str) -> Records:
    """Opens a split of the config's data set, preparing a synthetic one if missing."""
    c = config.data
    return load_records(
        c.name,
        split,
        config=c.options.to_dict() if c.options else c.variant or None,
        data_dir=c.dir or None,
    )


def dataset_title(config: Config) -> str:
    """Names the data set as reports do: `walkers/thermal`."""
    variant = config.data.options.get("variant", config.data.variant)
    return f"{config.data.name}/{variant}" if variant else config.data.name


def rank_split(
    embedder: Any,
    records: Records,
    features: np.ndarray,
    protocols: Sequence[Protocol],
    *,
    epoch: float,
    selection: str | None,
    reranking: KReciprocal | None = None,
) -> list[Result]:
    """Ranks the embeddings of a split's rows by each protocol."""
    return [
        evaluate(
            protocol,
            records,
            features,
            feature=embedder.feature,
            flip=embedder.flip,
            reranking=reranking,
            epoch=epoch,
            selection=selection,
        )
        for protocol in protocols
    ]


def report(results: Sequence[Result], console: Console) -> None:
    """Prints the metrics, how far they can be trusted, and those of each trial."""
    console.print(results_table(results))
    for sentence in counts_that_differ(results):
        console.print(sentence)
    console.print(uncertainty_table(results))
    if any(len(r.by_trial) > 1 for r in results if not r.labels.baseline):
        console.print(trials_table(results))


def write_report(results: Sequence[Result], about: dict[str, Any], path: Path) -> None:
    """Writes the metrics with the run's description as JSON."""
    document = {"run": about, "results": [result.to_json() for result in results]}
    replace_text(path, json.dumps(document, indent=2) + "\n")


def evaluate_test_split(
    embedder: Any,
    config: Config,
    *,
    about: dict[str, Any],
    selection: str | None,
    path: Path | None,
    console: Console,
    protocols: Sequence[Protocol] = (),
    reranking: KReciprocal | None = None,
) -> list[Result]:
    """Runs the whole test: protocols, for `walkers` the baselines too, table, JSON.

    `protocols` are the data set's own unless some are given; `path` is the JSON's, None
    to write nothing.
    """
    records = open_split(config, "test")
    protocols = protocols or get_protocols(dataset_title(config))
    results = rank_split(
        embedder,
        records,
        embedder.embed_records(records),
        protocols,
        epoch=about["epoch"],
        selection=selection,
        reranking=reranking,
    )
    if path:
        queries = queries_path(path)
        write_queries(queries, results, records.filename, records.fingerprint)
    if config.data.name == "walkers":
        results += evaluate_baselines(protocols, records, tuple(config.data.size))
    report(results, console)
    if path:
        write_report(results, about, path)
    return results


def choose_protocols(
    names: Sequence[str], permutations: Path | None, dataset: str = ""
) -> list[Protocol]:
    """Finds protocols by name; those of another data set than the run's are refused.

    A network trained on one of RegDB's trials knows people of every other trial's test.
    """
    # The run's own carry its data set's full name, as "walkers/nir".
    own = {p.name: p for p in get_protocols(dataset)} if dataset else {}
    found = [find_protocol(name, permutations=permutations) for name in names]
    found = [own.get(protocol.name, protocol) for protocol in found]
    for protocol in found if dataset else ():
        title, family = protocol.dataset, dataset.partition("/")[0]
        if protocol.name not in own and title != family:
            reason = (
                "in another trial some of these people are to be found"
                if title.partition("/")[0] == family
                else "its rows are another data set's"
            )
            legal = list(own)
            raise ValueError(
                f"--protocol {protocol.name} is one of {title}, and this run was"
                f" trained on {dataset}: {reason}. Give one of {legal}, or the workdir"
                f" of a run on {title}"
            )
    return found


def evaluate_workdir(arguments: argparse.Namespace, console: Console) -> None:
    """Evaluates a checkpoint; eval.json is of the last epoch, by all protocols."""
    set_up()
    from vireid_jax.embed.embedder import load

    which, path = arguments.which, arguments.out
    changed = arguments.protocol or arguments.feature or arguments.rerank
    is_the_runs = which == "last" and not changed
    if path is None and is_the_runs:
        path = arguments.workdir / "eval.json"
    which = int(which) if which.isdigit() else which
    embedder = load(arguments.workdir, which, arguments.feature)
    config = with_defaults(embedder.about["config"])
    evaluate_test_split(
        embedder,
        config,
        about=embedder.about,
        selection=None if isinstance(which, int) else which,
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
    """Evaluates the features, or distances, of a file."""
    if not arguments.protocol:
        raise ValueError("--features needs --protocol NAME; docs/protocols.md has all")
    results, rows = evaluate_file(
        arguments.features,
        choose_protocols(arguments.protocol, arguments.permutations),
        KReciprocal() if arguments.rerank else None,
    )
    report(results, console)
    if arguments.out:
        queries = queries_path(arguments.out)
        write_queries(queries, results, rows.filename, fingerprint(rows))
        write_report(results, {"features": str(arguments.features)}, arguments.out)


def parse() -> argparse.Namespace:
    """Reads the command line."""
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
    """Runs the command."""
    arguments, console = parse(), Console(emoji=False)
    with one_line_errors():
        if arguments.out and not arguments.out.absolute().parent.is_dir():
            raise ValueError(f"--out {arguments.out}: there is no such folder; make it")
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
