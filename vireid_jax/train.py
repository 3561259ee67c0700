"""Training, the whole story in order: devices, data, state, start, loop, test."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax.config import (
    Plan,
    changed_keys,
    check_same_config,
    decisive,
    make_plan,
    validate,
)
from vireid_jax.data.pipeline import batches
from vireid_jax.data.pk import PKStream
from vireid_jax.data.source import Records, split_identities
from vireid_jax.embed.embedder import Embedder
from vireid_jax.embed.thresholds import find_thresholds
from vireid_jax.evaluate.test_split import (
    dataset_title,
    evaluate_test_split,
    open_split,
)
from vireid_jax.models.build import feature_of
from vireid_jax.protocols import Result, evaluate, validation_protocols
from vireid_jax.run import processes, writers
from vireid_jax.run.environment import differing, environment, one_line
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import CONFIG, ENVIRONMENT, METRICS, claimed, replace_text
from vireid_jax.run.profiling import Profile
from vireid_jax.run.stopping import Stop
from vireid_jax.run.writers import Journal
from vireid_jax.training import sharding
from vireid_jax.training.checkpoint import BEST_METRIC, Checkpoints, abstract
from vireid_jax.training.optimizer import learning_rate, make_schedule
from vireid_jax.training.program import (
    Program,
    compile_step,
    is_pretraining,
    make_program,
    pairs_per_step,
    step_arguments,
)
from vireid_jax.training.run_info import RunInfo
from vireid_jax.training.state import TrainState
from vireid_jax.training.step import make_coefficients
from vireid_jax.training.warm_start import insert_pretrained, insert_run


def train_run(
    config: ConfigDict,
    workdir: str | Path,
    stop: Stop | None = None,
    *,
    profile_steps: str | None = None,
    started_as: str = "one process",
) -> list[Result]:
    """Train as `config` says, test the last epoch, and return the test's results.

    Writes into `workdir`: config.json, environment.json, log.txt, metrics.jsonl,
    checkpoints/ and eval.json. Called again it resumes from the latest checkpoint, to
    the same end bit for bit. `profile_steps` "FIRST:LAST" traces these steps into
    `workdir/profile`. In a run of several processes each calls it, on one shared
    folder; `started_as` is what `processes.connect` returned. Raise UserError for what
    the user can correct, and Stopped when `stop` has a reason, with all work saved.
    """
    config, stop = validate(config), stop or Stop()
    workdir = Path(workdir).expanduser().resolve()
    is_writer = processes.is_first()
    with contextlib.ExitStack() as at_exit:
        if is_writer:
            at_exit.enter_context(claimed(workdir))
            check_same_config(workdir, config)
            replace_text(workdir / CONFIG, config.to_json_best_effort(indent=2) + "\n")
        console = Console(emoji=False, quiet=not is_writer)  # or ":train:" is an emoji
        path = workdir / "log.txt" if is_writer else Path(os.devnull)
        journal = at_exit.enter_context(Journal(path, console))
        stop.note = journal.note
        here = environment()
        if is_writer:
            replace_text(workdir / ENVIRONMENT, json.dumps(here, indent=2) + "\n")
        journal.note(f"started as {started_as}")
        journal.note(f"environment: {one_line(here)}")
        journal.note(f"config: {changed_keys(config)}")

        # --- Devices ------------------------------------------------------------------
        mesh = sharding.make_mesh(config.mesh.model)
        sharding.check_divides(pairs_per_step(config), mesh, "a batch's P x K")

        # --- Data ---------------------------------------------------------------------
        with processes.main_process_first():
            records, validation = training_data(config)
        journal.note(f"data: {records.title}, fingerprint {records.fingerprint}")
        processes.agree(
            {
                "config": str(decisive(config)),
                "set of packages": str(here["packages"]),
                "training set": records.fingerprint,
            }
        )
        visible, infrared = records.of("visible"), records.of("infrared")
        if is_pretraining(config):
            infrared = None  # both sides of each pair are visible images
        stream = PKStream(
            visible.labels,
            None if infrared is None else infrared.labels,
            P=config.batch.identities,
            K=config.batch.images,
            seed=config.seed,
        )
        if len(stream.left_out):
            journal.print(
                f"{len(stream.left_out)} of {records.num_identities} identities have"
                " images of one modality only and are not used."
            )
        plan = make_plan(config, stream.steps_per_epoch)
        profile = Profile(profile_steps, workdir / "profile", plan.num_steps)
        at_exit.callback(profile.close)

        # --- State, created where it will live, then restored or started --------------
        program = make_program(config, records.num_identities, mesh)
        keys = lambda: jax.random.split(jax.random.key(config.seed))
        init_key, step_key = jax.jit(keys, out_shardings=sharding.replicated(mesh))()
        checkpoints = Checkpoints(workdir, validated=validation is not None)
        at_exit.callback(checkpoints.close)  # in any case, finish what is being saved
        state = checkpoints.restore(abstract(program.shapes, program.shardings))
        meter = Meter(plan)
        if state is None:
            state = start(program, program.init(init_key), config, journal)
        else:
            about = checkpoints.about(int(state.step))
            check_same_data(about, records)
            meter = Meter(plan, **about["unlogged"])
            journal.print(
                f"Resuming from step {int(state.step)} of {plan.num_steps}, the latest"
                f" checkpoint in {checkpoints.folder}."
            )
            if changes := differing(about["environment"], here):
                journal.print(f"Since then {changes}: the last bits may differ.")
        start_step = int(state.step)

        # --- Evaluation and bookkeeping -----------------------------------------------
        embedder = Embedder(
            program.model,
            program.variables(state),
            size=tuple(config.data.size),
            flip=config.eval.flip,
            batch_size=config.eval.batch_size,
            feature=feature_of(config),
            mesh=mesh,
        )
        about_run = {
            "config": json.loads(config.to_json_best_effort()),
            "num_classes": records.num_identities,
            "data": {"title": records.title, "fingerprint": records.fingerprint},
            "environment": here,
        }
        describe = lambda step, **rest: (
            about_run | {"step": step, "epoch": plan.epoch(step), **rest}
        )
        bar = writers.Bar(journal.console, plan.num_steps, start_step)
        at_exit.callback(bar.close)
        log: list[Any] = [bar]
        if is_writer:
            log.append(writers.JsonLines(workdir / METRICS, start_step))
        if is_writer and config.log.tensorboard:
            log.append(writers.TensorBoard(workdir / "tensorboard", start_step))
            at_exit.callback(log[-1].close)

        # --- Loop: step, then log, then evaluate and save, then stop if asked to ------
        images = {}
        if config.data.cache == "device":
            size = tuple(config.data.size)
            images = sharding.place_images(visible, infrared or visible, size, mesh)
            mebibytes = sum(rows.nbytes for rows in images.values()) / 2**20
            journal.print(f"The training set takes {mebibytes:.1f} MiB on each device.")
        count = plan.num_steps
        rates = [learning_rate(config, step, count) for step in range(count)]
        schedule = sharding.place_everywhere(make_schedule(rates), mesh)
        coefficients = jax.tree.map(np.float32, make_coefficients(config))
        coefficients = sharding.place_everywhere(coefficients, mesh)
        stop.deferring = True
        meter.start()
        if start_step < plan.num_steps:
            journal.print(
                f"Training {config.model.name} on {records.title}: {len(records)}"
                f" images of {records.num_identities} identities, {plan.num_steps}"
                f" steps of {plan.images_per_step} images, {jax.device_count()}"
                f" {jax.devices()[0].platform} device(s).\n"
                "Compiling the step, or reading it from the cache."
            )
            arguments = step_arguments(
                config,
                program.shapes,
                [len(x) for x in images.values()],
                len(schedule.learning_rate),
            )
            take_step = compile_step(program.step.lower(*arguments))
            journal.note("The step is compiled.")
        stream_batches = batches(
            visible,
            infrared,
            stream,
            size=tuple(config.data.size),
            start_step=start_step,
            num_steps=plan.num_steps - start_step,
            threads=config.data.threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            cache=config.data.cache,
        )
        placed = sharding.place_ahead(stream_batches, mesh)
        for step, batch in enumerate(placed, start=start_step + 1):
            profile.before(step)
            with jax.transfer_guard("disallow"):  # all that crosses is placed above
                state, metrics = take_step(
                    state, batch, step_key, coefficients, schedule, images
                )
            profile.after(step, metrics)
            meter.add(metrics)

            # Before each checkpoint too: no state with a NaN loss is ever saved.
            is_log = step % config.log.every_steps == 0 or plan.is_eval(step)
            if is_log:
                row = meter.row(step) | {"learning_rate": rates[step - 1]}
                check_finite(row, step, checkpoints)
                for writer in log:
                    writer.write(step, "train", row)

            if plan.is_eval(step):
                scores: dict[str, float] = {}
                thresholds: dict[str, Any] = {}
                with meter.paused():
                    if validation is not None:
                        embedder.variables = program.variables(state)
                        scores, thresholds = validate_network(
                            embedder, validation, config, plan.epoch(step)
                        )
                        for writer in log:
                            writer.write(step, "validation", scores)
                    about = describe(step, thresholds=thresholds, unlogged=NOTHING)
                    checkpoints.save(state, about, scores)
                    journal.note(f"step {step}: saving; {scores or 'no validation'}")

            # Several processes ask each other, so only where they wait anyway.
            may_ask = jax.process_count() == 1 or is_log
            if may_ask and processes.any_of(bool(stop.reason())):
                if not plan.is_eval(step):
                    if not is_log:
                        check_finite(meter.mean(), step, checkpoints)
                    unlogged = meter.unlogged()
                    checkpoints.save(state, describe(step, unlogged=unlogged), {})
                checkpoints.close()
                raise stop.stopped(f"step {step} of {plan.num_steps} is saved")

        # --- Test: the last epoch is the result ---------------------------------------
        checkpoints.close()
        bar.close()
        stop.deferring = False
        if is_pretraining(config):
            return []
        embedder.variables = program.variables(state)
        results = evaluate_test_split(
            embedder,
            config,
            about=RunInfo.from_json(describe(plan.num_steps)),
            selection="last",
            path=workdir / "eval.json" if is_writer else None,
            console=journal.console,
        )
        for result in results:
            labels = result.labels
            journal.note(f"{labels.protocol} by {labels.feature}: {result.headline()}")
        return results


def training_data(config: FrozenConfigDict) -> tuple[Records, Records | None]:
    """Open the train split; hold identities out for validation if the config says."""
    records = open_split(config, "train")
    if not config.data.validation_identities:
        return records, None
    return split_identities(records, config.data.validation_identities, config.seed)


def start(
    program: Program, state: TrainState, config: FrozenConfigDict, journal: Journal
) -> TrainState:
    """Return the state with another run's network, or pretrained weights, if given."""
    if config.init_from:
        variables = insert_run(program.variables(state), config.init_from)
        source = f"the run {config.init_from}"
    elif config.model.pretrained:
        variables = program.variables(state)
        variables = insert_pretrained(variables, config.model.pretrained)
        source = f"the weights {config.model.pretrained}"
    else:
        journal.note("No checkpoint yet: starting from random weights.")
        return state
    journal.print(f"No checkpoint yet: starting from {source}.")
    return program.insert(state, variables)


