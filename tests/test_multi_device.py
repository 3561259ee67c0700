"""A step on many devices, and of many processes, is the step on one device.

Run in a process that has eight devices, and in two that have two each. Compared in
float64: in float32 training drifts apart within a few steps.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from vireid_jax.config import default_config
from vireid_jax.embed.embedder import Embedder
from vireid_jax.models.build import init_variables
from vireid_jax.models.heads import IdentityHead, l2_normalise
from vireid_jax.models.osnet import OSBlock, Stem
from vireid_jax.run import processes
from vireid_jax.training import sharding
from vireid_jax.training.optimizer import make_optimizer, rate_factors
from vireid_jax.training.state import TrainState
from vireid_jax.training.step import (
    BatchViews,
    Schedule,
    make_coefficients,
    make_embed_step,
    make_train_step,
)

# Slow: XLA compiles a training step of the network's parts in float64 for five meshes.
pytestmark = pytest.mark.slow

DEVICES = 8
STEPS = 5
SIZE = (32, 32)
MESHES = ["two", "eight", "four by two"]


def start(devices, *arguments):
    """Start this file in a process that has so many devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-W", "error", __file__, *map(str, arguments)],
        env=dict(os.environ, XLA_FLAGS=flags, PYTHONPATH=os.pathsep.join(paths)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process):
    """Wait for such a process; return its results."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def found():
    return answer(start(DEVICES))


@pytest.fixture(scope="module")
def found_by_two_processes():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    both = [start(2, coordinator, index) for index in range(2)]
    return [answer(process) for process in both]


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_two_processes_of_two_devices_agree_with_one_device(
    found, found_by_two_processes, name
):
    for numbers in found_by_two_processes:
        assert numbers["devices"] == 4
        np.testing.assert_allclose(numbers[name], found["one"][name], rtol=1e-9)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_steps_agree(found, mesh, name):
    one = found["one"][name]
    assert len(one) == STEPS
    assert one[0] != one[1]
    np.testing.assert_allclose(found[mesh][name], one, rtol=1e-9)


@pytest.mark.parametrize("mesh", MESHES)
def test_norms_use_the_complete_batch(found, mesh):
    """The running statistics and the weights after the steps agree too."""
    assert found["largest_statistic"] > 0.1
    assert found[mesh]["statistics_differ_by"] < 1e-9
    assert found[mesh]["weights_differ_by"] < 1e-9


@pytest.mark.parametrize("mesh", MESHES)
def test_images_are_split_and_the_state_is_on_every_device(found, mesh):
    rows, devices = {"two": (4, 2), "eight": (1, 8), "four by two": (2, 8)}[mesh]
    assert found[mesh]["rows_per_device"] == [rows] * devices
    assert found[mesh]["state_devices"] == [devices]


def test_a_classifier_alone_is_split_and_its_momentum_too(found):
    assert found["eight"]["split"] == []
    kernel = "['params']['head']['classifier']['kernel']"
    split = found["four by two"]["split"]
    assert len(split) == 2
    assert all(name.endswith("['head']['classifier']['kernel']") for name in split)
    assert kernel.replace("['params']", ".params") in split
    assert found["four by two"]["classifier_shard"] == [64, 3]


def test_a_mesh_that_does_not_fit_is_refused(found):
    for words in ("config.mesh.model is 3", "8 devices", "valid values: [1, 2, 4, 8]"):
        assert words in found["no_such_mesh"]


def test_a_kernel_of_odd_classes_is_split_by_its_features():
    mesh = AbstractMesh((2, 2), ("data", "model"))
    kernels = {
        "classifier": {
            "even": jax.ShapeDtypeStruct((9, 6), np.float32),
            "odd": jax.ShapeDtypeStruct((11, 8, 5), np.float32),
            "neither": jax.ShapeDtypeStruct((9, 5), np.float32),
        },
        "conv": jax.ShapeDtypeStruct((1, 1, 8, 8), np.float32),
    }
    found = jax.tree.map(lambda s: s.spec, sharding.state_shardings(kernels, mesh))
    assert found == {
        "classifier": {"even": P(None, "model"), "odd": P(None, "model", None),
                       "neither": P()},
        "conv": P(),
    }  # fmt: skip


def test_embeddings_agree(found):
    assert found["embeddings_differ_by"] < 1e-5


def test_a_batch_that_cannot_be_shared_names_the_nearest(found):
    for words in ("P x K is 12", "8 devices", "valid values: 8, 16"):
        assert words in found["refused"]


# --- In those processes ---------------------------------------------------------------


def batch_of(step):
    rng = np.random.default_rng(step)
    labels = np.repeat(rng.permutation(6)[:4], 2).astype(np.int32)
    image = lambda: rng.integers(0, 256, (8, *SIZE, 3), np.uint8)
    return {"visible": image(), "infrared": image(), "visible_id": labels}


class Short(nn.Module):
    """A stem, one block and the head: every kind of layer once, quick to compile."""

    @nn.compact
    def __call__(self, images, views, train=False):
        batch = images.shape[0]
        x = images.reshape(-1, *images.shape[2:]).astype(jnp.float64)
        x = Stem(16, name="conv1")(x, None, train)
        x = OSBlock(64, name="conv2")(x, views, train)
        out = IdentityHead(6, name="head")(x, views, train)
        out = {name: x.reshape(batch, -1, x.shape[-1]) for name, x in out.items()}
        return l2_normalise(out["neck"]), out


def random_variables():
    model = Short()
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def fill(leaf):
        if leaf.ndim == 1:  # scales, biases, means and variances, near 1
            return 1 + 0.1 * rng.random(leaf.shape)
        return rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))

    return jax.tree.map(fill, shapes)


def train_on(mesh):
    """Take the steps that `train` takes, on the devices of `mesh`."""
    config = default_config()
    config.optimizer.name = "sgd"
    config.loss.infonce = 1.0
    optimizer = make_optimizer(config)
    variables = random_variables()
    factors = rate_factors(variables["params"], False, 1.0)
    step = make_train_step(Short(), optimizer, factors, BatchViews(pad=0))
    everywhere = sharding.replicated(mesh)
    params, batch_stats = variables["params"], variables["batch_stats"]
    state = TrainState(jnp.int32(0), params, batch_stats, optimizer.init(params))
    shardings = sharding.state_shardings(state, mesh)
    share = len(batch_of(0)["visible"]) // jax.process_count()
    share = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    step = jax.jit(
        step,
        in_shardings=(shardings, sharding.batch_sharding(mesh), *(everywhere,) * 3),
        out_shardings=(shardings, everywhere),
        donate_argnums=0,
    )
    state = jax.device_put(state, shardings)
    key = jax.jit(lambda: jax.random.key(0), out_shardings=everywhere)()
    numbers = make_coefficients(config), Schedule(np.full(STEPS, 0.01), np.zeros(STEPS))
    numbers = jax.tree.map(np.float64, numbers)
    numbers = sharding.place_everywhere(numbers, mesh)
    history = []
    for n in range(STEPS):
        batch = {name: rows[share] for name, rows in batch_of(n).items()}
        batch = sharding.place_batch(batch, mesh)
        state, metrics = step(state, batch, key, *numbers)
        history.append(jax.device_get(metrics))
    numbers = {
        name: [float(metrics[name]) for metrics in history]
        for name in ("loss", "gradient_norm")
    }
    return state, batch, numbers


def largest_difference(one, two):
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, two)
    return float(max(jax.tree.leaves(differences)))


def describe(one, state, batch, numbers):
    """Describe where a state and a batch are, and how far the state is from `one`."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    kernel = state.params["head"]["classifier"]["kernel"]
    found = numbers | {
        "rows_per_device": [
            shard.data.shape[0] for shard in batch["visible"].addressable_shards
        ],
        "state_devices": sorted({len(x.sharding.device_set) for _, x in leaves}),
        "split": [
            jax.tree_util.keystr(path)
            for path, x in leaves
            if not x.is_fully_replicated
        ],
        "classifier_shard": kernel.addressable_shards[0].data.shape,
    }
    state = jax.device_get(state)
    found["weights_differ_by"] = largest_difference(one.params, state.params)
    found["statistics_differ_by"] = largest_difference(
        one.batch_stats, state.batch_stats
    )
    return found


