"""Training, the whole story in order: devices, data, state, restore, loop, test."""

import contextlib
import functools
import json
import os
import time
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
    rank_split,
)
from vireid_jax.models.build import feature_of
from vireid_jax.protocols import Result, validation_protocols
from vireid_jax.run import processes, writers
from vireid_jax.run.environment import differing, environment, one_line
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_text
from vireid_jax.run.journal import Journal
from vireid_jax.run.profiling import Profile
from vireid_jax.run.stopping import Stop
from vireid_jax.run.workdir import CONFIG, ENVIRONMENT, METRICS, claimed
from vireid_jax.training import sharding
from vireid_jax.training.checkpoint import BEST_METRIC, Checkpoints, abstract
from vireid_jax.training.optimizer import learning_rate
from vireid_jax.training.program import (
    batch_size_of,
    compile_step,
    is_pretraining,
    make_program,
    step_arguments,
)
from vireid_jax.training.step import make_knobs
from vireid_jax.training.warm_start import insert_pretrained, insert_run


def train(
    config: ConfigDict,
    workdir: str | Path,
    stop: Stop | None = None,
    *,
    profile_steps: str | None = None,
    started_as: str = "one process",
) -> list[Result]:
    """Trains as `config` says, tests the last epoch, and returns the test's results.

    Writes into `workdir`: config.json, environment.json, log.txt, metrics.jsonl,
    checkpoints/ and eval.json. Called again it goes on from the latest checkpoint, to
    the same end bit for bit. `profile_steps` "FIRST:LAST" traces these steps into
    `workdir/profile`. In a run of several processes each calls it, on one shared
    folder; `started_as` is what `processes.connect` said. Raises UserError for what
    the user can mend, and Stopped when `stop` has a reason, with all work saved.
    """
    config, stop = validate(config), stop or Stop()
    writes = processes.is_first()
    with contextlib.ExitStack() as stack:
        folder = Path(workdir).expanduser().resolve()
        if writes:
            stack.enter_context(claimed(folder))
            check_same_config(folder, config)
            replace_text(folder / CONFIG, config.to_json_best_effort(indent=2) + "\n")
        console = Console(emoji=False, quiet=not writes)  # or ":train:" is an emoji
        story = folder / "log.txt" if writes else Path(os.devnull)
        journal = stack.enter_context(Journal(story, console))
        journal.note(f"started as {started_as}")
        stop.note = journal.note
        return train_in(folder, config, stop, journal, stack, profile_steps)


