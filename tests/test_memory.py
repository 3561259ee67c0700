"""Computing blocks twice in training: the same numbers, less kept between."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vireid_jax.models.osnet import BlockStage


@functools.cache
def computed(rematerialise):
    """Compute loss and gradient of a stage; gives them and the bytes kept between."""
    stage = BlockStage(64, reduce=True, rematerialise=rematerialise)
    x = jax.random.normal(jax.random.key(0), (8, 16, 16, 16), jnp.float64)
    variables = stage.init(jax.random.key(1), x, None, True)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)

    def loss(params):
        out, updated = stage.apply(
            {**variables, "params": params}, x, None, True, mutable=["batch_stats"]
        )
        return (out**2).mean(), updated

    params = variables["params"]
    kept = jax.eval_shape(lambda p: jax.vjp(loss, p, has_aux=True)[1], params)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params), kept


# Slow: XLA compiles two blocks of the network, forwards and backwards, twice.
@pytest.mark.slow
class TestRematerialise:
    @pytest.fixture(autouse=True)
    def _wide(self):
        with jax.enable_x64(True):
            yield

    def test_loss_gradient_statistics_and_names_are_the_same(self):
        plain, again = computed(False)[0], computed(True)[0]
        assert jax.tree.structure(plain) == jax.tree.structure(again)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12),
            plain,
            again,
        )
        gradients = jax.tree.leaves(plain[1])
        assert max(float(jnp.abs(g).max()) for g in gradients) > 1e-4

    def test_less_is_kept_for_the_backward_pass(self):
        assert computed(True)[1] < 0.2 * computed(False)[1]
