"""Reads a run into plain data: its numbers, its costs, its embedded test split."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from vireid_jax.evaluate.compare_runs import read_queries
from vireid_jax.protocols import Protocol, Result, Rows, evaluate, get_protocols
from vireid_jax.run.errors import UserError
from vireid_jax.run.workdir import METRICS

# What may not differ between two runs of one table.
_LABELS = ("dataset", "selection", "reranking", "flip", "feature")
# As far as the last digits of another processor go.
_ROUNDING = 0.005


@dataclass(frozen=True, eq=False)
class EmbeddedSplit:
    """Hold an embedded split, and what its protocols say about it.

    `image` decodes a row at (height, width); None where there are no images.
    """

    identity: Int32[np.ndarray, "rows"]
    camera: Int32[np.ndarray, "rows"]
    modality: Int32[np.ndarray, "rows"]
    filename: list[str]
    features: Float32[np.ndarray, "rows dim"]
    protocols: Sequence[Protocol]
    results: Sequence[Result]
    image: Callable[..., np.ndarray] | None = None

    def first_of_each_direction(self) -> list[tuple[Protocol, Result]]:
        """Returns the first protocol of each direction, with its result."""
        found: dict[str, tuple[Protocol, Result]] = {}
        for protocol, result in zip(self.protocols, self.results, strict=True):
            found.setdefault(protocol.direction, (protocol, result))
        return list(found.values())


@dataclass(frozen=True, eq=False)
class Run:
    """Hold what a workdir tells of a run."""

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
        """Returns the network's results, without those of baselines."""
        return [one for one in self.results if not one["baseline"]]


def read_evaluation(workdir: Path) -> dict[str, Any]:
    """Reads `eval.json`; raises UserError, with what to type, where none is whole."""
    if not workdir.is_dir():
        raise UserError(f"there is no folder {workdir}; give the --workdir of a run")
    path = workdir / "eval.json"
    if not path.is_file():
        raise UserError(_why_not_evaluated(workdir))
    again = f"to write it: python -m vireid_jax.evaluate --workdir {workdir}"
    try:
        document = json.loads(path.read_text())
        ours = [one for one in document["results"] if not one["baseline"]]
        lacking = not ours or "step" not in document["run"]
        lacking = lacking or not all("intervals" in one for one in ours)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no results of an evaluation; {again}") from error
    if lacking:
        raise UserError(f"{path} is not the evaluation of a training run; {again}")
    return document


def _why_not_evaluated(workdir: Path) -> str:
    """Says what a workdir without eval.json lacks, and what to type."""
    if not (workdir / "config.json").is_file():
        return (
            f"{workdir} is no workdir of a run: it has neither config.json nor"
            " eval.json; train first: python -m vireid_jax.main --config CONFIG"
            f" --workdir {workdir}"
        )
    about = last_checkpoint(workdir)
    if about is None or about["epoch"] < about["config"]["schedule"]["epochs"]:
        where = "before its first checkpoint"
        if about is not None:
            epochs = about["config"]["schedule"]["epochs"]
            where = f"at epoch {about['epoch']:g} of {epochs:g}"
        return (
            f"the run in {workdir} was interrupted {where}; to go on, type its training"
            " command again: python -m vireid_jax.main --config CONFIG --workdir"
            f" {workdir}"
        )
    return (
        f"{workdir} has no evaluation; type python -m vireid_jax.evaluate --workdir"
        f" {workdir}"
    )


def last_checkpoint(workdir: Path) -> dict[str, Any] | None:
    """Returns what was stored beside the last state; None where there is none."""
    from vireid_jax.training.checkpoint import FOLDER, Checkpoints

    if not any((workdir / FOLDER).glob("[0-9]*")):
        return None
    checkpoints = Checkpoints(workdir, read_only=True)
    about = checkpoints.about(checkpoints.find("last"))
    checkpoints.close()
    return about


def read_run(workdir: Path) -> Run:
    """Reads a run's files, before anything that takes minutes.

    Raises UserError where there is no evaluation, or one of another checkpoint.
    """
    from vireid_jax.config import with_defaults

    document = read_evaluation(workdir)
    left_out: list[tuple[str, str]] = []
    run = Run(
        name=str(workdir),
        about=document["run"],
        results=document["results"],
        metrics=read_metrics(workdir / METRICS),
        costs={},
        left_out=left_out,
    )
    if not run.metrics:
        left_out.append(("Training curves", f"{workdir / METRICS} has no rows"))
    run.costs.update(costs(run, with_defaults(run.about["config"])))
    checkpoint = last_checkpoint(workdir)
    if checkpoint is None:
        left_out.append((_OF_FEATURES, f"there is no checkpoint in {workdir}"))
    elif checkpoint["step"] != run.about["step"]:
        raise UserError(
            f"{workdir}/eval.json is of step {run.about['step']}, and the last"
            f" checkpoint is of step {checkpoint['step']}; to evaluate it: python -m"
            f" vireid_jax.evaluate --workdir {workdir}"
        )
    return run


_OF_FEATURES = (
    "CMC curves, distances, maps, rank lists, activation maps and the camera matrix"
)