def train_in(
    workdir: Path,
    config: FrozenConfigDict,
    stop: Stop,
    journal: Journal,
    stack: contextlib.ExitStack,
    profile_steps: str | None = None,
) -> list[Result]:
    """Does what `train` says, in a folder that is this run's."""
    writes = processes.is_first()
    here = environment()
    if writes:
        replace_text(workdir / ENVIRONMENT, json.dumps(here, indent=2) + "\n")
    journal.note(f"environment: {one_line(here)}")
    journal.note(f"config: {changed_keys(config)}")

    # --- Devices ----------------------------------------------------------------------
    mesh = sharding.make_mesh(config.mesh.model)
    sharding.check_divides(batch_size_of(config), mesh, "a batch's P x K")

    # --- Data -------------------------------------------------------------------------
    with processes.first_goes_first():
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
        infrared = None  # both sides of each pair are colour images
    stream = PKStream(
        visible.labels,
        None if infrared is None else infrared.labels,
        P=config.batch.identities,
        K=config.batch.images,
        seed=config.seed,
    )
    if len(stream.left_out):
        journal.say(
            f"{len(stream.left_out)} of {records.num_identities} identities have images"
            " of one modality only and take no part."
        )
    plan = make_plan(config, stream.steps_per_epoch)
    profile = Profile(profile_steps, workdir / "profile", plan.num_steps)
    stack.callback(profile.close)

    # --- State, created where it will live --------------------------------------------
    program = make_program(config, records.num_identities, mesh)
    keys = lambda: jax.random.split(jax.random.key(config.seed))
    init_key, step_key = jax.jit(keys, out_shardings=sharding.replicated(mesh))()
    state = program.init(init_key)

    # --- Restore, else start from another run, else from pretrained weights -----------
    checkpoints = Checkpoints(workdir, validated=validation is not None)
    stack.callback(checkpoints.close)  # whatever comes, what is being saved is finished
    restored = checkpoints.restore(abstract(program.shapes, program.in_place))
    unlogged = {"rows": [], "seconds": 0.0}
    if restored is not None:
        state = restored
        about = checkpoints.about(int(state.step))
        check_same_data(about, records)
        unlogged = about["unlogged"]
        journal.say(
            f"Going on from step {int(state.step)} of {plan.num_steps}, the latest"
            f" checkpoint in {checkpoints.folder}."
        )
        if other := differing(about["environment"], here):
            journal.say(f"Since then {other}: the last bits may come out otherwise.")
    elif config.init_from:
        variables = insert_run(program.variables(state), config.init_from)
        state = program.insert(state, variables)
        journal.say(f"No checkpoint yet: starting from the run {config.init_from}.")
    elif config.model.pretrained:
        variables = program.variables(state)
        variables = insert_pretrained(variables, config.model.pretrained)
        state = program.insert(state, variables)
        journal.say(
            f"No checkpoint yet: starting from the weights {config.model.pretrained}."
        )
    else:
        journal.note("No checkpoint yet: starting from random weights.")
    start_step = int(state.step)

    # --- Evaluation and bookkeeping ---------------------------------------------------
    embedder = Embedder(
        program.model,
        program.variables(state),
        size=tuple(config.data.size),
        flip=config.eval.flip,
        batch_size=config.eval.batch_size,
        feature=feature_of(config),
    )
    describe = functools.partial(
        about_run, config=config, records=records, plan=plan, workdir=workdir
    )
    log = [writers.JsonLines(workdir / METRICS, start_step)] if writes else []
    if writes and config.log.tensorboard:
        log.append(writers.TensorBoard(workdir / "tensorboard", start_step))
        stack.callback(log[-1].close)
    if start_step < plan.num_steps:
        journal.say(
            f"Training {config.model.name} on {records.title}: {len(records)} images of"
            f" {records.num_identities} identities, {plan.num_steps} steps of"
            f" {plan.images_per_step} images, {jax.device_count()}"
            f" {jax.devices()[0].platform} device(s)."
        )

    # --- Loop: step, then log, then evaluate and save, then stop if asked to ----------
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
    images = {}
    if config.data.cache == "device":
        size = tuple(config.data.size)
        second = visible if infrared is None else infrared
        images = sharding.place_images(visible, second, size, mesh)
        held = sum(rows.nbytes for rows in images.values()) / 2**20
        journal.say(f"The training set lies in device memory: {held:.1f} MiB on each.")
    bar = writers.Bar(journal.console, plan.num_steps, start_step)
    stack.callback(bar.close)
    pending = [jax.tree.map(np.float32, row) for row in unlogged["rows"]]
    since = time.perf_counter() - unlogged["seconds"]
    stop.deferring = True
    if start_step < plan.num_steps:
        journal.say("Compiling the step, or reading it from the cache.")
        rows = tuple(len(x) for x in images.values()) or (0, 0)
        arguments = step_arguments(config, program.shapes, rows)
        take_step = compile_step(program.step.lower(*arguments))
        journal.note("The step is compiled.")
    placed = sharding.place_ahead(stream_batches, mesh)
    for step, batch in enumerate(placed, start=start_step + 1):
        profile.before(step)
        rate = learning_rate(config, step - 1, plan.num_steps)
        knobs = make_knobs(config, rate, step / plan.num_steps)
        knobs = sharding.place_everywhere(jax.tree.map(np.float32, knobs), mesh)
        with jax.transfer_guard("disallow"):  # all that crosses is placed above
            state, metrics = take_step(state, batch, step_key, knobs, images)
        profile.after(step, metrics)
        pending.append(metrics)

        # Before each checkpoint too: none is saved of a loss that is no number.
        is_log = step % config.log.every_steps == 0 or plan.is_eval(step)
        if is_log:
            row = mean_metrics(pending)
            seconds = time.perf_counter() - since
            row |= {
                "epoch": plan.epoch(step),
                "learning_rate": rate,
                "seconds": seconds,
                "steps_per_second": len(pending) / seconds,
                "images_per_second": len(pending) * plan.images_per_step / seconds,
            }
            check_finite(row, step, checkpoints)
            for writer in log:
                writer.write(step, "train", row)
            bar.advance(step, row)
            pending, since = [], time.perf_counter()

        if plan.is_eval(step):
            paused = time.perf_counter()
            found, thresholds = {}, {}
            if validation is not None:
                embedder.variables = program.variables(state)
                found, thresholds = validate_network(
                    embedder, validation, config, plan.epoch(step)
                )
                for writer in log:
                    writer.write(step, "validation", found)
            about = describe(step) | {"thresholds": thresholds}
            checkpoints.save(state, about, found)
            journal.note(f"step {step}: saving; {found or 'no validation'}")
            since += time.perf_counter() - paused

        # Several processes ask each other, so only where they wait anyway.
        alone = jax.process_count() == 1
        if (alone or is_log) and processes.any_of(bool(stop.reason())):
            if not plan.is_eval(step):
                if pending:
                    check_finite(mean_metrics(pending), step, checkpoints)
                rows = [jax.tree.map(float, row) for row in jax.device_get(pending)]
                unlogged = {"rows": rows, "seconds": time.perf_counter() - since}
                checkpoints.save(state, describe(step) | {"unlogged": unlogged}, {})
            checkpoints.close()
            raise stop.stopped(f"step {step} of {plan.num_steps} is saved")
    bar.close()

    # --- Test: the last epoch is the result -------------------------------------------
    checkpoints.close()
    stop.deferring = False
    if is_pretraining(config):
        return []
    embedder.variables = program.variables(state)
    results = evaluate_test_split(
        embedder,
        config,
        about=describe(plan.num_steps),
        selection="last",
        path=workdir / "eval.json" if writes else None,
        console=journal.console,
    )
    for result in results:
        journal.note(
            f"{result.labels.protocol} by {result.labels.feature}: {result.headline()}"
        )
    return results


