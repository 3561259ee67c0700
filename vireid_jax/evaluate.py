"""Evaluate a trained network: embed the test split once, rank it by every protocol.

    python -m vireid_jax.evaluate --workdir DIR [--which last|best|STEP]

needs the workdir's checkpoint and the data set; prints a table and writes
`DIR/eval.json`. Training ends with the same.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax.baselines import evaluate_baselines
from vireid_jax.config import with_defaults
from vireid_jax.data.source import Records, load_records
from vireid_jax.errors import one_line_errors
from vireid_jax.protocols import (
    Protocol,
    Result,
    evaluate,
    get_protocols,
    results_table,
)
from vireid_jax.runtime import set_up
from vireid_jax.workdir import replace_text

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


def evaluate_split(
    embedder: Any,
    records: Records,
    protocols: Sequence[Protocol],
    *,
    epoch: float,
    selection: str | None,
) -> list[Result]:
    """Embeds every row of a split once and ranks it by each protocol."""
    features = embedder.embed_records(records)
    return [
        evaluate(
            protocol,
            records,
            features,
            feature=embedder.feature,
            flip=embedder.flip,
            epoch=epoch,
            selection=selection,
        )
        for protocol in protocols
    ]


def report(
    results: Sequence[Result], about: dict[str, Any], path: Path, console: Console
) -> None:
    """Prints the table, and writes it with the run's description as JSON."""
    console.print(results_table(results))
    document = {"run": about, "results": [result.to_json() for result in results]}
    replace_text(path, json.dumps(document, indent=2) + "\n")


def evaluate_test_split(
    embedder: Any,
    config: Config,
    *,
    about: dict[str, Any],
    selection: str | None,
    path: Path,
    console: Console,
) -> list[Result]:
    """Runs the whole test: protocols, for `walkers` the baselines too, table, JSON."""
    records = open_split(config, "test")
    protocols = get_protocols(dataset_title(config))
    results = evaluate_split(
        embedder, records, protocols, epoch=about["epoch"], selection=selection
    )
    if config.data.name == "walkers":
        results += evaluate_baselines(protocols, records, tuple(config.data.size))
    report(results, about, path, console)
    return results


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m vireid_jax.evaluate", description="Evaluate a trained network."
    )
    parser.add_argument("--workdir", required=True, type=Path, help="of a training run")
    parser.add_argument("--which", default="last", help="last, best, or a step")
    arguments = parser.parse_args()
    set_up()
    from vireid_jax.embedder import load

    which = int(arguments.which) if arguments.which.isdigit() else arguments.which
    with one_line_errors():
        embedder = load(arguments.workdir, which)
        evaluate_test_split(
            embedder,
            with_defaults(embedder.about["config"]),
            about=embedder.about,
            selection=None if isinstance(which, int) else which,
            path=arguments.workdir / "eval.json",
            console=Console(emoji=False),
        )


if __name__ == "__main__":
    main()
