"""Embed the test split and rank it by every protocol; write eval.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax.config import with_defaults
from vireid_jax.data.source import Records, load_records
from vireid_jax.evaluate.baselines import evaluate_baselines
from vireid_jax.evaluate.compare_runs import (
    queries_path,
    write_queries,
)
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
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_text

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


def evaluate_run(
    workdir: str | Path,
    which: str | int = "last",
    *,
    protocols: Sequence[str] = (),
    feature: str | None = None,
    permutations: Path | None = None,
    reranking: KReciprocal | None = None,
    path: Path | None = None,
    console: Console | None = None,
) -> list[Result]:
    """Score a run's checkpoint on its test split; return a result per protocol.

    `which` is "last", "best" or a step. `protocols` are names of docs/protocols.md,
    none: the data set's own. `feature` is "all", or "global" without the parts, None:
    as the run's config says. `path` is where to write the results as JSON, None:
    nowhere. `console` shows the tables, None: they are not shown. Raise UserError if
    the checkpoint or the data set is missing, or for a protocol of another data set.
    """
    from vireid_jax.embed.embedder import load

    embedder = load(workdir, which, feature)
    config = with_defaults(embedder.about["config"])
    return evaluate_test_split(
        embedder,
        config,
        about=embedder.about,
        selection=str(which) if which in ("last", "best") else None,
        path=path,
        console=console or Console(quiet=True),
        protocols=choose_protocols(protocols, permutations, dataset_title(config)),
        reranking=reranking,
    )


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
            raise UserError(
                f"--protocol {protocol.name} is one of {title}, and this run was"
                f" trained on {dataset}: {reason}. Give one of {legal}, or the workdir"
                f" of a run on {title}"
            )
    return found
