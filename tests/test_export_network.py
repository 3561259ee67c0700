"""Exported networks, and the weights folded for them, against those of `models`."""

from collections import Counter

import jax
import numpy as np
import onnxruntime
import pytest

from vireid_jax import models
from vireid_jax.embed.embedder import Embedder
from vireid_jax.export import runtimes
from vireid_jax.export.folding import fold
from vireid_jax.export.formats import write
from vireid_jax.export.graph import onnx_model
from vireid_jax.models.build import init_variables
from vireid_jax.models.self_distillation import STUDENTS
from vireid_jax.training.step import make_embed_step

SIZE = (64, 32)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
DRAWN = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "mean": (-0.1, 0.1)}
DRAWN |= {"bias": (-0.1, 0.1)}


def draw(model):
    """Draw float64 variables; norms get scales, shifts and statistics of some use."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))

    def fill(path, shape):
        if limits := DRAWN.get(path[-1].key):
            return rng.uniform(*limits, shape.shape)
        deviation = (2 / np.prod(shape.shape[:-1])) ** 0.5
        return rng.normal(0, deviation, shape.shape)

    return jax.tree_util.tree_map_with_path(fill, shapes)


KINDS = {
    # As much as one network can have, so that few need to be compiled.
    "ain": (
        "osnet_ain_x0_25",
        {"separate_norm": True, "neck_norm": "per_modality", "num_stripes": 3},
    ),
    "parts": ("osnet_x0_25", {"granularities": (2, 4), "students": STUDENTS}),
}
SLOW = {
    "plain": ("osnet_x0_25", {"num_specific_stages": 0}),
    "two networks": ("osnet_x0_25", {"num_specific_stages": 5}),
    "ibn": ("osnet_ibn_x1_0", {"num_specific_stages": 2}),
    "own necks": (
        "osnet_x0_25",
        {"granularities": (2, 3), "neck_norm": "per_modality"},
    ),
    "attention": ("osnet_x0_25", {"granularities": (3,), "relation": "attention"}),
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(pytest.param(*kind, id=id) for id, kind in KINDS.items()),
        *(
            pytest.param(*kind, id=id, marks=pytest.mark.slow)  # as the two above
            for id, kind in SLOW.items()
        ),
    ],
)
def test_the_graph_of_every_kind_of_network_is_the_same_as_in_float64(name, options):
    model = models.create(name, num_classes=5, dtype="float64", **options)
    with jax.enable_x64(True):
        variables = draw(model)
        step = make_embed_step(model, "infrared", flip=True)
        expected = np.asarray(jax.jit(step)(variables, IMAGES))
    model = models.create(name, num_classes=5, **options)
    small = jax.tree.map(np.float32, variables)
    embedder = Embedder(model, small, size=SIZE, batch_size=4, feature="all")
    content = onnx_model(embedder, ["infrared"], {}).SerializeToString()
    session = onnxruntime.InferenceSession(content)
    for count in (1, 3):
        (found,) = session.run(None, {"images": IMAGES[:count]})
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=2e-6)


class TestFolding:
    @pytest.fixture
    def variables(self):
        """A stem of its own, a shared stage with two norms, and a neck."""
        rng = np.random.default_rng(0)
        draw = lambda *shape: rng.normal(size=shape)
        norm = lambda: {"scale": draw(4), "bias": draw(4)}
        seen = lambda: {"mean": draw(4), "var": rng.uniform(0.5, 2, 4)}
        conv = lambda: {"kernel": draw(1, 1, 3, 4)}
        return {
            "params": {
                "visible": {"conv1": {"conv": conv(), "bn": norm()}},
                "infrared": {"conv1": {"conv": conv(), "bn": norm()}},
                "shared": {
                    "conv5": {
                        "conv": {"kernel": draw(1, 1, 4, 4)},
                        "bn_visible": norm(),
                        "bn_infrared": norm(),
                    }
                },
                "head": {"neck": {"scale": draw(4)}, "classifier": {"kernel": draw(4)}},
                "student_conv2": {"head": {"neck": {"scale": draw(4)}}},
            },
            "batch_stats": {
                "visible": {"conv1": {"bn": seen()}},
                "infrared": {"conv1": {"bn": seen()}},
                "shared": {"conv5": {"bn_visible": seen(), "bn_infrared": seen()}},
                "head": {"neck": seen()},
                "student_conv2": {"head": {"neck": seen()}},
            },
        }

    @pytest.mark.parametrize("modality", ["visible", "infrared"])
    def test_a_chain_of_layers_by_hand(self, variables, modality):
        params, stats = variables["params"], variables["batch_stats"]
        x = np.random.default_rng(1).normal(size=(6, 3))

        def normalise(x, norm, seen):
            x = (x - seen["mean"]) / np.sqrt(seen["var"] + 1e-5)
            return x * norm["scale"] + norm.get("bias", 0)

        own = params[modality]["conv1"]
        y = x @ own["conv"]["kernel"][0, 0]
        y = normalise(y, own["bn"], stats[modality]["conv1"]["bn"])
        last, name = params["shared"]["conv5"], f"bn_{modality}"
        y = y @ last["conv"]["kernel"][0, 0]
        y = normalise(y, last[name], stats["shared"]["conv5"][name])
        y = normalise(y, params["head"]["neck"], stats["head"]["neck"])

        folded = fold(variables, modality)
        for stage in ("conv1", "conv5"):
            x = x @ folded[f"{stage}/conv/kernel"][0, 0] + folded[f"{stage}/conv/bias"]
        x = x * folded["head/neck/scale"] + folded["head/neck/bias"]
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-13)

    def test_nothing_is_left_that_an_image_does_not_meet(self, variables):
        assert set(fold(variables, "visible")) == {
            "conv1/conv/kernel",
            "conv1/conv/bias",
            "conv5/conv/kernel",
            "conv5/conv/bias",
            "head/neck/scale",
            "head/neck/bias",
        }


@pytest.fixture(scope="module")
def embedder():
    model = models.create("osnet_x0_25")
    variables = jax.tree.map(np.float32, draw(model))
    return Embedder(model, variables, size=SIZE, flip=True, batch_size=4)


class TestGraph:
    def test_it_holds_what_runtimes_are_fast_at(self, embedder):
        model = onnx_model(embedder, ["visible"], {"about": "a test"})
        kinds = Counter(node.op_type for node in model.graph.node)
        paths = fold(embedder.variables, "visible")
        kernels = [path for path in paths if path.endswith("kernel")]
        gates = [path for path in kernels if "/gate/" in path]
        assert kinds["Conv"] == len(kernels) + 3 * len(gates)  # one for four branches
        assert kinds["MaxPool"] == 1
        assert kinds["AveragePool"] == 2
        assert kinds["Transpose"] == 1  # of the image, once
        assert not {"BatchNormalization", "Pad", "Einsum", "Reshape"} & set(kinds)
        groups = {
            attribute.i
            for node in model.graph.node
            for attribute in node.attribute
            if attribute.name == "group"
        }
        assert groups == {1, 16, 24, 32}  # depthwise: a quarter of a stage's channels
        shape = model.graph.input[0].type.tensor_type.shape.dim
        assert shape[0].dim_param == "batch"
        assert [one.dim_value for one in shape[1:]] == [*SIZE, 3]
        assert model.metadata_props[0].value == "a test"

    @pytest.mark.slow  # two networks, traced and written
    def test_both_streams_share_the_weights_that_are_the_same(self, embedder):
        one = onnx_model(embedder, ["visible"], {"about": "a test"})
        both = onnx_model(embedder, ["visible", "infrared"], {})
        names = lambda model: {weight.name for weight in model.graph.initializer}
        assert names(both) - names(one) == {"conv1/conv/kernel'", "conv1/conv/bias'"}
        session = onnxruntime.InferenceSession(both.SerializeToString())
        given = {"visible": IMAGES, "infrared": IMAGES[:1]}
        for modality, found in zip(given, session.run(None, given), strict=True):
            expected = embedder.embed(given[modality], modality)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_openvino_gives_the_same(self, embedder, tmp_path):
        path = tmp_path / "visible.onnx"
        path.write_bytes(
            onnx_model(embedder, ["visible"], {"about": "a test"}).SerializeToString()
        )
        run = runtimes.in_openvino(path, ("visible",))
        for count in (1, 3):
            (found,) = run([IMAGES[:count]])
            expected = embedder.embed(IMAGES[:count], "visible")
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_a_black_image_gives_finite_numbers(self, embedder):
        session = onnxruntime.InferenceSession(
            onnx_model(embedder, ["visible"], {"about": "a test"}).SerializeToString()
        )
        (found,) = session.run(None, {"images": np.zeros((1, *SIZE, 3), np.uint8)})
        np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-5)


@pytest.mark.slow  # compiles once more, for a number of images not known
def test_jax_exports_for_any_number_of_images_and_three_platforms(tmp_path):
    model = models.create("osnet_x0_25", granularities=(2,))
    variables = jax.tree.map(np.float32, draw(model))
    embedder = Embedder(model, variables, size=SIZE, batch_size=4, feature="all")
    files = write(embedder, "jax", tmp_path, "separate", {})
    content = files.paths["visible",].read_bytes()
    exported = jax.export.deserialize(bytearray(content))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    for count in (1, 3):
        np.testing.assert_allclose(
            exported.call(IMAGES[:count]),
            embedder.embed(IMAGES[:count], "visible"),
            rtol=0,
            atol=1e-5,
        )