def training_data(config: FrozenConfigDict) -> tuple[Records, Records | None]:
    """Opens the train split; holds identities out for validation if the config says."""
    records = open_split(config, "train")
    if not config.data.validation_identities:
        return records, None
    return split_identities(records, config.data.validation_identities, config.seed)


def validate_network(
    embedder: Embedder, validation: Records, config: FrozenConfigDict, epoch: float
) -> tuple[dict[str, float], dict[str, Any]]:
    """Ranks the held-out identities, and finds from which cosine on two are one.

    Rank-1 and mAP are means of both directions.
    """
    features = embedder.embed_records(validation)
    results = rank_split(
        embedder,
        validation,
        features,
        validation_protocols(dataset_title(config)),
        epoch=epoch,
        selection="last",
    )
    headlines = [result.headline() for result in results]
    mean = lambda name: float(np.mean([headline[name] for headline in headlines]))
    metrics = {
        "epoch": epoch,
        BEST_METRIC: mean("mAP"),
        "validation_Rank-1": mean("Rank-1"),
    }
    return metrics, find_thresholds(features, validation.identity, validation.modality)


def mean_metrics(rows: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Averages each metric over the steps since the last log."""
    rows = jax.device_get(rows)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def check_finite(row: dict[str, float], step: int, checkpoints: Checkpoints) -> None:
    """Raises UserError where the loss or its gradient is no number any more."""
    if not np.isfinite([row["loss"], row["gradient_norm"]]).all():
        raise UserError(
            f"the loss is {row['loss']} at step {step}, its gradient's norm"
            f" {row['gradient_norm']}; both must be finite. {checkpoints.kept()}. Try"
            " a lower config.optimizer.learning_rate or config.optimizer.clip_norm, in"
            " a new --workdir"
        )


def check_same_data(about: dict[str, Any], records: Records) -> None:
    """Raises UserError unless a checkpoint was trained on these very images."""
    then, now = about["data"]["fingerprint"], records.fingerprint
    if then != now:
        raise UserError(
            f"{records.title} has the fingerprint {now[:12]}, and step {about['step']}"
            f" was trained on {about['data']['title']} with {then[:12]}: other images,"
            " labels or file names. Give the old data (config.data.dir), or another"
            " --workdir"
        )


def about_run(
    step: int, *, config: FrozenConfigDict, records: Records, plan: Plan, workdir: Path
) -> dict[str, Any]:
    """Describes a checkpoint: what made it, of what, on what."""
    return {
        "config": json.loads(config.to_json_best_effort()),
        "num_classes": records.num_identities,
        "step": step,
        "epoch": plan.epoch(step),
        "data": {"title": records.title, "fingerprint": records.fingerprint},
        "environment": json.loads((workdir / ENVIRONMENT).read_text()),
        "unlogged": {"rows": [], "seconds": 0.0},  # steps since the last log row
    }
