"""Read a run into plain data: its numbers, its costs, its embedded test split."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from vireid_jax.config import with_defaults
from vireid_jax.data.source import Records
from vireid_jax.embed.embedder import load
from vireid_jax.evaluate import test_split
from vireid_jax.models.build import create_model
from vireid_jax.models.complexity import complexity
from vireid_jax.protocols import Protocol, Result, evaluate, get_protocols
from vireid_jax.report.activations import activation_maps
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import METRICS
from vireid_jax.run.writers import read_rows
from vireid_jax.training.checkpoint import FOLDER, Checkpoints

# Labels that two runs of one table must share.
_LABELS = ("dataset", "selection", "reranking", "flip", "feature")
# mAP of one set of embeddings on two processors differs in its last digits.
_ROUNDING = 0.005


class EmbeddedSplit(NamedTuple):
    """An embedded split and its results, one for each protocol."""

    rows: Records
    features: Float32[np.ndarray, "rows dim"]
    protocols: Sequence[Protocol]
    results: Sequence[Result]

    def first_of_each_direction(self) -> list[tuple[Protocol, Result]]:
        """Return the first protocol of each direction, with its result."""
        first: dict[str, tuple[Protocol, Result]] = {}
        for protocol, result in zip(self.protocols, self.results, strict=True):
            first.setdefault(protocol.direction, (protocol, result))
        return list(first.values())


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """What the files of a workdir hold."""

    name: str  # the workdir, as it was typed
    about: dict[str, Any]  # config, epoch, step, environment, data
    results: list[dict[str, Any]]  # of eval.json, baselines among them
    metrics: list[dict[str, Any]]  # rows of metrics.jsonl
    costs: dict[str, str]
    test: EmbeddedSplit | None = None
    activations: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (what, why)

    @property
    def own_results(self) -> list[dict[str, Any]]:
        """Return the network's results, without those of baselines."""
        return [result for result in self.results if not result["baseline"]]


def read_run(workdir: Path) -> EvaluatedRun:
    """Read a run's files, before anything that takes minutes.

    Raise UserError where there is no evaluation, or one of another checkpoint.
    """
    document, metrics = read_evaluation(workdir), read_rows(workdir / METRICS)
    about, results = document["run"], document["results"]
    run = EvaluatedRun(str(workdir), about, results, metrics, costs(about, metrics))
    if not metrics:
        run.left_out.append(("Training curves", f"{workdir / METRICS} has no rows"))
    checkpoint = last_checkpoint(workdir)
    if checkpoint is None:
        reason = f"there is no checkpoint in {workdir}"
        run.left_out.append(("Activation maps", reason))
    elif checkpoint["step"] != about["step"]:
        raise UserError(
            f"{workdir}/eval.json is of step {about['step']}, and the last"
            f" checkpoint is of step {checkpoint['step']}; {_evaluate(workdir)}"
        )
    return run


def read_evaluation(workdir: Path) -> dict[str, Any]:
    """Read `eval.json`; raise UserError, with what to type, if it is not complete."""
    if not workdir.is_dir():
        raise UserError(f"there is no folder {workdir}; give the --workdir of a run")
    path = workdir / "eval.json"
    if not path.is_file():
        raise UserError(_why_not_evaluated(workdir))
    try:
        document = json.loads(path.read_text())
        own = [result for result in document["results"] if not result["baseline"]]
        if not own or not all("intervals" in result for result in own):
            raise KeyError("intervals")
        document["run"]["step"]  # it has none if it is of features from a file
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not the evaluation of a training run; {_evaluate(workdir)}"
        ) from error
    return document


def _evaluate(workdir: Path) -> str:
    return f"to evaluate it: python -m vireid_jax.evaluate --workdir {workdir}"


def _why_not_evaluated(workdir: Path) -> str:
    """Return the error message for a workdir without eval.json."""
    train = f"python -m vireid_jax.main --config CONFIG --workdir {workdir}"
    if not (workdir / "config.json").is_file():
        missing = "it has neither config.json nor eval.json"
        return f"{workdir} is not the workdir of a run: {missing}; train first: {train}"
    reached = "before its first checkpoint"
    if about := last_checkpoint(workdir):
        epoch, epochs = about["epoch"], about["config"]["schedule"]["epochs"]
        if epoch >= epochs:
            return f"{workdir} has no evaluation; {_evaluate(workdir)}"
        reached = f"at epoch {epoch:g} of {epochs:g}"
    return f"the run in {workdir} was interrupted {reached}; to resume it: {train}"


