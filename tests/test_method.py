"""SDM and MGIM: sizes, formulas against loops, and what training must not touch."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from python_process import run_python

from vireid_jax import losses, models
from vireid_jax.config import default_config
from vireid_jax.models.__main__ import card
from vireid_jax.models.build import init_variables
from vireid_jax.models.heads import IdentityHead
from vireid_jax.models.osnet import CHANNELS
from vireid_jax.models.part_relations import PartRelations
from vireid_jax.models.self_distillation import STUDENTS, Student
from vireid_jax.models.two_stream import TwoStreamOSNet
from vireid_jax.training.step import make_coefficients, total_loss

VIEWS = ("visible", "infrared")
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def fill(tree, seed=0):
    """Fill variables with numbers that leave no part idle; variances stay positive."""
    rng = np.random.default_rng(seed)
    draw = lambda leaf: np.float32(0.5 + rng.random(leaf.shape))
    kernel = lambda leaf: np.float32(rng.standard_normal(leaf.shape) / 4)
    return jax.tree.map(lambda x: kernel(x) if x.ndim > 1 else draw(x), tree)


def variables_of(module, x, *arguments):
    init = lambda key, x: module.init(key, x, *arguments)
    return fill(jax.eval_shape(init, jax.random.key(0), x))


# --- Sizes ----------------------------------------------------------------------------

SIZES = {  # parameters of the test graph: x1.0, k=1, (2, 3, 6)
    2_411_108: {},
    1_915_876: {"granularities": ()},
}


@pytest.mark.parametrize("expected", SIZES)
def test_parameters_of_the_test_graph(expected):
    options = {"granularities": (2, 3, 6)} | SIZES[expected]
    model = TwoStreamOSNet(CHANNELS["osnet_x1_0"], **options)
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == expected


def test_the_card_of_the_lightweight_network():
    model = models.create(
        "osnet_x1_0", num_classes=395, granularities=(2, 3, 6), students=STUDENTS
    )
    actual = card(model, "osnet_x1_0", (288, 144), runs=0)
    assert actual["test_params"] == 2_411_108
    assert actual["test_macs"] == 1_240_354_192
    test, train = (
        {row["stage"]: row for row in actual[f"{graph}_stages"]}
        for graph in ("test", "train")
    )
    # Each student: depthwise 3x3, 1x1, its norm; then a neck without bias, classes.
    pixels = 18 * 9
    for name, channels in {"conv2": 256, "conv3": 384, "conv4": 512}.items():
        layers = channels * 9 + channels * 512
        assert train[f"student_{name}"]["params"] == layers + 2 * 512 + 512 + 512 * 395
        rows = 4 * pixels if name == "conv2" else pixels  # the stride comes after
        depthwise, pointwise = rows * channels * 9, pixels * channels * 512
        macs = depthwise + pointwise + 512 * 395
        assert train[f"student_{name}"]["macs"] == macs
    more = {"head": 512 * 395, "parts": 11 * 128 * 395}
    for name in test:
        for what in ("params", "macs"):
            assert train[name][what] == test[name][what] + more.get(name, 0)
    init = lambda: init_variables(model, jax.random.key(0))
    params = jax.tree.leaves(jax.eval_shape(init)["params"])
    assert actual["train_params"] == sum(leaf.size for leaf in params)
    outputs = {name: row["output"] for name, row in test.items()}
    assert outputs["conv5"] == (18, 9, 512)
    assert outputs["parts"] == (11, 128)
    json.dumps(actual)


def test_the_command_lists_models_and_names_a_wrong_one():
    done = run_python("-m", "vireid_jax.models", "--json")
    assert json.loads(done.stdout) == models.list_models()
    done = run_python("-m", "vireid_jax.models", "--name", "osnet_x9")
    assert done.returncode == 1
    assert "did you mean osnet_x1_0?" in done.stderr
    assert "Traceback" not in done.stderr


def test_students_are_those_that_were_asked_for():
    model = TwoStreamOSNet(CHANNELS["osnet_x0_25"], 5, students=("conv4",))
    images, views = jnp.zeros((2, 2, 64, 32, 3)), ("visible", "infrared")
    _, out = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images, views, train=True)
    )[0]
    logits = {name for name in out if name.endswith("logits")}
    assert logits == {"logits", "conv4/logits"}


def test_names_and_shapes_of_all_that_comes_out():
    model = TwoStreamOSNet(
        CHANNELS["osnet_x0_25"], 5, granularities=(2, 3, 6), students=STUDENTS
    )
    images = jnp.zeros((2, 3, 288, 144, 3))
    views = ("visible", "visible", "infrared")
    call = lambda train: jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images, views, train=train)
    )
    (embedding, out), _ = call(True)
    assert embedding.shape == (2, 3, 128 + 11 * 128)
    for name in STUDENTS:
        assert out[f"{name}/logits"].shape == (2, 3, 5)
        assert out[f"{name}/pooled"].shape == out["pooled"].shape == (2, 3, 128)
    assert out["parts/logits"].shape == (2, 3, 11, 5)
    assert out["parts/pooled"].shape == (2, 3, 11, 128)


@pytest.mark.slow  # it traces a whole network four times
def test_the_test_graph_has_no_students_and_no_classifiers():
    """It runs without their parameters, and gives what a network without them gives."""
    model = TwoStreamOSNet(
        CHANNELS["osnet_x0_25"], 5, granularities=(2,), students=STUDENTS
    )
    images = jnp.zeros((1, 2, 32, 32, 3))
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    params = variables["params"]
    assert {f"student_{name}" for name in STUDENTS} <= params.keys()
    bare = jax.tree.map(lambda x: x, variables)
    for name in STUDENTS:
        for collection in bare.values():
            del collection[f"student_{name}"]
    del bare["params"]["head"]["classifier"]
    del bare["params"]["parts"]["parts2"]["classifier"]
    trace = lambda model, variables: jax.make_jaxpr(
        lambda v: model.apply(v, images, VIEWS)[0]
    )(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables))
    plain = TwoStreamOSNet(CHANNELS["osnet_x0_25"], granularities=(2,))
    assert str(trace(model, bare)) == str(trace(plain, bare))


# --- Students -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "layers"), [(36, 1), (18, 1), (72, 2)], ids=["conv2", "conv3", "deep"]
)
def test_a_student_reaches_the_deepest_size(height, layers):
    student = Student(5, features=8, height=18)
    x = jnp.zeros((2, height, height // 2, 4))
    _, variables = jax.eval_shape(
        lambda: student.init_with_output(jax.random.key(0), x, VIEWS, True)
    )
    convolutions = [name for name in variables["params"] if name.isdigit()]
    assert len(convolutions) == layers


class Shallow(nn.Module):
    """Maps of four stages by one layer each, students, parts and the deepest head."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train):
        out = {}
        for name in (*STUDENTS, "conv5"):
            x = nn.relu(nn.Dense(8, dtype=self.dtype, name=name)(x))
            if name in STUDENTS:
                student = Student(4, 8, 4, name=f"student_{name}")
                actual = student(x, VIEWS, train)
                out |= {f"{name}/{key}": value for key, value in actual.items()}
        out |= IdentityHead(4, name="head")(x, VIEWS, train)
        actual = PartRelations((2,), 4, name="parts")(x, VIEWS, train)
        return out | {f"parts/{key}": value for key, value in actual.items()}