def mesh_of(data, model=1):
    """Arrange the first devices of this process as a mesh."""
    devices = np.array(jax.devices()[: data * model]).reshape(data, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def one_of_two(coordinator, index):
    """Take the steps as one of two processes; print each loss."""
    processes.connect(coordinator, 2, index)
    _, _, numbers = train_on(sharding.make_mesh())
    sys.stdout.write(json.dumps(numbers | {"devices": jax.device_count()}))


def main():
    mesh = sharding.make_mesh()
    assert mesh.shape == {"data": DEVICES, "model": 1}
    one, _, numbers = train_on(mesh_of(1))
    one = jax.device_get(one)
    found = {
        "one": numbers,
        "two": describe(one, *train_on(mesh_of(2))),
        "eight": describe(one, *train_on(mesh)),
        "four by two": describe(one, *train_on(sharding.make_mesh(model=2))),
    }
    found["largest_statistic"] = float(
        max(np.abs(leaf).max() for leaf in jax.tree.leaves(one.batch_stats))
    )
    variables = {"params": one.params, "batch_stats": one.batch_stats}
    images = batch_of(7)["visible"][:7]
    embedder = Embedder(Short(), variables, size=SIZE, batch_size=8)
    expected = jax.jit(make_embed_step(Short(), "visible", flip=True))(
        variables, images
    )
    found["embeddings_differ_by"] = float(
        np.abs(embedder.embed(images, "visible") - expected).max()
    )
    try:
        sharding.check_divides(12, mesh, "P x K")
    except ValueError as error:
        found["refused"] = str(error)
    try:
        sharding.make_mesh(model=3)
    except ValueError as error:
        found["no_such_mesh"] = str(error)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if sys.argv[1:]:
        one_of_two(sys.argv[1], int(sys.argv[2]))
    else:
        main()
