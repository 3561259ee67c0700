"""Training, the whole story in order: devices, data, state, restore, loop, test."""

import contextlib
import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax import sharding, writers
from vireid_jax.checkpoint import BEST_METRIC, Checkpoints, abstract
from vireid_jax.config import Plan, changed_keys, make_plan, validate
from vireid_jax.data.pipeline import batches
from vireid_jax.data.pk import PKStream
from vireid_jax.data.source import Records, split_identities
from vireid_jax.embedder import (
    Embedder,
    create_model,
    feature_of,
    init_variables,
)
from vireid_jax.environment import differing, environment, one_line
from vireid_jax.evaluate import (
    dataset_title,
    evaluate_split,
    evaluate_test_split,
    open_split,
)
from vireid_jax.journal import Journal
from vireid_jax.optimizer import learning_rate, make_optimizer, rate_factors
from vireid_jax.protocols import Result, validation_protocols
from vireid_jax.state import TrainState, variables_of
from vireid_jax.step import Views, make_knobs, make_train_step
from vireid_jax.stopping import Stop
from vireid_jax.warm_start import insert_pretrained, insert_run
from vireid_jax.workdir import (
    CONFIG,
    ENVIRONMENT,
    METRICS,
    check_same_config,
    claimed,
    replace_text,
)


def train(
    config: ConfigDict, workdir: str | Path, stop: Stop | None = None
) -> list[Result]:
    """Trains as `config` says, tests the last epoch, and returns the test's results.

    Writes into `workdir`: config.json, environment.json, log.txt, metrics.jsonl,
    checkpoints/ and eval.json. Called again it goes on from the latest checkpoint, to
    the same end bit for bit. Raises ValueError for what the user can mend, and Stopped
    when `stop` has a reason, with all work saved.
    """
    config, stop = validate(config), stop or Stop()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(claimed(workdir))
        check_same_config(folder, config)
        replace_text(folder / CONFIG, config.to_json_best_effort(indent=2) + "\n")
        console = Console(emoji=False)  # else a title with ":train:" becomes one
        journal = stack.enter_context(Journal(folder / "log.txt", console))
        stop.note = journal.note
        return train_in(folder, config, stop, journal, stack)