def shallow_loss(**weights):
    """Return the gradient and the metrics of a loss with these weights alone."""
    config = default_config()
    coefficients = make_coefficients(config)._replace(
        identity=0.0, metric=0.0, infonce=0.0, distillation=0.0, parts=0.0
    )
    coefficients = coefficients._replace(**weights)
    x, labels = normal(8, 4, 2, 3), jnp.array([0, 0, 3, 3])
    variables = variables_of(Shallow(), x, True)

    def loss(params):
        state = {**variables, "params": params}
        out, _ = Shallow().apply(state, x, True, mutable=["batch_stats"])
        out = {k: v.reshape(4, 2, *v.shape[1:]) for k, v in out.items()}
        return total_loss(out, labels, VIEWS, coefficients)

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


def largest(tree):
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


@pytest.mark.slow  # XLA compiles the gradient of four heads
def test_distillation_teaches_students_and_never_the_teacher():
    gradient, metrics = shallow_loss(distillation=1.0)
    for untouched in ("head", "conv5", "parts"):
        assert largest(gradient[untouched]) == 0
    for taught in (*STUDENTS, *(f"student_{name}" for name in STUDENTS)):
        assert largest(gradient[taught]) > 1e-6
    of_each = [metrics[f"loss/{name}"] for name in STUDENTS]
    np.testing.assert_allclose(metrics["loss/distillation"], sum(of_each), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], sum(of_each), rtol=1e-6)
    assert {f"accuracy/{name}" for name in STUDENTS} <= metrics.keys()


