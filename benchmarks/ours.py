"""Our worker: vireid_jax as its commands set it up.

`python -m benchmarks` starts it as `python -m benchmarks.ours JOB`. It also writes the
weights and images for the rival.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.pipe import Facts, Job, serve


def prepare(job: Job):
    """Compile the task of a job, run it once and save its outputs."""
    start = time.perf_counter()
    from vireid_jax.run.runtime import set_up

    set_up()
    import jax
    import numpy as np

    tasks = {"train": train, "eval": embed, "compile": first_step, "search": search}
    imported = time.perf_counter() - start
    start = time.perf_counter()
    run = tasks[job["task"]](job)
    prepared = time.perf_counter() - start
    start = time.perf_counter()
    outputs = run()
    first = time.perf_counter() - start
    if "outputs" in job:
        np.savez(job["outputs"], **outputs)
    return run, {
        "jax": jax.__version__,
        "jaxlib": jax.lib.__version__,
        "numpy": np.__version__,
        "device": jax.devices()[0].device_kind,
        "import_seconds": imported,
        "prepare_seconds": prepared,
        "first_run_seconds": first,
    }


def config_of(job: Job):
    """Return the config of a job: nothing random, no third view, SGD."""
    from vireid_jax.config import default_config

    c = default_config()
    c.model.name = job["network"]
    c.model.zero_init_residual = False  # else no gradient enters a block
    c.data.size = (job["height"], job["width"])
    c.batch.images = job["shots"]
    c.batch.identities = job["images"] // (2 * job["shots"])
    c.augment.pad, c.augment.flip, c.augment.erase = 0, 0.0, 0.0
    c.augment.third_view = False
    for key in ("smoothing", "margin"):
        c.loss[key] = job[key]
    c.optimizer.name = "sgd"
    for key in ("learning_rate", "weight_decay", "clip_norm"):
        c.optimizer[key] = job[key]
    return c


def batch_of(job: Job, pairs: int) -> dict[str, Any]:
    """Draw a batch of image pairs, `shots` of each identity in a row."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (pairs, job["height"], job["width"], 3)
    labels = np.repeat(np.arange(-(-pairs // job["shots"])), job["shots"])[:pairs]
    labels = labels.astype(np.int32)
    images = {
        name: rng.integers(0, 256, shape, np.uint8) for name in ("visible", "infrared")
    }
    return images | {"visible_id": labels}


def variables_of(model) -> dict[str, Any]:
    """Draw variables, also the scales, shifts and statistics of norms."""
    import jax
    import numpy as np

    from vireid_jax.models.build import init_variables

    rng = np.random.default_rng(0)
    ranges = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "mean": (-0.1, 0.1)}
    ranges["bias"] = (-0.1, 0.1)

    def draw(path, leaf):
        limits = ranges.get(path[-1].key)
        return leaf if limits is None else rng.uniform(*limits, leaf.shape)

    variables = jax.jit(lambda: init_variables(model, jax.random.key(0)))()
    variables = jax.tree_util.tree_map_with_path(draw, variables)
    return jax.tree.map(lambda x: jax.numpy.asarray(x, np.float32), variables)


def write_given(path: str, variables: dict[str, Any], batch: dict[str, Any]) -> None:
    """Write weights, under names like torchreid's, and a batch for the rival."""
    import jax
    import numpy as np
    from safetensors.numpy import save_file

    from vireid_jax.weights.pretrained import TORCH_NAMES

    tensors = {f"images/{name}": batch[name] for name in ("visible", "infrared")}
    tensors["labels"] = batch["visible_id"]
    for place, leaf in jax.tree_util.tree_leaves_with_path(variables):
        collection, *layers, name = (entry.key for entry in place)
        key = ".".join([*layers, TORCH_NAMES[collection, name]])
        x = np.asarray(leaf)
        x = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T
        tensors[key] = np.ascontiguousarray(x)
    save_file(tensors, Path(path))


def train(job: Job):
    """Return a function that takes one training step."""
    from vireid_jax.models.build import create_model

    config = config_of(job)
    model = create_model(config, job["classes"])
    variables = variables_of(model)
    batch = batch_of(job, job["images"] // 2)
    write_given(job["given"], variables, batch)
    return stepper(config, model, variables, batch)


def jitted_step(config, model, variables):
    """Jit the training step; return it, a first state, a key and its numbers."""
    import jax
    import jax.numpy as jnp

    from vireid_jax.training.optimizer import make_optimizer, rate_factors
    from vireid_jax.training.state import TrainState
    from vireid_jax.training.step import (
        BatchViews,
        Schedule,
        make_coefficients,
        make_train_step,
    )

    optimizer = make_optimizer(config)
    params = variables["params"]
    step = jax.jit(
        make_train_step(
            model,
            optimizer,
            rate_factors(params, False, 1.0),
            BatchViews(config.augment.pad, third_view=config.augment.third_view),
            config.loss.metric_form,
        ),
        donate_argnums=0,
    )
    opt_state = jax.jit(optimizer.init)(params)
    state = TrainState(jnp.zeros((), int), params, variables["batch_stats"], opt_state)
    rates = jnp.full(1, config.optimizer.learning_rate)  # of every step
    numbers = make_coefficients(config), Schedule(rates, jnp.zeros(1))
    return step, state, jax.random.key(0), numbers


def stepper(config, model, variables, batch):
    """Return a function that takes the next training step."""
    import jax

    from vireid_jax.training.program import compile_step

    step, state, key, numbers = jitted_step(config, model, variables)
    take_step = None

    def run():
        nonlocal state, take_step
        if take_step is None:
            take_step = compile_step(step.lower(state, batch, key, *numbers))
        state, metrics = jax.block_until_ready(take_step(state, batch, key, *numbers))
        return {name: metrics[name] for name in ("loss", "gradient_norm")}

    return run


def embed(job: Job):
    """Return a function that embeds a batch of visible images."""
    from vireid_jax.embed.embedder import Embedder
    from vireid_jax.models.build import create_model

    model = create_model(config_of(job), job["classes"])
    variables = variables_of(model)
    batch = batch_of(job, job["images"])
    write_given(job["given"], variables, batch)
    embedder = Embedder(
        model,
        variables,
        size=(job["height"], job["width"]),
        flip=False,
        batch_size=job["images"],
    )
    return lambda: {"embeddings": embedder.embed(batch["visible"], "visible")}


def first_step(job: Job):
    """Return a function that takes a training step of the complete method."""
    import jax

    from vireid_jax.config import default_config
    from vireid_jax.models.build import create_model, init_variables

    config = default_config()
    config.model.name = job["network"]
    config.data.size = (job["height"], job["width"])
    config.model.students = ("conv2", "conv3", "conv4")
    config.model.granularities = (2, 3, 6)
    model = create_model(config, job["classes"])
    variables = jax.jit(lambda: init_variables(model, jax.random.key(0)))()
    return stepper(config, model, variables, batch_of(job, job["images"] // 2))


def search(job: Job):
    """Return a function that finds the nearest rows of a gallery."""
    import jax

    from benchmarks.search import features_of
    from vireid_jax.embed.embedder import nearest

    queries, gallery = map(jax.device_put, features_of(job))

    def run() -> Facts:
        found = nearest(queries, gallery, job["k"])
        return {"similarities": found.scores, "rows": found.indices}

    return run


if __name__ == "__main__":
    serve(prepare)
