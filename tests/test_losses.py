"""Losses: reference values and gradients, brute-force loops, laws, and no NaN."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid_jax import losses
from vireid_jax.losses.metric import euclidean_distances
from vireid_jax.models.heads import generalised_mean

GOLDEN = np.load(Path(__file__).parent / "golden" / "losses.npz")
HETERO_CENTER = sorted({k.split("/")[0] for k in GOLDEN if k.startswith("hc_triplet")})
# Compiled as a whole: op by op takes longer.
hetero_center_triplet = jax.jit(losses.hetero_center_triplet)
cross_modal_infonce = jax.jit(losses.cross_modal_infonce)
METRIC = [hetero_center_triplet, cross_modal_infonce]
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


def golden(case, *names):
    return [GOLDEN[f"{case}/{name}"] for name in names]


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def check(f, x, loss, gradient, dtype):
    """Compares value and gradient with the reference, relative to their size."""
    found, slope = jax.jit(jax.value_and_grad(f))(jnp.asarray(x, dtype))
    assert found.dtype == slope.dtype == dtype
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(found, loss, rtol=tolerance, atol=tolerance)
    largest = np.abs(gradient).max()
    np.testing.assert_allclose(slope, gradient, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("case", HETERO_CENTER)
def test_hetero_center_triplet_is_the_reference(case, dtype):
    x, labels, loss, gradient = golden(case, "x", "labels", "loss", "grad_x")
    margin = float(case.split("_m")[1].split("_")[0])
    modalities = jnp.arange(len(x)) // (len(x) // 2)  # first all visible ones
    f = lambda x: losses.hetero_center_triplet(x, jnp.array(labels), modalities, margin)
    check(f, x, loss, gradient, dtype)


@pytest.mark.parametrize(
    ("case", "smoothing"), [("ls_ce_torch_eps0.1", 0.1), ("ce_plain", 0.0)]
)
def test_cross_entropy_is_the_reference(case, smoothing, dtype):
    x, labels, loss, gradient = golden(case, "x", "labels", "loss", "grad_x")
    f = lambda x: losses.cross_entropy(x, jnp.array(labels), smoothing)
    check(f, x, loss, gradient, dtype)


def test_generalised_mean_is_the_reference(dtype):
    x, pooled, loss, gradient = golden(
        "gem_fastreid_p3", "x", "pooled", "loss", "grad_x"
    )
    assert x.min() < 0  # so that the floor of 1e-6 is seen
    to_rows = lambda x: jnp.moveaxis(x, 1, -1)
    f = lambda x: generalised_mean(to_rows(x)).sum()
    check(f, x, loss, gradient, dtype)
    found = generalised_mean(to_rows(jnp.asarray(x, dtype)))
    np.testing.assert_allclose(found, pooled, rtol=TOLERANCE[dtype])


def infonce_by_loop(features, labels, modalities, temperature):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    directions = []
    for modality in (0, 1):
        of_rows = []
        for i in np.flatnonzero(modalities == modality):
            others = np.flatnonzero(modalities != modality)
            weights = np.exp(unit[others] @ unit[i] / temperature)
            shares = weights / weights.sum()
            partners = labels[others] == labels[i]
            if partners.any():
                of_rows.append(-np.log(shares[partners]).mean())
        directions.append(np.mean(of_rows))
    return np.mean(directions)


def hetero_center_by_loop(features, labels, modalities, margin):
    center = {
        (i, m): features[(labels == i) & (modalities == m)].mean(0)
        for i, m in set(zip(labels.tolist(), modalities.tolist(), strict=True))
    }
    hinges = []
    for i, m in center:
        if (i, 1 - m) not in center:
            continue
        to = lambda other, here=(i, m): np.linalg.norm(center[here] - center[other])
        negative = min(to((j, n)) for j, n in center if j != i)
        hinges.append(max(margin + to((i, 1 - m)) - negative, 0))
    return np.mean(hinges)


def uneven_batch(seed):
    """Five identities, 1 to 4 images a modality; the last lacks one modality."""
    rng = np.random.default_rng(seed)
    labels, modalities = [], []
    for identity in range(5):
        for modality in (0, 1):
            count = rng.integers(1, 5) * (identity < 4 or modality == 0)
            labels += [7 * identity + 2] * count
            modalities += [modality] * count
    order = rng.permutation(len(labels))
    features = rng.standard_normal((len(labels), 6))
    return features, np.array(labels)[order], np.array(modalities)[order]


@pytest.mark.parametrize("seed", range(3))
def test_metric_losses_are_their_loops(seed):
    features, labels, modalities = batch = uneven_batch(seed)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in batch]
        found = cross_modal_infonce(*arrays, 0.2)
        expected = infonce_by_loop(features, labels, modalities, 0.2)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        found = hetero_center_triplet(*arrays, 1.0)
        expected = hetero_center_by_loop(features, labels, modalities, 1.0)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("loss", METRIC)
@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)), st.permutations(range(3)))
def test_neither_order_nor_names_of_identities_matter(loss, order, names):
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.standard_normal((12, 4)), jnp.float32)
    labels = np.repeat([0, 1, 2], 4)
    modalities = np.tile([0, 1], 6)
    expected = loss(features, jnp.array(labels), jnp.array(modalities))
    order = np.array(order)
    renamed = np.array(names)[labels]
    found = loss(
        features[order], jnp.array(renamed[order]), jnp.array(modalities[order])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", METRIC)
def test_swapping_the_modalities_changes_nothing(loss):
    features, labels, modalities = (jnp.asarray(x) for x in uneven_batch(0))
    expected = loss(features, labels, modalities)
    np.testing.assert_allclose(
        loss(features, labels, 1 - modalities), expected, rtol=1e-6
    )


HARD = {
    "identical features": (np.ones((8, 4)), [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1] * 2),
    "zero features": (np.zeros((8, 4)), [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1] * 2),
    "large features": (1e6 * np.eye(8), [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1] * 2),
    "one identity": (np.eye(4), [5, 5, 5, 5], [0, 0, 1, 1]),
    "one image each": (np.eye(4), [0, 1, 0, 1], [0, 0, 1, 1]),
    "one modality": (np.eye(4), [0, 0, 1, 1], [0, 0, 0, 0]),
    "no pair": (np.eye(4), [0, 1, 2, 3], [0, 1, 0, 1]),
    "one row": (np.ones((1, 4)), [0], [1]),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("loss", METRIC)
def test_value_and_gradient_stay_finite(loss, case, dtype):
    features, labels, modalities = HARD[case]
    f = lambda x: loss(x, jnp.array(labels), jnp.array(modalities))
    value, gradient = jax.jit(jax.value_and_grad(f))(jnp.asarray(features, dtype))
    assert value.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert np.isfinite(value)
    assert np.isfinite(gradient.astype(jnp.float32)).all()
    if case in ("one modality", "no pair", "one row"):
        assert value == 0  # nothing to compare with


def test_losses_of_narrow_types_are_computed_in_float32():
    features, labels, modalities = (jnp.asarray(x) for x in uneven_batch(1))
    narrow = features.astype(jnp.bfloat16)
    wide = narrow.astype(jnp.float32)
    for loss in METRIC:
        found, expected = (loss(x, labels, modalities) for x in (narrow, wide))
        assert found == expected
    logits = 9 * narrow
    expected = losses.cross_entropy(logits.astype(jnp.float32), labels % 6)
    assert losses.cross_entropy(logits, labels % 6) == expected


def test_a_confident_right_answer_costs_only_the_smoothing():
    logits = 1000.0 * jnp.eye(3)
    labels = jnp.arange(3)
    assert losses.cross_entropy(logits, labels, 0.0) == 0
    assert losses.cross_entropy(logits, jnp.array([1, 2, 0]), 0.0) == 1000
    assert losses.accuracy(logits, labels) == 1
    assert losses.accuracy(logits, jnp.array([0, 1, 0])) == pytest.approx(2 / 3)


def test_distances_are_those_of_numpy():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5, 3))
    y[2] = x[4]
    with jax.enable_x64(True):
        found = euclidean_distances(jnp.asarray(x), jnp.asarray(y))
        assert found[4, 2] == 0
    expected = np.linalg.norm(x[:, None] - y, axis=2)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_an_offset_that_all_features_share_costs_no_precision():
    """Pooled features are positive: far from zero, and early on near each other."""
    rng = np.random.default_rng(0)
    labels, modalities = jnp.arange(32) // 4, jnp.arange(32) % 2
    features = np.float32(2 + 0.01 * rng.standard_normal((32, 512)))
    loss = lambda x: losses.hetero_center_triplet(x, labels, modalities)
    gradient = jax.jit(jax.grad(loss))(jnp.asarray(features))
    with jax.enable_x64(True):
        expected = jax.jit(jax.grad(loss))(jnp.asarray(features, jnp.float64))
    error = np.abs(gradient - np.asarray(expected)).max()
    assert error < 1e-3 * np.abs(expected).max()