def with_test(run: Run, workdir: Path) -> Run:
    """Returns the run with its test split embedded, by its last checkpoint.

    What cannot be had, for want of images or of a checkpoint, is told in `left_out`.
    Raises UserError where the images are others than those of the evaluation, or give
    other numbers.
    """
    from vireid_jax.config import with_defaults
    from vireid_jax.embed.embedder import load
    from vireid_jax.evaluate.test_split import dataset_title, open_split
    from vireid_jax.report.activations import activation_maps

    if any(what == _OF_FEATURES for what, _ in run.left_out):
        return run
    config = with_defaults(run.about["config"])
    embedder = load(workdir)
    try:
        records = open_split(config, "test")
        features = embedder.embed_records(records)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        run.left_out.append((_OF_FEATURES, f"the images cannot be read: {reason}"))
        return run
    if records.fingerprint != str(read_queries(workdir)["data"]):
        raise UserError(
            f"{records.title} holds other images than {workdir}/eval.json is of; give"
            f" the old ones, or type python -m vireid_jax.evaluate --workdir {workdir}"
        )
    names = {one["protocol"] for one in run.own_results}
    protocols = [p for p in get_protocols(dataset_title(config)) if p.name in names]
    labels = {
        "feature": embedder.feature,
        "flip": embedder.flip,
        "epoch": run.about["epoch"],
        "selection": run.own_results[0]["selection"],
    }
    test = rank_split(records, features, protocols, image=records.image, **labels)
    for result in test.results:
        check_same_numbers(result, run, workdir)
    maps, reason = activation_maps(embedder, config, test)
    if reason:
        run.left_out.append(("Activation maps", reason))
    run.costs["Embedding, dimensions"] = f"{features.shape[1]:,}"
    return dataclasses.replace(run, test=test, activations=maps)


def rank_split(
    rows: Rows,
    features: Float32[np.ndarray, "rows dim"],
    protocols: Sequence[Protocol],
    image: Callable[..., np.ndarray] | None = None,
    **labels: Any,
) -> EmbeddedSplit:
    """Ranks an embedded split by each protocol; `labels` are those of `evaluate`."""
    return EmbeddedSplit(
        identity=rows.identity,
        camera=rows.camera,
        modality=rows.modality,
        filename=list(rows.filename),
        features=features,
        protocols=protocols,
        results=[evaluate(p, rows, features, **labels) for p in protocols],
        image=image,
    )


def check_same_numbers(result: Result, run: Run, workdir: Path) -> None:
    """Raises UserError where figures would show other numbers than the table."""
    name = result.labels.protocol
    (told,) = (one for one in run.own_results if one["protocol"] == name)
    if abs(result.mAP - told["metrics"]["mAP"]) > _ROUNDING:
        raise UserError(
            f"{workdir}/eval.json has mAP {100 * told['metrics']['mAP']:.2f} by {name},"
            f" and its last checkpoint {100 * result.mAP:.2f}; to evaluate it: python"
            f" -m vireid_jax.evaluate --workdir {workdir}"
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the log rows of training, up to one that is not whole."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # the process was killed in the middle of it
            break
    return rows


def costs(run: Run, config: Any) -> dict[str, str]:
    """Says what the network costs at test and in training, and what the run took."""
    from vireid_jax.models.build import create_model
    from vireid_jax.models.complexity import complexity

    model = create_model(config, run.about["num_classes"])
    size = tuple(config.data.size)
    found = {"Image, height by width": "{}x{}".format(*size)}
    for graph, train in (("at test", False), ("in training", True)):
        stages = complexity(model, size, train)
        found[f"Parameters {graph}"] = f"{sum(s.params for s in stages):,}"
        found[f"MACs an image {graph}"] = f"{sum(s.macs for s in stages):,}"
    found["Steps"] = f"{run.about['step']:,}"
    found["Epochs"] = f"{run.about['epoch']:g}"
    rows = [row for row in run.metrics if row["kind"] == "train"]
    if rows:
        seconds = sum(row["seconds"] for row in rows)
        found["Training, without evaluation"] = f"{seconds:,.0f} s"
        rate = float(np.median([row["images_per_second"] for row in rows]))
        found["Images a second, median"] = f"{rate:,.0f}"
    here = run.about["environment"]
    found["Processor"] = here["processor"] or here["machine"]
    found["Devices"] = ", ".join(here["devices"])
    return found


def check_comparable(first: Run, second: Run) -> None:
    """Raises UserError where two runs do not belong into one table."""
    a, b = (run.about["environment"] for run in (first, second))
    version = "vireid-jax"
    pairs = [(f"version of {version}", *(x["packages"][version] for x in (a, b)))]
    pairs.append(("commit", a["commit"], b["commit"]))
    names = [sorted(r["protocol"] for r in x.own_results) for x in (first, second)]
    pairs.append(("protocols", *names))
    for one in first.own_results:
        for other in second.own_results:
            if one["protocol"] == other["protocol"]:
                pairs += [
                    (f"{n} by {one['protocol']}", one[n], other[n]) for n in _LABELS
                ]
    for what, one, other in pairs:
        if one != other:
            raise UserError(
                f"{first.name} and {second.name} differ in their {what}: {one!r} and"
                f" {other!r}; a page compares runs of one code and one test. Make one"
                f" of each: python -m vireid_jax.report --workdir {first.name}"
            )