def last_checkpoint(workdir: Path) -> dict[str, Any] | None:
    """Return what was stored beside the last state; None if there is none."""
    if not any((workdir / FOLDER).glob("[0-9]*")):
        return None
    checkpoints = Checkpoints(workdir, read_only=True)
    about = checkpoints.about(checkpoints.find("last"))
    checkpoints.close()
    return about


def with_test(run: EvaluatedRun, workdir: Path) -> EvaluatedRun:
    """Return the run with its test split, embedded as the evaluation left it.

    If the images cannot be read, `left_out` has the reason. Raise UserError where the
    images or the embeddings are others than those of the evaluation.
    """
    config, about = with_defaults(run.about["config"]), run.about
    try:
        records = test_split.open_split(config, "test")
    except (UserError, OSError) as error:
        what = "CMC curves, distances, maps, camera matrix, rank lists, activation maps"
        reason = " ".join(str(error).split())
        run.left_out.append((what, f"the images cannot be read: {reason}"))
        return run
    features = test_split.read_test_features(workdir, records, about["step"])
    own = {result["protocol"]: result for result in run.own_results}
    every = get_protocols(test_split.dataset_title(config))
    protocols = [protocol for protocol in every if protocol.name in own]
    results = []
    for protocol in protocols:
        stored = own[protocol.name]
        labels = {name: stored[name] for name in ("feature", "flip", "selection")}
        result = evaluate(protocol, records, features, epoch=about["epoch"], **labels)
        if abs(result.mAP - stored["metrics"]["mAP"]) > _ROUNDING:
            raise UserError(
                f"{workdir}/eval.json has mAP {100 * stored['metrics']['mAP']:.2f} by"
                f" {protocol.name}, and its embeddings {100 * result.mAP:.2f};"
                f" {_evaluate(workdir)}"
            )
        results.append(result)
    run.costs["Embedding, dimensions"] = f"{features.shape[1]:,}"
    test = EmbeddedSplit(records, features, protocols, results)
    maps: list[dict[str, Any]] = []
    if "Activation maps" not in dict(run.left_out):
        maps, reason = activation_maps(load(workdir), config, test.rows)
        if reason:
            run.left_out.append(("Activation maps", reason))
    return dataclasses.replace(run, test=test, activations=maps)


def costs(about: dict[str, Any], metrics: list[dict[str, Any]]) -> dict[str, str]:
    """Return what the network and the run cost, as texts by name."""
    config = with_defaults(about["config"])
    model = create_model(config, about["num_classes"])
    size = tuple(config.data.size)
    texts = {"Image, height by width": "{}x{}".format(*size)}
    for graph, train in (("at test", False), ("in training", True)):
        stages = complexity(model, size, train)
        texts[f"Parameters {graph}"] = f"{sum(s.params for s in stages):,}"
        texts[f"MACs an image {graph}"] = f"{sum(s.macs for s in stages):,}"
    texts["Steps"] = f"{about['step']:,}"
    texts["Epochs"] = f"{about['epoch']:g}"
    rows = [row for row in metrics if row["kind"] == "train"]
    if rows:
        seconds = sum(row["seconds"] for row in rows)
        texts["Training, without evaluation"] = f"{seconds:,.0f} s"
        rate = float(np.median([row["images_per_second"] for row in rows]))
        texts["Images a second, median"] = f"{rate:,.0f}"
    environment = about["environment"]
    texts["Processor"] = environment["processor"] or environment["machine"]
    texts["Devices"] = ", ".join(environment["devices"])
    return texts


def check_comparable(first: EvaluatedRun, second: EvaluatedRun) -> None:
    """Raise UserError where two runs do not belong in one table."""
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for run, labels in ((first, one), (second, other)):
        environment = run.about["environment"]
        labels["version of vireid-jax"] = environment["packages"]["vireid-jax"]
        labels["commit"] = environment["commit"]
        labels["protocols"] = sorted(r["protocol"] for r in run.own_results)
        for result in run.own_results:
            labels |= {f"{x} by {result['protocol']}": result[x] for x in _LABELS}
    for what, value in one.items():
        if value != other[what]:
            raise UserError(
                f"{first.name} and {second.name} differ in their {what}: {value!r} and"
                f" {other[what]!r}; a page compares runs of one code and one test. Make"
                f" one of each: python -m vireid_jax.report --workdir {first.name}"
            )
