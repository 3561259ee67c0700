"""Embed the test split and rank it by every protocol; write eval.json.

Beside `eval.json` are `eval.queries.npz`, each query's metrics, and
`eval.features.npz`, the embeddings: in the format that `evaluate --features` reads,
with the step of the checkpoint and the fingerprint of the split.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax.config import with_defaults
from vireid_jax.data.source import Records, load_records
from vireid_jax.embed.embedder import Embedder, load
from vireid_jax.evaluate.baselines import evaluate_baselines
from vireid_jax.evaluate.compare_runs import queries_path, read_npz, write_queries
from vireid_jax.protocols import (
    KReciprocal,
    Protocol,
    Result,
    evaluate,
    find_protocol,
    get_protocols,
    print_results,
)
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_bytes, replace_text
from vireid_jax.training.run_info import RunInfo

Config: TypeAlias = ConfigDict | FrozenConfigDict


def open_split(config: Config, split: str) -> Records:
    """Open a split of the config's data set, preparing a synthetic one if missing."""
    c = config.data
    return load_records(
        c.name,
        split,
        config=c.options.to_dict() if c.options else c.variant or None,
        data_dir=c.dir or None,
    )


def dataset_title(config: Config) -> str:
    """Return the name of the data set as reports have it: `walkers/thermal`."""
    variant = config.data.options.get("variant", config.data.variant)
    return f"{config.data.name}/{variant}" if variant else config.data.name


def write_report(results: Sequence[Result], about: dict[str, Any], path: Path) -> None:
    """Write the metrics as JSON, with a description of what was tested."""
    document = {"run": about, "results": [result.to_json() for result in results]}
    replace_text(path, json.dumps(document, indent=2) + "\n")


def write_test_features(
    path: Path, records: Records, features: Float32[np.ndarray, "rows dim"], step: int
) -> None:
    """Write the embeddings of a test split beside the JSON file `path`."""
    names = ("identity", "camera", "modality", "filename")
    arrays = {"features": features} | {name: getattr(records, name) for name in names}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, step=step, data=records.fingerprint)
    replace_bytes(path.with_suffix(".features.npz"), buffer.getvalue())


def read_test_features(
    workdir: Path, records: Records, step: int
) -> Float32[np.ndarray, "rows dim"]:
    """Return the embeddings that the evaluation of a run wrote, in the rows' order.

    Raise UserError where the file is missing, damaged, of another step or of others.
    """
    path = workdir / "eval.features.npz"
    remedy = f"to write it: python -m vireid_jax.evaluate --workdir {workdir}"
    arrays = read_npz(path, remedy)
    for name, wanted in {"step": step, "data": records.fingerprint}.items():
        if name not in arrays or arrays[name] != wanted:
            raise UserError(
                f"{path} is of {name} {arrays.get(name)}, not of {wanted}; {remedy}"
            )
    return arrays["features"]


def evaluate_test_split(
    embedder: Embedder,
    config: Config,
    *,
    about: RunInfo,
    selection: str | None,
    path: Path | None,
    console: Console,
    protocols: Sequence[Protocol] = (),
    reranking: KReciprocal | None = None,
) -> list[Result]:
    """Run the complete test: protocols, for `walkers` the baselines too, table, files.

    `protocols` are by default the data set's own; `path` is the JSON's, None to write
    nothing. All processes of a run must call this.
    """
    records = open_split(config, "test")
    protocols = protocols or get_protocols(dataset_title(config))
    features = embedder.embed_records(records)
    labels: dict[str, Any] = {"epoch": about.epoch, "selection": selection}
    labels |= {"feature": embedder.feature, "flip": embedder.flip}
    results = [
        evaluate(protocol, records, features, reranking=reranking, **labels)
        for protocol in protocols
    ]
    if path:
        queries = queries_path(path)
        write_queries(queries, results, records.filename, records.fingerprint)
        write_test_features(path, records, features, about.step)
    if config.data.name == "walkers":
        results += evaluate_baselines(protocols, records, tuple(config.data.size))
    print_results(results, console)
    if path:
        write_report(results, about.to_json(), path)
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
    embedder = load(workdir, which, feature)
    config = with_defaults(embedder.about.config)
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
    """Find protocols by name; refuse those of another data set than the run's.

    A network trained on one of RegDB's trials knows people of every other trial's test.
    """
    protocols = [find_protocol(name, permutations=permutations) for name in names]
    if not dataset:
        return protocols
    # The run's own have its data set's full name, as "walkers/nir".
    own = {protocol.name: protocol for protocol in get_protocols(dataset)}
    for protocol in protocols:
        title = protocol.dataset
        if protocol.name not in own and title != dataset.partition("/")[0]:
            raise UserError(
                f"--protocol {protocol.name} is one of {title}, and this run was"
                f" trained on {dataset}: on another data set, or on some of its test"
                f" people. Valid values: {list(own)}, or give the workdir of a run on"
                f" {title}"
            )
    return [own.get(protocol.name, protocol) for protocol in protocols]
