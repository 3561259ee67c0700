"""OSNet and its variants: torch's numbers, names and sizes; multiply-accumulates."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from osnet_reference import (
    CLASSES,
    FOLDER,
    KEYS,
    golden_images,
    leaves_of,
    recipe,
    shapes_of,
    with_torch_weights,
    zeros_of,
)

from vireid_jax import models
from vireid_jax.config import default_config
from vireid_jax.losses import cross_entropy
from vireid_jax.modality import MODALITIES
from vireid_jax.models.build import init_variables
from vireid_jax.models.norm import InstanceNorm, norm
from vireid_jax.models.osnet import STAGES, OSBlock
from vireid_jax.training.checkpoint import Checkpoints
from vireid_jax.training.state import TrainState
from vireid_jax.training.step import make_coefficients, make_embed_step, total_loss
from vireid_jax.weights import pretrained

slow = pytest.mark.slow  # XLA compiles another whole network


def as_stored(ours, theirs):
    """Order axes as torch, and take the part of a map that the golden file holds."""
    ours = np.moveaxis(ours, -1, 1)
    steps = [n // m for n, m in zip(ours.shape, theirs.shape, strict=True)]
    return ours[tuple(slice(None, None, step) for step in steps)]


# --- The same numbers as torch --------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["osnet_x0_25", "osnet_ain_x0_25", "osnet_x1_0", "osnet_ibn_x1_0"]
)
@slow
def test_stages_and_feature_are_those_of_torch(name):
    golden = dict(np.load(FOLDER / f"{name}_stages.npz"))
    # Stored in float32; the base's were computed in it too, the variants' in float64.
    variant = name in ("osnet_ain_x0_25", "osnet_ibn_x1_0")
    tolerance = (
        {"rtol": 1e-7, "atol": 1e-9} if variant else {"rtol": 1e-4, "atol": 1e-5}
    )
    stem_norm = lambda module, _: module.path == ("shared", "conv1", "bn")
    with jax.enable_x64(True):
        model = models.create_single(name, num_classes=CLASSES, dtype="float64")
        variables = with_torch_weights(model, name)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)

        @jax.jit
        def forward(variables, images):
            return model.apply(
                variables,
                images,
                capture_intermediates=stem_norm,  # our conv1 ends with the max-pool
                mutable=["intermediates"],
            )

        actual = jax.device_get(forward(variables, golden_images(name)))
        classifier = jax.device_get(variables["params"]["classifier"])
    (feature, out), inside = actual
    stem = inside["intermediates"]["shared"]["conv1"]["bn"]["__call__"][0]
    feature = feature[:, 0]
    actual = {stage: out[stage][:, 0] for stage in (*STAGES[1:], "pooled")} | {
        "conv1": np.maximum(stem, 0),
        "maxpool": out["conv1"][:, 0],
        "fc": feature,
        "logits": feature @ classifier["kernel"] + classifier["bias"],
    }
    for stage, theirs in golden.items():
        ours = as_stored(actual[stage], theirs)
        np.testing.assert_allclose(ours, theirs, err_msg=stage, **tolerance)
    exact = {"osnet_x0_25": np.load(FOLDER / "osnet_x0_25_fc_f64.npz")["fc"]}
    if variant:
        exact[name] = golden["fc"]
    if name in exact:
        np.testing.assert_allclose(feature, exact[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=slow) for name in ("osnet_ain_x0_25", "osnet_x0_25")],
)
def test_both_streams_are_torch_osnet(name):
    golden = np.load(FOLDER / f"{name}_stages.npz")
    model = models.create(name, num_specific_stages=2, separate_norm=True)
    variables = with_torch_weights(model, name)
    images = np.concatenate([golden_images(name)] * 2, axis=1)
    out = jax.jit(lambda v, x: model.apply(v, x, MODALITIES)[1])(variables, images)
    for stage in STAGES[1:]:
        theirs = golden[stage]
        for view in (0, 1):
            ours = as_stored(out[stage][:, view], theirs)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # XLA compiles a whole training step, in float64
def test_a_training_step_has_torch_gradients_and_statistics(tmp_path):
    golden = dict(np.load(FOLDER / "osnet_x0_25_train.npz"))
    images = np.random.RandomState(20240602).standard_normal((8, 3, 64, 32))
    images = images.astype(np.float32).astype(np.float64).transpose(0, 2, 3, 1)
    with jax.enable_x64(True):
        model = models.create_single(
            "osnet_x0_25", num_classes=CLASSES, dtype="float64"
        )
        variables = with_torch_weights(model, "osnet_x0_25")
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)

        @jax.jit
        def loss_and_gradients(params):
            def loss_fn(params):
                (_, out), new = model.apply(
                    {**variables, "params": params},
                    jnp.asarray(images)[:, None],
                    train=True,
                    mutable=["batch_stats"],
                )
                logits = out["logits"][:, 0]
                loss = cross_entropy(logits, jnp.asarray(golden["labels"]), 0.0)
                return loss, (logits, out["neck"][:, 0], new)

            return jax.value_and_grad(loss_fn, has_aux=True)(params)

        actual = jax.device_get(loss_and_gradients(variables["params"]))
    (loss, (logits, feature, new)), gradients = actual

    path = tmp_path / "gradients.safetensors"
    pretrained.write_weights(path, {"params": gradients, **new}, {})
    actual, _ = pretrained.read_weights(str(path))
    actual["classifier.weight"] = actual["classifier.weight"][::16]  # as stored
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-10)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(feature, golden["feat"], rtol=1e-8, atol=1e-8)
    compared = [key for key in golden if key.startswith(("grad/", "buffer/"))]
    assert len(compared) == 12 + 6
    for key in compared:
        ours, theirs = actual[key.split("/")[1]], golden[key]
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=1e-8 * scale, rtol=0, err_msg=key)


# --- Names ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEYS)
def test_a_file_has_the_names_and_layouts_of_torch(name, tmp_path):
    path = tmp_path / "weights.safetensors"
    model = models.create_single(name, num_classes=CLASSES)
    pretrained.write_weights(path, zeros_of(model), {})
    tensors, _ = pretrained.read_weights(str(path))
    assert {key: list(x.shape) for key, x in tensors.items()} == KEYS[name]


TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ain_x0_25", "osnet_ibn_x1_0"])
def test_every_copy_of_a_layer_gets_the_same_tensor(name):
    model = models.create(name, num_specific_stages=2, separate_norm=True)
    tensors, actual = recipe(name), leaves_of(with_torch_weights(model, name))
    seen = {}
    for path, leaf in actual.items():
        _, stream, *layers, last = path.split("/")
        if stream == "head":
            continue
        key = ".".join([*layers, TORCH_LEAVES[last]])
        for modality in MODALITIES:
            key = key.replace(f"_{modality}.", ".")
        expected = tensors[key]
        if expected.ndim == 4:
            expected = expected.transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(leaf, expected)
        seen[key] = seen.get(key, 0) + 1
    head = ("fc.", "classifier.")
    assert seen.keys() == {key for key in tensors if not key.startswith(head)}
    # Two of every layer of conv1 and conv2; behind them, of every norm.
    first, norms = ("conv1.", "conv2.", "pool2."), (".bn.", ".IN.")
    for key, number in seen.items():
        twice = key.startswith(first) or any(norm in key for norm in norms)
        assert number == (2 if twice else 1), key


def test_a_checkpoint_keeps_the_names_of_numbered_branches(tmp_path):
    block = OSBlock(64, numbered=True)
    x = jnp.zeros((1, 4, 4, 16))
    start = lambda: block.init(jax.random.key(0), x, None, True)
    variables = jax.tree.map(lambda x: np.full(x.shape, x.size), jax.eval_shape(start))
    assert "conv2.3.layers" in variables["params"]
    checkpoints = Checkpoints(tmp_path, validated=False)
    checkpoints.save(TrainState(jnp.int32(1), **variables, opt_state={}), {}, {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, read_only=True, validated=False)
    actual = checkpoints.restore_model(1)
    checkpoints.close()
    assert jax.tree.structure(actual) == jax.tree.structure(variables)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), actual, variables))


# --- Instance norms -------------------------------------------------------------------


@pytest.mark.parametrize("per_modality", [False, True])
def test_an_instance_norm_is_of_each_image_and_has_its_modalitys_scale(per_modality):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            views = ("visible", "visible", "infrared")
            views = views if per_modality else None
            return norm(x, views, True, layer=InstanceNorm, name="IN")

    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5, 4, 3)).astype(np.float32)
    x[2, :, :, 1] += 1e3  # whose square would swallow the variance
    params = Layer().init(jax.random.key(0), jnp.asarray(x))["params"]
    names = [f"IN_{m}" for m in MODALITIES] if per_modality else ["IN"]
    assert sorted(params) == sorted(names)
    fill = lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype)
    params = jax.tree.map(fill, params)
    actual = Layer().apply({"params": params}, jnp.asarray(x))
    for row, image in enumerate(np.float64(x)):
        own = params[names[-1] if row % 3 == 2 else names[0]]
        expected = (image - image.mean((0, 1))) / np.sqrt(image.var((0, 1)) + 1e-5)
        expected = expected * own["scale"] + own["bias"]
        np.testing.assert_allclose(actual[row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "exits"),
    [
        (
            "osnet_ain_x0_25",
            {
                *("conv2/0/IN", "conv2/1/IN", "conv3/0/conv3/bn"),
                *("conv3/1/IN", "conv4/0/IN", "conv4/1/conv3/bn"),
            },
        ),
        (
            "osnet_ibn_x1_0",
            {f"conv{stage}/{i}/conv3/bn" for stage in (2, 3, 4) for i in (0, 1)},
        ),
    ],
)
def test_zero_init_residual_zeroes_the_norm_at_each_exit(name, exits):
    model = models.create_single(name, zero_init_residual=True)

    @jax.jit  # the compiler drops all but the scales
    def scales():
        actual = leaves_of(init_variables(model, jax.random.key(0))["params"])
        return {path: x for path, x in actual.items() if path.endswith("/scale")}

    zeros = {path for path, scale in scales().items() if (scale == 0).all()}
    assert zeros == {f"shared/{path}/scale" for path in exits}


# --- The single network, called as all others -----------------------------------------


@slow
def test_what_takes_a_network_takes_the_single_one():
    model = models.create_single("osnet_x0_25", num_classes=5, dtype="bfloat16")
    variables = shapes_of(model)
    embed = make_embed_step(model, "infrared", flip=True)
    images = jnp.zeros((3, 64, 32, 3), jnp.uint8)
    params = {k: v for k, v in variables["params"].items() if k != "classifier"}
    embedding = jax.eval_shape(embed, {**variables, "params": params}, images)
    assert (embedding.shape, embedding.dtype) == ((3, 512), jnp.float32)

    def loss(variables, images):
        (_, out), _ = model.apply(
            variables, images, MODALITIES, train=True, mutable=["batch_stats"]
        )
        coefficients = make_coefficients(default_config())
        return total_loss(out, jnp.zeros(3, jnp.int32), MODALITIES, coefficients), out

    images = jnp.zeros((3, 2, 64, 32, 3))
    (value, _), out = jax.eval_shape(loss, variables, images)
    assert value.shape == ()
    assert out["conv5"].dtype == jnp.bfloat16
    assert out["logits"].shape == (3, 2, 5)
    assert out["logits"].dtype == out["neck"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("osnet_ain_x0.25", {}, "did you mean osnet_ain_x0_25"),
        ("osnet_ibn_x0_25", {}, "did you mean osnet_.*osnet_ibn_x1_0"),
        ("osnet_x0_25", {"dtype": "float16"}, "dtype is 'float16'.*bfloat16"),
    ],
)
def test_wrong_options_of_the_single_network_name_the_valid_ones(name, options, hint):
    with pytest.raises(ValueError, match=hint):
        models.create_single(name, **options)
