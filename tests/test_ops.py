"""Fast CPU forms against the ordinary ones: values, gradients, platforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from vireid_jax.models import ops


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[None, 700], ids=["one group", "many groups"])
def groups(request, monkeypatch):
    """Also cut the tiny batches of these tests into groups, as large ones are."""
    if request.param:
        monkeypatch.setattr(ops, "_GROUP_BYTES", request.param)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).standard_normal(shape))


def close(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def vjp(f, arguments, g):
    return jax.vjp(f, *arguments)[1](g)


DEPTHWISE = [(1, 1, 1, 4), (3, 2, 3, 5), (5, 7, 4, 3)]
STEM = [(1, 2, 2, 3), (3, 2, 4, 3), (5, 12, 6, 3)]
POOL = [(1, 1, 1, 2), (3, 2, 3, 1), (5, 7, 4, 3)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", DEPTHWISE)
def test_pointwise_forms_agree(shape):
    features = 6
    x, kernel = normal(*shape), normal(1, 1, shape[-1], features)
    g = normal(*shape[:-1], features, seed=1)

    @jax.jit
    def forms(x, kernel, g):
        plain = lambda x, kernel: jnp.tensordot(x, kernel[0, 0], 1)
        expected = plain(x, kernel), vjp(plain, (x, kernel), g)
        chosen = ops.pointwise(x, kernel), vjp(ops.pointwise, (x, kernel), g)
        forms = ops._pointwise_flat_backward, ops._pointwise_backward
        return expected, chosen, [form(x, kernel, g) for form in forms]

    expected, chosen, gradients = forms(x, kernel, g)
    close(chosen, expected)
    for gradient in gradients:
        close(gradient, expected[1])


@pytest.mark.usefixtures("float64", "groups")
@pytest.mark.parametrize("shape", DEPTHWISE)
def test_depthwise_forms_agree(shape):
    x, kernel, g = normal(*shape), normal(3, 3, 1, shape[-1]), normal(*shape, seed=1)

    @jax.jit
    def forms(x, kernel, g):
        conv, shifts = ops._conv, ops._depthwise_shifts
        expected = conv(x, kernel), vjp(conv, (x, kernel), g)
        fast = shifts(x, kernel), ops._depthwise_backward(x, kernel, g)
        chosen = ops.depthwise3x3(x, kernel), vjp(ops.depthwise3x3, (x, kernel), g)
        return expected, [fast, chosen]

    expected, others = forms(x, kernel, g)
    for other in others:
        close(other, expected)


@pytest.mark.usefixtures("float64", "groups")
@pytest.mark.parametrize("shape", STEM)
def test_stem_forms_agree(shape):
    x, kernel = normal(*shape), normal(7, 7, shape[-1], 5)
    g = normal(shape[0], shape[1] // 2, shape[2] // 2, 5, seed=1)

    @jax.jit
    def forms(x, kernel, g):
        conv, patches = ops._stem_conv, ops._stem_patches
        expected = conv(x, kernel), vjp(conv, (x, kernel), g)
        fast = patches(x, kernel), ops._stem_backward(x, kernel, g)
        chosen = ops.stem7x7(x, kernel), vjp(ops.stem7x7, (x, kernel), g)
        return expected, [fast, chosen]

    expected, others = forms(x, kernel, g)
    for other in others:
        close(other, expected)


@jax.jit
def max_pool_forms(x, g):
    forms = ops._max_pool_window, ops._max_pool_shifts, ops.max_pool3x3
    return [(form(x), vjp(form, (x,), g)) for form in forms]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", POOL)
def test_max_pool_forms_agree(shape):
    x = normal(*shape) - 5  # all negative: a padding of 0 would win
    height, width = (shape[1] + 1) // 2, (shape[2] + 1) // 2
    g = normal(shape[0], height, width, shape[3], seed=1)
    ordinary, *others = max_pool_forms(x, g)
    assert ordinary[0].max() == x.max()
    for other in others:
        close(other, ordinary)


@pytest.mark.usefixtures("float64")
def test_max_pool_passes_each_gradient_on_once_where_values_tie():
    g = normal(2, 3, 2, 3)
    for _, (dx,) in max_pool_forms(jnp.ones((2, 6, 4, 3)), g):
        np.testing.assert_allclose(dx.sum((1, 2)), g.sum((1, 2)), rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(2, 2, 2, 1), (3, 4, 6, 2), (1, 5, 7, 3)])
def test_average_pool_is_the_mean_of_each_window(shape):
    x = normal(*shape)
    forms = ops._average_pool_reshape, ops._average_pool_window, ops.average_pool2x2
    pooled = ops.average_pool2x2(x)
    g = normal(*pooled.shape, seed=1)
    ordinary, *others = [(form(x), vjp(form, (x,), g)) for form in forms]
    for other in others:
        close(other, ordinary)
    expected = np.zeros((shape[0], shape[1] // 2, shape[2] // 2, shape[3]))
    for i, j in np.ndindex(expected.shape[1:3]):
        expected[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
    np.testing.assert_allclose(pooled, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_types_stay_what_they_were(dtype):
    x, stem = normal(2, 4, 4, 3).astype(dtype), normal(7, 7, 3, 2).astype(dtype)
    kernel = normal(3, 3, 1, 3).astype(dtype)
    cases = [(ops.depthwise3x3, x, kernel), (ops.stem7x7, x, stem)]
    cases += [(ops.pointwise, x, normal(1, 1, 3, 2).astype(dtype))]
    cases += [(ops.max_pool3x3, x), (ops.average_pool2x2, x)]
    for f, *arguments in cases:
        both = lambda *arguments, f=f: (y := f(*arguments), vjp(f, arguments, y))
        shapes = jax.eval_shape(both, *arguments)
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}


def lowered(f, platform, *arguments):
    """Return the program for the value and all gradients, before optimisation."""
    both = lambda *arguments: vjp(f, arguments, f(*arguments))
    traced = jax.jit(both).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_accelerators_get_the_ordinary_form(platform):
    x = jnp.ones((2, 8, 4, 16))
    text = lowered(ops.depthwise3x3, platform, x, jnp.ones((3, 3, 1, 16)))
    assert text.count("stablehlo.convolution") == 3  # value and two gradients
    assert "feature_group_count = 16" in text
    text = lowered(ops.stem7x7, platform, x[..., :3], jnp.ones((7, 7, 3, 16)))
    assert text.count("stablehlo.convolution") == 3
    text = lowered(ops.pointwise, platform, x, jnp.ones((1, 1, 16, 3)))
    assert "contracting_dims = [0, 1, 2] x [0, 1, 2]" in text
    text = lowered(ops.max_pool3x3, platform, x)
    assert "stablehlo.reduce_window" in text
    assert "stablehlo.select_and_scatter" in text
    text = lowered(ops.average_pool2x2, platform, x)
    assert "stablehlo.reduce_window" in text


def test_a_cpu_gets_the_fast_form():
    x = jnp.ones((2, 8, 4, 16))
    text = lowered(ops.depthwise3x3, "cpu", x, jnp.ones((3, 3, 1, 16)))
    assert "stablehlo.convolution" not in text
    text = lowered(ops.stem7x7, "cpu", x[..., :3], jnp.ones((7, 7, 3, 16)))
    assert text.count("stablehlo.convolution") == 1  # the image's gradient, if read
    text = lowered(ops.pointwise, "cpu", x, jnp.ones((1, 1, 16, 3)))
    assert "contracting_dims = [0, 1, 2]" not in text
    text = lowered(ops.max_pool3x3, "cpu", x)
    assert "stablehlo.reduce_window" not in text
    assert "stablehlo.select_and_scatter" not in text
    text = lowered(ops.average_pool2x2, "cpu", x)
    assert "stablehlo.reduce_window" not in text


def test_one_program_can_serve_several_platforms():
    f = lambda x, k: ops.max_pool3x3(ops.depthwise3x3(x, k))
    traced = jax.jit(f).trace(jnp.ones((2, 8, 4, 16)), jnp.ones((3, 3, 1, 16)))
    text = traced.lower(lowering_platforms=("cpu", "tpu")).as_text()
    assert "stablehlo.convolution" in text
    assert "stablehlo.multiply" in text


def test_a_program_can_be_exported_for_any_batch():
    f = lambda x, k: ops.stem7x7(ops.depthwise3x3(x, k), jnp.ones((7, 7, 16, 2)))
    x, k = jnp.ones((3, 8, 4, 16)), jnp.ones((3, 3, 1, 16))
    (batch,) = export.symbolic_shape("batch")
    shapes = jax.ShapeDtypeStruct((batch, 8, 4, 16), x.dtype), k
    exported = export.export(jax.jit(f))(*shapes)
    np.testing.assert_allclose(exported.call(x, k), f(x, k), rtol=1e-5)
