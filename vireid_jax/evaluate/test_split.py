"""Embed the test split and rank it by every protocol; write eval.json.

Beside `eval.json` lie `eval.queries.npz`, each query's metrics, and
`eval.features.npz`, the embeddings: in the format that `evaluate --features` reads,
with the step of the checkpoint and the fingerprint of the split.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax.data.source import Records, load_records
from vireid_jax.evaluate.baselines import evaluate_baselines
from vireid_jax.evaluate.compare_runs import queries_path, write_queries
from vireid_jax.evaluate.foreign_features import read_arrays
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
from vireid_jax.run.files import replace_bytes, replace_text

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


def features_path(path: Path) -> Path:
    """Return where the embeddings are, beside the JSON of `path`."""
    return path.with_suffix(".features.npz")


def write_test_features(
    path: Path, records: Records, features: Float32[np.ndarray, "rows dim"], step: int
) -> None:
    """Write the embeddings of a test split atomically, in the order of its rows."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        features=features,
        identity=records.identity,
        camera=records.camera,
        modality=records.modality,
        filename=np.array(records.filename),
        step=step,
        data=records.fingerprint,
    )
    replace_bytes(path, buffer.getvalue())


def read_test_features(
    workdir: Path, records: Records, step: int
) -> Float32[np.ndarray, "rows dim"]:
    """Return the embeddings that the evaluation of a run wrote, in the rows' order.

    Raise UserError where the file is missing or damaged, or is not of this `step` and
    of these images.
    """
    path = features_path(workdir / "eval.json")
    again = f"to write it: python -m vireid_jax.evaluate --workdir {workdir}"
    if not path.is_file():
        raise UserError(f"{path} is missing; {again}")
    arrays = read_arrays(path)
    for name, wanted in {"step": step, "data": records.fingerprint}.items():
        if name not in arrays or arrays[name] != wanted:
            raise UserError(
                f"{path} is of {name} {arrays.get(name)}, not of {wanted}; {again}"
            )
    return arrays["features"]


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
    features = embedder.embed_records(records)
    results = rank_split(
        embedder,
        records,
        features,
        protocols,
        epoch=about["epoch"],
        selection=selection,
        reranking=reranking,
    )
    if path:
        queries = queries_path(path)
        write_queries(queries, results, records.filename, records.fingerprint)
        write_test_features(features_path(path), records, features, about["step"])
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
            raise UserError(
                f"--protocol {protocol.name} is one of {title}, and this run was"
                f" trained on {dataset}: {reason}. Give one of {legal}, or the workdir"
                f" of a run on {title}"
            )
    return found