NOTHING = {"rows": [], "seconds": 0.0}  # no steps since the last log row


class Meter:
    """The metrics of the steps since the last log row, and the time that they took."""

    def __init__(self, plan: Plan, rows: Sequence[dict] = (), seconds: float = 0.0):
        """Take what a checkpoint kept of the steps that were not logged yet."""
        self._plan, self._seconds = plan, seconds
        self._rows: list[dict[str, Any]] = [
            jax.tree.map(np.float32, row) for row in rows
        ]

    def start(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter() - self._seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while the body runs."""
        pause = time.perf_counter()
        yield
        self._since += time.perf_counter() - pause

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Add a step; its metrics stay on the device."""
        self._rows.append(metrics)

    def mean(self) -> dict[str, float]:
        """Average each metric over the steps."""
        rows = jax.device_get(self._rows)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def row(self, step: int) -> dict[str, float]:
        """Return the log row of the steps up to `step`, and begin the next one."""
        metrics, count = self.mean(), len(self._rows)
        seconds = time.perf_counter() - self._since
        self._rows, self._since = [], time.perf_counter()
        return metrics | {
            "epoch": self._plan.epoch(step),
            "seconds": seconds,
            "steps_per_second": count / seconds,
            "images_per_second": count * self._plan.images_per_step / seconds,
        }

    def unlogged(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the steps that were not logged yet."""
        rows = [jax.tree.map(float, row) for row in jax.device_get(self._rows)]
        return {"rows": rows, "seconds": time.perf_counter() - self._since}


def validate_network(
    embedder: Embedder, validation: Records, config: FrozenConfigDict, epoch: float
) -> tuple[dict[str, float], dict[str, Any]]:
    """Rank the held-out identities; return metrics and verification thresholds.

    Rank-1 and mAP are means of both directions.
    """
    features = embedder.embed_records(validation)
    headlines = [
        evaluate(protocol, validation, features).headline()
        for protocol in validation_protocols(dataset_title(config))
    ]
    mean = lambda name: float(np.mean([headline[name] for headline in headlines]))
    metrics = {
        "epoch": epoch,
        BEST_METRIC: mean("mAP"),
        "validation_Rank-1": mean("Rank-1"),
    }
    return metrics, find_thresholds(features, validation.identity, validation.modality)


def check_finite(row: dict[str, float], step: int, checkpoints: Checkpoints) -> None:
    """Raise UserError where the loss or its gradient is NaN or infinite."""
    if not np.isfinite([row["loss"], row["gradient_norm"]]).all():
        raise UserError(
            f"the loss is {row['loss']} at step {step}, its gradient's norm"
            f" {row['gradient_norm']}; both must be finite. {checkpoints.kept()}. Try"
            " a lower config.optimizer.learning_rate or config.optimizer.clip_norm, in"
            " a new --workdir"
        )


def check_same_data(about: dict[str, Any], records: Records) -> None:
    """Raise UserError unless a checkpoint was trained on exactly these images."""
    before, now = about["data"]["fingerprint"], records.fingerprint
    if before != now:
        raise UserError(
            f"{records.title} has the fingerprint {now[:12]}, and step {about['step']}"
            f" had {about['data']['title']} with {before[:12]}: other images,"
            " labels or file names. Give the old data (config.data.dir), or another"
            " --workdir"
        )
