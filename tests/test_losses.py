"""Losses: reference values and gradients, brute-force loops, laws, and no NaN."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid_jax import losses
from vireid_jax.losses.metric import euclidean_distances
from vireid_jax.models.heads import generalised_mean, l2_normalise

GOLDEN = np.load(Path(__file__).parent / "golden" / "losses.npz")
# How the reference numbers begin that are of a form we have.
REFERENCES = {
    "hetero_center": ("hc_triplet",),
    "batch_hard": ("batch_hard", "torchreid_batch_hard", "fastreid_batch_hard"),
    "weighted": ("wrt_raw", "wrt_unit", "wrt_hard", "caj_adp_square0", "fastreid_weig"),
    "enhanced": ("caj_adp_square1",),
}
CASES = [
    (name, key.removesuffix("/x"))
    for name, beginnings in REFERENCES.items()
    for key in GOLDEN
    if key.startswith(beginnings) and key.endswith("/x")
]
METRIC = losses.METRIC_LOSSES | {"infonce": losses.cross_modal_infonce}
every_metric = pytest.mark.parametrize("name", METRIC)
# Compiled as a whole: op by op takes longer. Few shapes in all the tests, for the same
# reason; and arguments of numpy, which are of either precision's types.
SLOPES = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in METRIC.items()}
distillation = jax.jit(jax.value_and_grad(losses.distillation, (0, 1, 2, 3)))
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


def golden(case, *names):
    return [GOLDEN[f"{case}/{name}"] for name in names]


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def check(f, x, loss, gradient, dtype):
    """Compare value and gradient with the reference, relative to their size."""
    actual = jax.jit(jax.value_and_grad(f))(jnp.asarray(x, dtype))
    compare(actual, loss, gradient, dtype)


def compare(value_and_grad, loss, gradient, dtype):
    actual, slope = value_and_grad
    assert actual.dtype == slope.dtype == dtype
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(actual, loss, rtol=tolerance, atol=0)
    largest = np.abs(gradient).max()
    np.testing.assert_allclose(slope, gradient, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_metric_losses_are_the_reference(name, case, dtype):
    x, labels, loss, gradient = golden(case, "x", "labels", "loss", "grad_x")
    margin = float(case.split("_m")[1][:3]) if "_m" in case else 0.3
    modalities = np.arange(len(x)) // (len(x) // 2)  # first all visible ones
    actual = SLOPES[name](jnp.asarray(x, dtype), labels, modalities, margin)
    compare(actual, loss, gradient, dtype)


def test_weighted_triplet_of_normalised_features_is_the_reference(dtype):
    x, labels, loss, gradient = golden(
        "wrt_normalize_feature", "x", "labels", "loss", "grad_x"
    )
    labels = jnp.array(labels)
    f = lambda x: losses.weighted_triplet(l2_normalise(x), labels, labels)
    check(f, x, loss, gradient, dtype)


@pytest.mark.parametrize(
    ("case", "smoothing"),
    [
        ("ls_ce_torch_eps0.1", 0.1),
        ("ls_ce_torchreid_eps0.1", 0.1),
        ("ls_ce_hct_eps0.1", 0.1),
        ("ce_plain", 0.0),
    ],
)
def test_cross_entropy_is_the_reference(case, smoothing, dtype):
    x, labels, loss, gradient = golden(case, "x", "labels", "loss", "grad_x")
    f = lambda x: losses.cross_entropy(x, jnp.array(labels), smoothing)
    check(f, x, loss, gradient, dtype)


@pytest.mark.parametrize("softness", [1, 3, 4])
def test_the_soft_part_of_distillation_is_the_reference(softness, dtype):
    x, teacher, loss, gradient = golden(
        f"kd_hinton_T{softness}", "x", "teacher", "loss", "grad_x"
    )
    teacher = jnp.asarray(teacher, dtype)
    labels = jnp.zeros(len(x), int)
    feature = jnp.ones((len(x), 3), dtype)
    f = lambda x: losses.distillation(
        x, teacher, feature, 2 * feature, labels, 1.0, softness
    )
    check(f, x, loss, gradient, dtype)


def test_generalised_mean_is_the_reference(dtype):
    x, pooled, loss, gradient = golden(
        "gem_fastreid_p3", "x", "pooled", "loss", "grad_x"
    )
    assert x.min() < 0  # so that the floor of 1e-6 is seen
    to_rows = lambda x: jnp.moveaxis(x, 1, -1)
    f = lambda x: generalised_mean(to_rows(x)).sum()
    check(f, x, loss, gradient, dtype)
    actual = generalised_mean(to_rows(jnp.asarray(x, dtype)))
    np.testing.assert_allclose(actual, pooled, rtol=TOLERANCE[dtype])


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


def batch_hard_by_loop(features, labels, modalities, margin):
    hinges = []
    for anchor, same in zip(features, labels[:, None] == labels, strict=True):
        far = np.maximum(np.linalg.norm(features - anchor, axis=1), 1e-6)
        hinges.append(max(margin + far[same].max() - far[~same].min(), 0))
    return np.mean(hinges)


def gaps_by_loop(features, labels):
    gaps = []
    for anchor, same in zip(features, labels[:, None] == labels, strict=True):
        far = np.maximum(np.linalg.norm(features - anchor, axis=1), 1e-6)
        positive, negative = far[same], far[~same]
        of_positive = np.exp(positive - positive.max())
        of_negative = np.exp(-negative)
        gap = of_positive @ positive / (of_positive.sum() + 1e-6)
        gap -= of_negative @ negative / (of_negative.sum() + 1e-6)
        gaps.append(gap)
    return np.array(gaps)


def weighted_by_loop(features, labels, modalities, margin):
    return np.mean([np.log(1 + np.exp(d)) for d in gaps_by_loop(features, labels)])


def enhanced_by_loop(features, labels, modalities, margin):
    y = lambda d: -1 if d > 0 else 1
    gaps = gaps_by_loop(features, labels)
    return np.mean([np.log(1 + np.exp(-y(d) * min(d**2, 88))) for d in gaps])


def distillation_by_loop(z, z_teacher, f, f_teacher, labels, alpha, t, beta, smoothing):
    softmax = lambda x: np.exp(x) / np.exp(x).sum()
    unit = lambda x: x / np.linalg.norm(x)
    of_rows = []
    for i, label in enumerate(labels):
        target = np.full(len(z[i]), smoothing / len(z[i]))
        target[label] += 1 - smoothing
        identity = -target @ np.log(softmax(z[i]))
        p, q = softmax(z_teacher[i] / t), softmax(z[i] / t)
        soft = t**2 * (p @ np.log(p / q))
        apart = ((unit(f[i]) - unit(f_teacher[i])) ** 2).sum()
        of_rows.append((1 - alpha) * identity + alpha * soft + beta * apart)
    return np.mean(of_rows)


LOOPS = {
    "hetero_center": hetero_center_by_loop,
    "batch_hard": batch_hard_by_loop,
    "weighted": weighted_by_loop,
    "enhanced": enhanced_by_loop,
    "infonce": infonce_by_loop,
}


def uneven_batch(seed):
    """Five identities, 1 to 14 images a modality; the last has visible ones alone."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(np.append(np.arange(9), rng.integers(9, size=13)))
    return rng.standard_normal((22, 6)), 7 * (pairs // 2) + 2, pairs % 2


@pytest.mark.slow  # XLA compiles each of thirty cases in float64
@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("seed", range(3))
@every_metric
def test_metric_losses_are_their_loops(name, seed, scale):
    features, labels, modalities = uneven_batch(seed)
    features[1] = features[0]
    batch = scale * features, labels, modalities, 0.8
    if scale == 4:  # about half of the rows are where the enhanced triplet is flat
        assert 0 < (gaps_by_loop(*batch[:2]) ** 2 > 88).sum() < len(features)
    with jax.enable_x64(True):
        actual, _ = SLOPES[name](*batch)
    np.testing.assert_allclose(actual, LOOPS[name](*batch), rtol=1e-12)


def test_triplets_are_interchangeable():
    for loss in losses.METRIC_LOSSES.values():
        parameters = inspect.signature(loss).parameters
        assert list(parameters) == ["features", "labels", "modalities", "margin"]
        assert parameters["margin"].default == 0.3


def student_and_teacher(dtype=float):
    """Logits and features of a student and of a teacher, and labels; of nine rows."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((2, 9, 5))
    features = rng.standard_normal((2, 9, 4))
    return *logits.astype(dtype), *features.astype(dtype), rng.integers(5, size=9)


@pytest.mark.parametrize(
    "options", [(0.3, 3.0, 0.1, 0.1), (0.9, 1.5, 2.0, 0.0), (0.0, 1.0, 0.0, 0.1)]
)
def test_distillation_is_its_loop(options):
    batch = student_and_teacher()
    with jax.enable_x64(True):
        actual, _ = distillation(*batch, *options)
    expected = distillation_by_loop(*batch, *options)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_distillation_teaches_the_student_and_never_the_teacher():
    batch = student_and_teacher(np.float32)
    _, gradients = distillation(*batch)
    for of_student, of_teacher in (gradients[:2], gradients[2:]):
        assert (of_student != 0).all()
        assert (of_teacher == 0).all()
    length = np.linalg.norm(batch[2:4], axis=2, keepdims=True)
    f, f_teacher = batch[2:4] / length
    along = (f * f_teacher).sum(1, keepdims=True)
    expected = 0.1 * 2 * (along * f - f_teacher) / length[0] / len(f)
    np.testing.assert_allclose(gradients[2], expected, rtol=1e-4, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(9)))
def test_the_order_of_rows_does_not_matter_to_distillation(order):
    batch = student_and_teacher(np.float32)
    actual, _ = distillation(*(x[np.array(order)] for x in batch))
    np.testing.assert_allclose(actual, distillation(*batch)[0], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("logits", "teacher", "feature"),
    [(0, 0, 0), (1e4, 1e4, 1), (1e4, -1e4, 1e6), (-1e4, 0, 1e-9)],
)
def test_distillation_stays_finite(logits, teacher, feature, dtype):
    z, f = jnp.eye(9, 5, dtype=dtype), jnp.ones((9, 4), dtype)
    batch = logits * z, teacher * z, feature * f, f, np.zeros(9, int)
    value, gradients = distillation(*batch)
    assert value.dtype == jnp.float32
    assert np.isfinite(value)
    for gradient in gradients:
        assert gradient.dtype == dtype
        assert np.isfinite(gradient.astype(jnp.float32)).all()


@pytest.mark.slow  # XLA compiles each loss for another shape
@every_metric
@settings(max_examples=20, deadline=None)
@given(st.permutations(range(22)), st.permutations(range(5)))
def test_neither_order_nor_names_of_identities_matter(name, order, names):
    features, labels, modalities = uneven_batch(0)
    features = np.float32(features)
    expected, _ = SLOPES[name](features, labels, modalities, 0.8)
    order = np.array(order)
    renamed = np.array(names)[labels // 7]
    actual, _ = SLOPES[name](features[order], renamed[order], modalities[order], 0.8)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.slow  # XLA compiles each loss for another shape
@every_metric
def test_swapping_the_modalities_changes_nothing(name):
    features, labels, modalities = uneven_batch(0)
    expected, _ = SLOPES[name](np.float32(features), labels, modalities, 0.8)
    actual, _ = SLOPES[name](np.float32(features), labels, 1 - modalities, 0.8)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


TWO_BY_TWO = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1] * 2
HARD = {
    "identical features": (np.ones((8, 8)), *TWO_BY_TWO),
    "zero features": (np.zeros((8, 8)), *TWO_BY_TWO),
    "large features": (1e6 * np.eye(8), *TWO_BY_TWO),
    "one identity": (np.eye(8), [5] * 8, [0, 0, 1, 1] * 2),
    "one image each": (np.eye(8), [0, 1, 2, 3] * 2, [0] * 4 + [1] * 4),
    "one modality": (np.eye(8), [0, 0, 1, 1] * 2, [0] * 8),
    "no pair": (np.eye(8), range(8), [0, 1] * 4),
    "one row": (np.ones((1, 8)), [0], [1]),
}


@pytest.mark.slow  # XLA compiles each loss for four shapes and types
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", HARD)
@every_metric
def test_value_and_gradient_stay_finite(name, case, dtype):
    features, labels, modalities = HARD[case]
    features = jnp.asarray(features, dtype)
    value, gradient = SLOPES[name](features, np.array(labels), np.array(modalities))
    assert value.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert np.isfinite(value)
    assert np.isfinite(gradient.astype(jnp.float32)).all()
    nothing_to_compare = {
        "hetero_center": ("one modality", "no pair", "one row"),
        "infonce": ("one modality", "no pair", "one row"),
        "batch_hard": ("one identity", "one row"),
    }
    if case in nothing_to_compare.get(name, ()):
        assert value == 0
        assert not gradient.any()


@pytest.mark.slow  # XLA compiles each loss for two types
def test_losses_of_narrow_types_are_computed_in_float32():
    features = np.random.default_rng(0).standard_normal((8, 8))
    labels, modalities = map(np.array, TWO_BY_TWO)
    narrow = jnp.asarray(features, jnp.bfloat16)
    wide = narrow.astype(jnp.float32)
    for slope in SLOPES.values():
        actual, expected = (slope(x, labels, modalities) for x in (narrow, wide))
        assert actual[0] == expected[0]
        assert (actual[1] == expected[1].astype(jnp.bfloat16)).all()
    labels = jnp.array(labels)
    logits = 9 * narrow
    expected = losses.cross_entropy(logits.astype(jnp.float32), labels)
    assert losses.cross_entropy(logits, labels) == expected


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
        actual = euclidean_distances(jnp.asarray(x), jnp.asarray(y))
        assert actual[4, 2] == 0
    expected = np.linalg.norm(x[:, None] - y, axis=2)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.parametrize("name", losses.METRIC_LOSSES)
def test_an_offset_that_all_features_share_costs_no_precision(name):
    """Pooled features are positive: far from zero, and early on near each other."""
    rng = np.random.default_rng(0)
    labels, modalities = np.arange(48) // 4, np.arange(48) % 2
    features = np.float32(4 + 0.01 * rng.standard_normal((48, 16)))
    _, gradient = SLOPES[name](features, labels, modalities, 0.3)
    with jax.enable_x64(True):
        _, expected = SLOPES[name](features.astype(float), labels, modalities, 0.3)
    error = np.abs(gradient - np.asarray(expected)).max()
    assert error < 1e-3 * np.abs(expected).max()


def test_a_label_of_no_class_makes_the_loss_nan():
    for wrong in (-1, 3):
        labels = jnp.array([0, wrong, 2])
        assert jnp.isnan(losses.cross_entropy(jnp.eye(3), labels))
        assert jnp.isnan(jax.jit(losses.cross_entropy)(jnp.eye(3), labels))