@pytest.mark.slow  # XLA compiles the gradient of four heads
def test_parts_teach_the_whole_trunk_and_no_student():
    gradient, metrics = shallow_loss(parts=1.0)
    for taught in ("parts", "conv5", *STUDENTS):
        assert largest(gradient[taught]) > 1e-6
    for untouched in ("head", *(f"student_{name}" for name in STUDENTS)):
        assert largest(gradient[untouched]) == 0
    np.testing.assert_allclose(metrics["loss"], metrics["loss/parts"], rtol=1e-6)


def random_out(stages=()):
    """Return what a network could give for four pairs of images."""
    out = {"parts/logits": normal(4, 2, 3, 5), "parts/pooled": normal(4, 2, 3, 7)}
    out["parts/neck"] = normal(4, 2, 3, 7)
    for name in ("", *(f"{stage}/" for stage in stages)):
        out |= {f"{name}logits": normal(4, 2, 5), f"{name}pooled": normal(4, 2, 6)}
    return jax.tree.map(jnp.asarray, out | {"neck": out["pooled"]})


def test_every_knob_of_students_and_parts_matters():
    out, labels = random_out(STUDENTS), jnp.array([0, 0, 3, 3])
    coefficients = make_coefficients(default_config())
    loss = jax.jit(lambda coefficients: total_loss(out, labels, VIEWS, coefficients)[0])
    for name in ("distillation", "parts", "soft_target", "softness", "imitation"):
        changed = coefficients._replace(**{name: 1.5 * getattr(coefficients, name)})
        assert abs(float(loss(coefficients) - loss(changed))) > 1e-5, name


def test_the_parts_loss_is_identity_of_each_and_metrics_of_all():
    config = default_config()
    out, labels = random_out(), jnp.array([0, 0, 3, 3])
    coefficients = make_coefficients(config)._replace(metric=0.5, infonce=0.25)
    _, metrics = total_loss(out, labels, VIEWS, coefficients, "batch_hard")
    of_rows, modality = jnp.repeat(labels, 2), jnp.tile(jnp.array([0, 1]), 4)
    logits = out["parts/logits"].reshape(8, 3, 5)
    identity = np.mean(
        [losses.cross_entropy(logits[:, i], of_rows, 0.1) for i in range(3)]
    )
    pooled = out["parts/pooled"].reshape(8, 21)
    metric = losses.batch_hard_triplet(pooled, of_rows, modality, 0.3)
    neck = out["parts/neck"].reshape(8, 21)
    infonce = losses.cross_modal_infonce(neck, of_rows, modality, 0.1)
    expected = identity + 0.5 * metric + 0.25 * infonce
    np.testing.assert_allclose(metrics["loss/parts"], expected, 1e-6)


# --- Parts, against loops -------------------------------------------------------------


def normalised(x, params, stats):
    gain = params["scale"] / np.sqrt(stats["var"] + 1e-5)
    return (x - stats["mean"]) * gain + params.get("bias", 0)


def reduced(x, variables, path):
    """Compute relu(BN(W x)) of one part in one granularity, in numpy."""
    params, stats = variables["params"], variables["batch_stats"]
    for name in path:
        params, stats = params[name], stats[name]
    x = x @ params["linear"]["kernel"]
    return np.maximum(normalised(x, params["bn"], stats["bn"]), 0)


def gem(x):
    return (np.maximum(x, 1e-6) ** 3).mean((1, 2)) ** (1 / 3)