def train_in(
    workdir: Path,
    config: FrozenConfigDict,
    stop: Stop,
    journal: Journal,
    stack: contextlib.ExitStack,
) -> list[Result]:
    """Does what `train` says, in a folder that is this process's."""
    here = environment()
    replace_text(workdir / ENVIRONMENT, json.dumps(here, indent=2) + "\n")
    journal.note(f"environment: {one_line(here)}")
    journal.note(f"config: {changed_keys(config)}")

    # --- Devices ----------------------------------------------------------------------
    mesh = sharding.make_mesh(config.mesh.model)
    replicated = sharding.replicated(mesh)
    batch_size = config.batch.identities * config.batch.images
    sharding.check_divides(batch_size, mesh, "a batch's P x K")

    # --- Data -------------------------------------------------------------------------
    records, validation = training_data(config)
    journal.note(f"data: {records.title}, fingerprint {records.fingerprint}")
    visible, infrared = records.of("visible"), records.of("infrared")
    if config.data.second_side == "visible":
        infrared = None  # both sides of each pair are colour images: pretraining
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

    # --- State: shapes first, then created where it will live -------------------------
    model = create_model(config, records.num_identities)
    optimizer = make_optimizer(config)

    def init_state(key: jax.Array) -> TrainState:
        variables = init_variables(model, key)
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(
            jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params)
        )

    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    shapes = jax.eval_shape(init_state, init_key)
    in_place = sharding.of_state(shapes, mesh)
    state = jax.jit(init_state, out_shardings=in_place)(init_key)

    # --- Restore, else start from another run, else from pretrained weights -----------
    checkpoints = Checkpoints(workdir, validated=validation is not None)
    stack.callback(checkpoints.close)  # whatever comes, what is being saved is finished
    restored = checkpoints.restore(abstract(shapes, in_place))
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
        state = insert_run(state, config.init_from, variables_of(in_place))
        journal.say(f"No checkpoint yet: starting from the run {config.init_from}.")
    elif config.model.pretrained:
        state = insert_pretrained(
            state, config.model.pretrained, variables_of(in_place)
        )
        journal.say(
            f"No checkpoint yet: starting from the weights {config.model.pretrained}."
        )
    else:
        journal.note("No checkpoint yet: starting from random weights.")
    start_step = int(state.step)

    # --- The step ---------------------------------------------------------------------
    pretraining = config.data.second_side == "visible"
    views = Views(
        pad=config.augment.pad,
        third_view=config.augment.third_view,
        pseudo_infrared=pretraining,
    )
    train_step = jax.jit(
        make_train_step(
            model,
            optimizer,
            rate_factors(
                state.params,
                bool(config.init_from or config.model.pretrained),
                config.optimizer.pretrained_factor,
            ),
            views,
            config.loss.metric_form,
        ),
        in_shardings=(in_place, sharding.over_batch(mesh), replicated, replicated),
        out_shardings=(in_place, replicated),
        donate_argnums=0,
    )
    step_key = jax.device_put(step_key, replicated)

    # --- Evaluation and bookkeeping ---------------------------------------------------
    embedder = Embedder(
        model,
        jax.device_put(variables_of(state), replicated),
        size=tuple(config.data.size),
        flip=config.eval.flip,
        batch_size=config.eval.batch_size,
        feature=feature_of(config),
    )
    describe = functools.partial(
        about_run, config=config, records=records, plan=plan, workdir=workdir
    )
    log = [writers.JsonLines(workdir / METRICS, start_step)]
    if config.log.tensorboard:
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
        workers=config.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        cache=config.data.cache,
    )
    bar = writers.Bar(journal.console, plan.num_steps, start_step)
    stack.callback(bar.close)
    pending = [jax.tree.map(np.float32, row) for row in unlogged["rows"]]
    since = time.perf_counter() - unlogged["seconds"]
    stop.deferring = True
    for step, batch in enumerate(stream_batches, start=start_step + 1):
        rate = learning_rate(config, step - 1, plan.num_steps)
        batch = sharding.place_batch(batch, mesh)
        knobs = make_knobs(config, rate, step / plan.num_steps)
        state, metrics = train_step(state, batch, step_key, knobs)
        pending.append(metrics)

        # Before each checkpoint too: none is saved of a loss that is no number.
        if step % config.log.every_steps == 0 or plan.is_eval(step):
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
            found = {}
            if validation is not None:
                embedder.variables = jax.device_put(variables_of(state), replicated)
                found = validate_network(embedder, validation, config, plan.epoch(step))
                for writer in log:
                    writer.write(step, "validation", found)
            checkpoints.save(state, describe(step), found)
            journal.note(f"step {step}: saving; {found or 'no validation'}")
            since += time.perf_counter() - paused

        if stop.reason():
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
    if pretraining:
        return []
    embedder.variables = jax.device_put(variables_of(state), replicated)
    results = evaluate_test_split(
        embedder,
        config,
        about=describe(plan.num_steps),
        selection="last",
        path=workdir / "eval.json",
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
) -> dict[str, float]:
    """Ranks the held-out identities; Rank-1 and mAP are means of both directions."""
    protocols = validation_protocols(dataset_title(config))
    results = evaluate_split(
        embedder, validation, protocols, epoch=epoch, selection="last"
    )
    headlines = [result.headline() for result in results]
    mean = lambda name: float(np.mean([headline[name] for headline in headlines]))
    return {
        "epoch": epoch,
        BEST_METRIC: mean("mAP"),
        "validation_Rank-1": mean("Rank-1"),
    }


def mean_metrics(rows: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Averages each metric over the steps since the last log."""
    rows = jax.device_get(rows)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def check_finite(row: dict[str, float], step: int, checkpoints: Checkpoints) -> None:
    """Raises ValueError where the loss or its gradient is no number any more."""
    if not np.isfinite([row["loss"], row["gradient_norm"]]).all():
        raise ValueError(
            f"the loss is {row['loss']} at step {step}, its gradient's norm"
            f" {row['gradient_norm']}; both must be finite. {checkpoints.kept()}. Try"
            " a lower config.optimizer.learning_rate or config.optimizer.clip_norm, in"
            " a new --workdir"
        )


def check_same_data(about: dict[str, Any], records: Records) -> None:
    """Raises ValueError unless a checkpoint was trained on these very images."""
    then, now = about["data"]["fingerprint"], records.fingerprint
    if then != now:
        raise ValueError(
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
