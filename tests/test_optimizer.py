"""Learning rates at their corners; optimizers against ten lines of numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vireid_jax.config import default_config
from vireid_jax.training.optimizer import learning_rate, make_optimizer, rate_factors


def config_of(**optimizer):
    config = default_config()
    config.optimizer.update(optimizer)
    return config


# --- The learning rate ---------------------------------------------------------------


def rates(num_steps, warmup, final, peak=2.0):
    config = config_of(learning_rate=peak)
    config.schedule.warmup, config.schedule.final = warmup, final
    # One step beyond the last, where the cosine ends.
    return np.array([learning_rate(config, n, num_steps) for n in range(num_steps + 1)])


def test_the_rate_warms_up_from_a_hundredth_and_falls_to_the_final_share():
    found = rates(1200, warmup=1 / 12, final=0.05)
    assert found[0] == pytest.approx(0.02)
    assert found.argmax() == 100
    assert found[100] == 2.0
    assert found[50] == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert found[650] == pytest.approx(2 * (0.05 + 0.95 / 2))  # halfway down
    assert found[-1] == pytest.approx(0.1)
    assert (np.diff(found[:101]) > 0).all()
    assert (np.diff(found[100:]) < 0).all()
    assert np.abs(np.diff(found)).max() < 0.02  # no jump


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("final", [0.0, 1.0])
def test_corners_of_the_schedule(num_steps, warmup, final):
    found = rates(num_steps, warmup, final)
    assert ((found >= 0) & (found <= 2.0)).all()
    assert found.max() == 2.0
    if not warmup:
        assert found[0] == 2.0
    if final == 1.0:
        assert (found[round(warmup * num_steps) :] == 2.0).all()


# --- Directions ----------------------------------------------------------------------

PARAMS = {
    "kernel": np.array([[1.0, -2.0], [0.5, 3.0]]),
    "scale": np.array([1.0, 2.0]),
    "bias": np.array([0.3, -0.3]),
}


def gradients(step):
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal(x.shape) for name, x in PARAMS.items()}


def by_optimizer(config, rate, num_steps):
    """Take steps as the train step does: minus the rate times the direction."""
    with jax.enable_x64(True):
        optimizer = make_optimizer(config)
        params = jax.tree.map(jnp.asarray, PARAMS)
        state = optimizer.init(params)
        for step in range(num_steps):
            g = jax.tree.map(jnp.asarray, gradients(step))
            direction, state = optimizer.update(g, state, params)
            params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
        return jax.device_get(params)


def clipped(g, norm):
    length = np.sqrt(sum((x**2).sum() for x in g.values()))
    return {name: x * min(1, norm / length) for name, x in g.items()}


def adamw(rate, decay, clip, num_steps):
    params = {name: x.copy() for name, x in PARAMS.items()}
    m = {name: 0 * x for name, x in PARAMS.items()}
    v = {name: 0 * x for name, x in PARAMS.items()}
    for step in range(num_steps):
        for name, g in clipped(gradients(step), clip).items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            mean = m[name] / (1 - 0.9 ** (step + 1))
            root = np.sqrt(v[name] / (1 - 0.999 ** (step + 1)))
            shrink = decay * params[name] if name == "kernel" else 0
            params[name] -= rate * (mean / (root + 1e-8) + shrink)
    return params


def sgd(rate, decay, clip, num_steps):
    params = {name: x.copy() for name, x in PARAMS.items()}
    velocity = {name: 0 * x for name, x in PARAMS.items()}
    for step in range(num_steps):
        for name, g in clipped(gradients(step), clip).items():
            g = g + (decay * params[name] if name == "kernel" else 0)
            velocity[name] = 0.9 * velocity[name] + g
            params[name] -= rate * (g + 0.9 * velocity[name])  # Nesterov
    return params


@pytest.mark.parametrize("clip_norm", [0.5, 100.0])
@pytest.mark.parametrize("reference", [adamw, sgd])
def test_optimizers_are_their_textbook_form(reference, clip_norm):
    config = config_of(name=reference.__name__, weight_decay=0.1, clip_norm=clip_norm)
    found = by_optimizer(config, 0.05, 4)
    for name, expected in reference(0.05, 0.1, clip_norm, 4).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_shrinks_kernels_and_spares_norms_and_biases(name):
    config = config_of(name=name, weight_decay=0.1)
    optimizer = make_optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    direction, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    assert (np.sign(direction["kernel"]) == np.sign(PARAMS["kernel"])).all()
    assert not direction["scale"].any()
    assert not direction["bias"].any()


def test_the_rate_is_lower_only_where_weights_came_in():
    params = {"visible": {"conv1": 1}, "shared": {"conv2": {"0": 2}}, "head": {"n": 3}}
    found = rate_factors(params, pretrained=True, factor=0.5)
    assert found == {
        "visible": {"conv1": 0.5},
        "shared": {"conv2": {"0": 0.5}},
        "head": {"n": 1.0},
    }
    found = rate_factors(params, pretrained=False, factor=0.5)
    assert set(jax.tree.leaves(found)) == {1.0}
    assert jax.tree.structure(found) == jax.tree.structure(params)
