"""Networks: sizes, two streams, norms, options."""

import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.tree_util import DictKey, tree_map_with_path

from vireid_jax import models
from vireid_jax.modality import MODALITIES
from vireid_jax.models.build import init_variables
from vireid_jax.models.heads import stripes
from vireid_jax.models.osnet import STAGES
from vireid_jax.models.views import check_images, columns_by_modality

FOLDER = Path(__file__).parent / "golden"
COMPLEXITY = json.loads((FOLDER / "osnet.json").read_text())["complexity"]
THREE_VIEWS = ("visible", "visible", "infrared")


@functools.cache
def shapes_of(model):
    return jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))


def random_variables(model, seed=0):
    """Fill a network's variables with numbers that leave no part idle."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        z = rng.standard_normal(leaf.shape)
        match path[-1]:
            case DictKey("kernel"):
                z = z / np.sqrt(np.prod(leaf.shape[:-1]))
            case DictKey("scale"):
                z = 1 + 0.2 * z
            case DictKey("var"):
                z = np.exp(0.2 * z)
            case _:
                z = 0.1 * z
        return jnp.asarray(z, leaf.dtype)

    return tree_map_with_path(fill, shapes_of(model))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# --- Sizes ----------------------------------------------------------------------------


def parameters(name, k, separate_norm=False, num_classes=None):
    """Count the parameters of the stages and of the head."""
    model = models.create(
        name,
        num_classes=num_classes,
        num_specific_stages=k,
        separate_norm=separate_norm,
    )
    params = dict(shapes_of(model)["params"])
    head = params.pop("head")
    return count(params), count(head)


@pytest.mark.parametrize("name", COMPLEXITY)
def test_parameter_counts_of_every_width_are_the_published_ones(name):
    reference = COMPLEXITY[name]
    base = reference["params_without_classifier_and_fc"]
    width = reference["channels"][-1]
    stages, head = parameters(name, 1, num_classes=395)
    assert stages == base + reference["stages"]["conv1"]["params"]
    assert head == width + 395 * width  # the neck's scale, the classifier


@pytest.mark.slow  # it traces a whole network six times
def test_parameter_counts_by_number_of_specific_stages():
    counts = [round(parameters("osnet_x1_0", k)[0] / 1e6, 3) for k in range(6)]
    assert counts == [1.906, 1.915, 2.150, 2.742, 3.548, 3.812]


@pytest.mark.parametrize("k", [0, 3])
def test_separate_norms_are_a_second_copy_of_the_shared_stages_norms(k):
    reference = COMPLEXITY["osnet_x0_25"]["stages"]
    # A batch norm has as many running numbers as parameters.
    extra = sum(reference[stage]["buffers"] for stage in STAGES[k:])
    plain, head = parameters("osnet_x0_25", k)
    assert parameters("osnet_x0_25", k, separate_norm=True) == (plain + extra, head)


@pytest.mark.parametrize("create", [models.create, models.create_single])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 2, 32, 32, 3), "uint8"),
        ((2, 2, 32, 32, 1), "float32"),  # one channel
        ((2, 2, 3, 32, 32), "float32"),  # as torch has them
        ((2, 32, 32, 3), "float32"),  # no views
        ((2, 3, 32, 32, 3), "float32"),  # three columns, two views
    ],
)
def test_invalid_images_are_refused(create, shape, dtype):
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)) as caught:
        create("osnet_x0_25").init(
            jax.random.key(0), jnp.zeros(shape, dtype), MODALITIES
        )
    if isinstance(caught.value, jaxtyping.TypeCheckError):  # in these tests alone
        with pytest.raises(ValueError, match=r"networks? takes normalised floats"):
            check_images(jnp.zeros(shape, dtype), MODALITIES)
    else:
        assert f"images are {dtype} {shape}" in str(caught.value)


@pytest.mark.parametrize("views", [("visible", "thermal"), ("infrared", "visible")])
def test_views_of_another_name_or_order_are_refused(views):
    with pytest.raises(ValueError, match="must list"):
        models.create("osnet_x0_25").init(
            jax.random.key(0), jnp.zeros((1, 2, 32, 32, 3)), views
        )


# --- Two streams ----------------------------------------------------------------------


def images_of(batch, views, seed=0):
    """Draw images whose statistics differ from view to view."""
    x = np.random.default_rng(seed).standard_normal((batch, len(views), 32, 32, 3))
    offset = np.arange(len(views)).reshape(-1, 1, 1, 1)
    return jnp.asarray((1 + 0.3 * offset) * x + 0.5 * offset, jnp.float32)


@pytest.mark.slow  # XLA compiles a whole network, more than once
def test_an_image_goes_through_its_own_stream_and_no_other():
    model = models.create(
        "osnet_x0_25",
        num_specific_stages=1,
        separate_norm=True,
        neck_norm="per_modality",
    )
    variables = random_variables(model)
    forward = jax.jit(lambda v, x, views: model.apply(v, x, views)[0], static_argnums=2)
    images = images_of(2, THREE_VIEWS)
    together = forward(variables, images, THREE_VIEWS)
    assert together.shape == (2, 3, 128)
    for column, modality in enumerate(THREE_VIEWS):
        alone = forward(variables, images[:, column : column + 1], (modality,))
        np.testing.assert_allclose(together[:, column], alone[:, 0], atol=1e-5)
    # The same images through the other stream are embedded otherwise.
    other = forward(variables, images[:, 2:], ("visible",))
    assert np.abs(other[:, 0] - together[:, 2]).max() > 0.01


def statistics(x):
    """Return what one step from mean 0, variance 1 leaves behind, as torch counts."""
    x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return {"mean": 0.1 * x.mean(0), "var": 0.9 + 0.1 * x.var(0, ddof=1)}


@pytest.mark.slow  # XLA compiles a whole network each time
@pytest.mark.parametrize(
    ("k", "separate_norm", "neck_norm"),
    [(0, False, "shared"), (1, True, "per_modality"), (5, False, "shared")],
)
def test_batch_statistics_are_of_the_modalities_that_share_a_norm(
    k, separate_norm, neck_norm
):
    model = models.create(
        "osnet_x0_25",
        num_classes=7,
        num_specific_stages=k,
        separate_norm=separate_norm,
        neck_norm=neck_norm,
    )
    variables = random_variables(model)
    fresh = lambda path, x: (
        jnp.ones_like if path[-1].key == "var" else jnp.zeros_like
    )(x)
    variables["batch_stats"] = tree_map_with_path(fresh, variables["batch_stats"])
    images = images_of(3, THREE_VIEWS)
    (embedding, out), new = jax.jit(
        lambda v, x: model.apply(v, x, THREE_VIEWS, train=True, mutable=["batch_stats"])
    )(variables, images)
    params, stats = variables["params"], new["batch_stats"]
    columns = {"visible": slice(0, 2), "infrared": slice(2, 3)}
    everything = {"": slice(0, 3)}

    def check(layer, own, norm, separate):
        """Compare the running statistics of `norm`, one or one a modality."""
        for modality, view in (columns if separate else everything).items():
            name = f"{norm}_{modality}" if modality else norm
            expected = statistics(layer[:, view])
            for leaf in ("mean", "var"):
                actual = own[name][leaf]
                np.testing.assert_allclose(actual, expected[leaf], rtol=2e-4, atol=2e-5)
        assert len([n for n in own if n.startswith(norm)]) == (2 if separate else 1)

    # conv1's input to its norm, by XLA's own convolution.
    for modality, view in columns.items() if k else everything.items():
        stream = modality or "shared"
        kernel = params[stream]["conv1"]["conv"]["kernel"]
        rows = images[:, view].reshape(-1, 32, 32, 3)
        before = jax.lax.conv_general_dilated(
            rows,
            kernel,
            (2, 2),
            [(3, 3)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        own = stats[stream]["conv1"]
        check(before.reshape(3, -1, *before.shape[1:]), own, "bn", False)

    # conv5's input to its norm: a product with the last map.
    if k < 5:
        kernel = params["shared"]["conv5"]["conv"]["kernel"][0, 0]
        check(out["conv4"] @ kernel, stats["shared"]["conv5"], "bn", separate_norm)
    else:
        for modality, view in columns.items():
            kernel = params[modality]["conv5"]["conv"]["kernel"][0, 0]
            before = out["conv4"][:, view] @ kernel
            expected = statistics(before)
            actual = stats[modality]["conv5"]["bn"]
            np.testing.assert_allclose(actual["mean"], expected["mean"], atol=2e-5)
            np.testing.assert_allclose(actual["var"], expected["var"], rtol=2e-4)

    # The head.
    check(out["pooled"], stats["head"], "neck", neck_norm == "per_modality")
    for modality, view in (
        columns if neck_norm == "per_modality" else everything
    ).items():
        scale = params["head"][f"neck_{modality}" if modality else "neck"]["scale"]
        x = np.asarray(out["pooled"][:, view], np.float64)
        axes = (0, 1)
        neck = scale * (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
        np.testing.assert_allclose(out["neck"][:, view], neck, rtol=1e-3, atol=1e-3)
    logits = out["neck"] @ params["head"]["classifier"]["kernel"]
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-4)
    length = np.linalg.norm(embedding, axis=-1)
    np.testing.assert_allclose(length, 1, rtol=1e-5)


def test_columns_are_visible_ones_first():
    assert columns_by_modality(THREE_VIEWS) == {
        "visible": slice(0, 2),
        "infrared": slice(2, 3),
    }
    assert columns_by_modality(("infrared",)) == {"infrared": slice(0, 1)}


@pytest.mark.parametrize(("height", "count"), [(12, 6), (7, 3), (5, 5), (9, 1), (4, 0)])
def test_stripes_are_the_bins_of_adaptive_pooling(height, count):
    rows = jnp.arange(height).reshape(1, height, 1, 1) * 1.0
    for i, stripe in enumerate(actual := stripes(rows, count, "key")):
        first, last = (
            math.floor(i * height / count),
            math.ceil((i + 1) * height / count),
        )
        assert stripe[0, :, 0, 0].tolist() == list(range(first, last))
    assert len(actual) == count
    with pytest.raises(ValueError, match=rf"{height + 1} stripes .* {height} rows"):
        stripes(rows, height + 1, "key")


# --- Options --------------------------------------------------------------------------


def initial(model, *paths):
    """Draw some of the initial parameters; the compiler drops all others."""

    def pick():
        leaves = jax.tree_util.tree_leaves_with_path(
            init_variables(model, jax.random.key(0))["params"]
        )
        leaves = {"/".join(key.key for key in path): leaf for path, leaf in leaves}
        return {k: v for k, v in leaves.items() if any(k.endswith(p) for p in paths)}

    return jax.device_get(jax.jit(pick)())


@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_residual_starts_every_block_as_its_shortcut(zero):
    model = models.create("osnet_x0_25", zero_init_residual=zero)
    scales = initial(model, "/scale")
    zeros = {path for path, scale in scales.items() if (scale == 0).all()}
    assert all((scales[path] == 1).all() for path in scales.keys() - zeros)
    last = {path for path in scales if path.endswith("/conv3/bn/scale")}
    assert len(last) == 6  # two blocks in each of conv2, conv3 and conv4
    assert zeros == (last if zero else set())


def test_kernels_are_drawn_as_torch_draws_them():
    model = models.create("osnet_x1_0")
    stem, depthwise = "/conv1/conv/kernel", "conv4/1/conv2d/3/conv2/kernel"
    drawn = initial(model, stem, depthwise, "shared/conv5/conv/kernel")
    # Kaiming normal, fan out: variance 2 / (height x width x out).
    deviation = {path: kernel.std() for path, kernel in drawn.items()}
    assert deviation.pop("shared/conv5/conv/kernel") == pytest.approx(
        (2 / 512) ** 0.5, rel=0.02
    )
    assert deviation.pop(f"shared/{depthwise}") == pytest.approx(
        (2 / (9 * 128)) ** 0.5, rel=0.1
    )
    streams = [f"{modality}{stem}" for modality in MODALITIES]
    for path in streams:
        assert deviation[path] == pytest.approx((2 / (49 * 64)) ** 0.5, rel=0.05)
    assert (drawn[streams[0]] != drawn[streams[1]]).any()


@pytest.mark.slow  # it traces a whole network four times
def test_a_test_network_needs_no_classifier():
    trained = models.create("osnet_x0_25", num_classes=9)
    variables = random_variables(trained)
    assert variables["params"]["head"].pop("classifier")["kernel"].shape == (128, 9)
    bare = models.create("osnet_x0_25")
    assert jax.tree.structure(shapes_of(bare)) == jax.tree.structure(variables)
    for model in (trained, bare):
        _, out = jax.eval_shape(
            lambda v, x, model=model: model.apply(v, x, MODALITIES),
            variables,
            images_of(2, MODALITIES),
        )
        assert "logits" not in out


@pytest.mark.slow  # XLA compiles a whole network, more than once
def test_bfloat16_computes_narrow_and_embeds_in_float32():
    narrow = models.create("osnet_x0_25", num_classes=5, dtype="bfloat16")
    wide = models.create("osnet_x0_25", num_classes=5)
    variables = random_variables(narrow)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images = images_of(2, MODALITIES)

    @jax.jit
    def forward(variables, images):
        return [model.apply(variables, images, MODALITIES) for model in (narrow, wide)]

    (actual, out), (expected, _) = forward(variables, images)
    assert all(out[stage].dtype == jnp.bfloat16 for stage in STAGES)
    assert actual.dtype == out["pooled"].dtype == out["neck"].dtype == jnp.float32
    assert ((actual * expected).sum(-1) > 0.99).all()
    _, out = jax.eval_shape(
        lambda v, x: narrow.apply(v, x, MODALITIES, True, mutable=["batch_stats"])[0],
        variables,
        images,
    )
    assert out["logits"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "options", "hint"),
    [
        ("osnet_x1", {}, r"'osnet_x1'.*did you mean osnet_x1_0.*osnet_x0_25"),
        ("resnet50", {}, "'resnet50'.*osnet_x1_0"),
        ("osnet_x1_0", {"num_specific_stages": 6}, r"num_specific_stages is 6.*0, .*5"),
        ("osnet_x1_0", {"neck_norm": "both"}, "neck_norm is 'both'.*per_modality"),
        ("osnet_x1_0", {"students": ("conv1",)}, "students is 'conv1'.*conv2.*conv4"),
        ("osnet_x1_0", {"dtype": "float16"}, "dtype is 'float16'.*bfloat16"),
    ],
)
def test_wrong_options_name_the_valid_ones(arguments, options, hint):
    with pytest.raises(ValueError, match=hint):
        models.create(arguments, **options)
