"""What a run compiles: the network, where each array lives, and the jitted step.

Training runs it; a dry run lowers it for any mesh, also one of devices that this
machine does not have.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax.modality import MODALITIES
from vireid_jax.models import Network
from vireid_jax.models.build import create_model, init_variables
from vireid_jax.training import sharding
from vireid_jax.training.optimizer import make_optimizer, rate_factors
from vireid_jax.training.state import TrainState, variables_of
from vireid_jax.training.step import (
    BatchViews,
    Schedule,
    make_coefficients,
    make_train_step,
)

REST = 0.01  # of a step's time, on a CPU


@dataclass(frozen=True)
class Program:
    """A run's network, its state's shapes and shardings, and its jitted functions.

    `init(key)` creates the state where it lives. `step(state, batch, key, coefficients,
    schedule, images)` donates it and returns `(state, metrics)`; `images` is the cached
    training set by modality, flat uint8 `[rows, H * W * 3]`, or an empty dict where the
    batch holds images.
    """

    model: Network
    mesh: Mesh
    shapes: TrainState  # jax.ShapeDtypeStruct for every array
    shardings: TrainState  # a sharding for every array
    init: Callable[[jax.Array], TrainState]
    variables: Callable[[TrainState], dict[str, Any]]  # a copy, whole on every device
    step: jax.stages.Wrapped

    def insert(self, state: TrainState, variables: dict[str, Any]) -> TrainState:
        """Return the state with other variables: host arrays, the same everywhere."""
        whole = sharding.place_everywhere(variables, self.mesh)
        place = jax.jit(lambda tree: tree, out_shardings=variables_of(self.shardings))
        return state._replace(**place(whole))


def make_program(
    config: ConfigDict | FrozenConfigDict, num_classes: int, mesh: Mesh
) -> Program:
    """Build the program of a config for the devices of `mesh`; compile nothing yet.

    Raise UserError where a batch's rows do not divide over the mesh.
    """
    sharding.check_divides(pairs_per_step(config), mesh, "a batch's P x K")
    model = create_model(config, num_classes)
    optimizer = make_optimizer(config)

    def init(key: jax.Array) -> TrainState:
        variables = init_variables(model, key)
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(
            jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params)
        )

    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = sharding.state_shardings(shapes, mesh)
    has_weights = bool(config.init_from or config.model.pretrained)
    step = make_train_step(
        model,
        optimizer,
        rate_factors(shapes.params, has_weights, config.optimizer.pretrained_factor),
        BatchViews(
            pad=config.augment.pad,
            third_view=config.augment.third_view,
            pseudo_infrared=is_pretraining(config),
        ),
        config.loss.metric_form,
        size=tuple(config.data.size),
    )
    everywhere = sharding.replicated(mesh)
    batch_sharding = sharding.batch_sharding(mesh)
    return Program(
        model=model,
        mesh=mesh,
        shapes=shapes,
        shardings=shardings,
        init=jax.jit(init, out_shardings=shardings),
        variables=jax.jit(variables_of, out_shardings=everywhere),
        step=jax.jit(
            step,
            in_shardings=(shardings, batch_sharding, *(everywhere,) * 4),
            out_shardings=(shardings, everywhere),
            donate_argnums=0,
        ),
    )


def compile_step(lowered: jax.stages.Lowered) -> Callable[..., Any]:
    """Compile a step, or read it from the cache, before it has taken any memory.

    On a CPU the step is run to its end, and then rests for a moment: one of XLA's
    threads frees the buffers a little after the results are there, and a next step that
    comes before that takes gigabytes of its own (measured).
    """
    compiled = lowered.compile()
    if jax.default_backend() != "cpu":
        return compiled

    def step(*arguments: Any) -> Any:
        start = time.perf_counter()
        results = jax.block_until_ready(compiled(*arguments))
        time.sleep(REST * (time.perf_counter() - start))
        return results

    return step


def pairs_per_step(config: ConfigDict | FrozenConfigDict) -> int:
    """Return P x K, the image pairs of a step."""
    return config.batch.identities * config.batch.images


def is_pretraining(config: ConfigDict | FrozenConfigDict) -> bool:
    """Return whether both sides of each pair are colour images."""
    return config.data.second_side == "visible"


def step_arguments(
    config: ConfigDict | FrozenConfigDict,
    shapes: TrainState,
    cached_rows: Sequence[int] = (),
    num_steps: int = 1024,
) -> tuple[Any, ...]:
    """Return the shapes of all that `Program.step` takes, to lower it without data.

    `cached_rows` are the visible and infrared images in device memory, where
    config.data.cache is "device"; `num_steps` is the length of the schedule.
    """
    rows, size = pairs_per_step(config), tuple(config.data.size)
    shape: Any = jax.ShapeDtypeStruct
    on_device = config.data.cache == "device"
    side = shape((rows,), np.int32) if on_device else shape((rows, *size, 3), np.uint8)
    batch = {"visible": side, "infrared": side, "visible_id": shape((rows,), np.int32)}
    pixels = size[0] * size[1] * 3
    cached = [shape((count, pixels), np.uint8) for count in cached_rows]
    images = dict(zip(MODALITIES, cached, strict=True)) if on_device else {}
    key = jax.eval_shape(lambda: jax.random.key(0))
    scalar, table = shape((), np.float32), shape((num_steps,), np.float32)
    coefficients = jax.tree.map(lambda _: scalar, make_coefficients(config))
    return shapes, batch, key, coefficients, Schedule(table, table), images