def expected_parts(x, count, variables):
    height = x.shape[1]
    cuts = [(i * height // count, -(-(i + 1) * height // count)) for i in range(count)]
    parts = [gem(x[:, a:b]) for a, b in cuts]
    path = ("parts" + str(count), "parts")
    related = []
    for i, part in enumerate(parts):
        rest = sum(other for j, other in enumerate(parts) if j != i) / (count - 1)
        part = reduced(part, variables, (*path, "part"))
        rest = reduced(rest, variables, (*path, "rest"))
        both = np.concatenate([part, rest], axis=1)
        related.append(part + reduced(both, variables, (*path, "relation")))
    return np.stack(related, axis=1)


def test_relations_are_one_versus_rest():
    x = normal(3, 7, 2, 5)  # three stripes of seven rows overlap, as torch cuts them
    module = PartRelations((2, 3), 4)
    variables = variables_of(module, x, VIEWS, True)
    out = jax.jit(lambda v, x: module.apply(v, x, VIEWS, False))(variables, x)
    expected = [expected_parts(x, n, variables) for n in (2, 3)]
    np.testing.assert_allclose(
        out["pooled"], np.concatenate(expected, axis=1), rtol=2e-4, atol=1e-5
    )
    assert "logits" not in out
    first = variables["params"]["parts2"]["neck"], variables["batch_stats"]["parts2"]
    size = expected[0].shape[1] * expected[0].shape[2]
    neck = normalised(expected[0].reshape(3, size), first[0], first[1]["neck"])
    actual = out["neck"][:, : expected[0].shape[1]].reshape(3, size)
    np.testing.assert_allclose(actual, neck, rtol=2e-4, atol=1e-4)


def test_attention_relates_all_parts():
    x = normal(3, 6, 2, 5)
    module = PartRelations((3,), 4, relation="attention")
    variables = variables_of(module, x, VIEWS, True)
    actual = module.apply(variables, jnp.asarray(x), VIEWS, False)["pooled"]
    weights = variables["params"]["parts3"]["attention"]
    path = ("parts3", "part")
    parts = [reduced(gem(x[:, 2 * i : 2 * i + 2]), variables, path) for i in range(3)]
    for i, part in enumerate(parts):
        query = part @ weights["query"]["kernel"]
        scores = [
            (query * (other @ weights["key"]["kernel"])).sum(1) / np.sqrt(128)
            for other in parts
        ]
        share = np.exp(scores - np.max(scores, axis=0))
        share /= share.sum(0)
        taken = sum(
            s[:, None] * (other @ weights["value"]["kernel"])
            for s, other in zip(share, parts, strict=True)
        )
        expected = part + taken @ weights["out"]["kernel"]
        np.testing.assert_allclose(actual[:, i], expected, rtol=1e-3, atol=1e-3)


def test_more_parts_than_rows_are_refused():
    module = PartRelations((2, 6), 4)
    with pytest.raises(
        ValueError, match=r"6 stripes of a map of 4.*granularities to 4"
    ):
        variables_of(module, jnp.zeros((2, 4, 2, 5)), VIEWS, True)


# --- All heads in bfloat16 ------------------------------------------------------------


@pytest.mark.slow  # XLA compiles the gradient of four heads
def test_gradients_are_finite_where_features_coincide_in_bfloat16():
    coefficients = make_coefficients(default_config())._replace(infonce=1.0)
    shallow = Shallow("bfloat16")
    x = normal(8, 4, 2, 3)
    variables = jax.tree.map(np.float32, variables_of(shallow, x, True))

    @jax.jit
    def slope(x, labels):
        def loss(params):
            out, _ = shallow.apply(
                {**variables, "params": params}, x, True, mutable=["batch_stats"]
            )
            out = {k: v.reshape(4, 2, *v.shape[1:]) for k, v in out.items()}
            loss, metrics = total_loss(out, labels, VIEWS, coefficients)
            assert {v.dtype for v in metrics.values()} == {jnp.dtype("float32")}
            return loss

        return jax.value_and_grad(loss)(variables["params"])

    same = np.broadcast_to(x[:1], x.shape)
    for maps in (x, same, 0 * x):  # different, identical, zero
        # K = 1; one identity, K = 4; two of each.
        for labels in ([0, 1, 2, 3], [3, 3, 3, 3], [0, 0, 1, 1]):
            loss, gradient = slope(maps, jnp.array(labels))
            assert np.isfinite(loss)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
