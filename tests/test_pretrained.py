"""Weights in torch's names and layouts: written, read, inserted, or refused."""

import jax
import numpy as np
import pytest
from osnet_reference import KEYS, leaves_of
from safetensors.numpy import load_file, save_file

from vireid_jax import models
from vireid_jax.models.build import init_variables
from vireid_jax.weights import pretrained


def variables_of(seed=0, create=models.create, num_classes=3, **options):
    """Fill a network with numbers, so that no two leaves are alike."""
    model = create("osnet_x0_25", num_classes=num_classes, **options)
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    fill = lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype)
    return jax.tree.map(fill, shapes)


@pytest.fixture(scope="module")
def plain():
    return variables_of(num_specific_stages=0)


@pytest.fixture(scope="module")
def written(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    pretrained.write_weights(path, plain, {"data": "walkers", "epochs": "20"})
    return path


def test_a_file_has_the_names_and_layouts_of_torch(written):
    expected = {
        key: tuple(shape)
        for key, shape in KEYS["osnet_x0_25"].items()
        if not key.startswith(("fc.", "classifier."))
    }
    tensors = load_file(written)
    assert {key: x.shape for key, x in tensors.items()} == expected


def test_what_was_written_comes_back_with_its_description(written, plain):
    tensors, about = pretrained.read_weights(str(written))
    assert about == {"data": "walkers", "epochs": "20"}
    other = variables_of(seed=1, num_specific_stages=0)
    actual = pretrained.insert_weights(other, tensors, "it")
    assert jax.tree.structure(actual) == jax.tree.structure(plain)
    for path, leaf in leaves_of(actual).items():
        source = other if "/head/" in path else plain  # the head starts again
        np.testing.assert_array_equal(leaf, leaves_of(source)[path])


def test_a_depthwise_kernel_is_laid_out_as_torch_does(written, plain):
    kernel = plain["params"]["shared"]["conv3"]["1"]["conv2c"]["2"]["conv2"]["kernel"]
    stored = load_file(written)["conv3.1.conv2c.2.conv2.weight"]
    assert stored.shape == (24, 1, 3, 3)
    for channel, row, column in ((0, 0, 2), (5, 1, 0), (23, 2, 1)):
        assert stored[channel, 0, row, column] == kernel[row, column, 0, channel]


def test_extra_tensors_are_left_and_types_follow_the_network(written, plain):
    tensors, _ = pretrained.read_weights(str(written))
    tensors = {key: x.astype(np.float64) for key, x in tensors.items()}
    tensors["classifier.weight"] = np.zeros((395, 512))
    actual = pretrained.insert_weights(plain, tensors, "it")
    assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {np.dtype("float32")}


def test_every_missing_and_misshaped_tensor_is_named(written, plain):
    tensors, _ = pretrained.read_weights(str(written))
    del tensors["conv2.0.gate.fc1.bias"], tensors["conv5.bn.running_var"]
    tensors["conv1.conv.weight"] = np.zeros((64, 3, 7, 7), np.float32)
    with pytest.raises(ValueError, match=r"^my\.file does not fit") as caught:
        pretrained.insert_weights(plain, tensors, "my.file")
    message = str(caught.value)
    assert "conv2.0.gate.fc1.bias is missing" in message
    assert "conv5.bn.running_var is missing" in message
    assert "conv1.conv.weight is (7, 7, 3, 64)" in message
    assert "has (7, 7, 3, 16)" in message
    assert len(message.splitlines()) == 4


@pytest.mark.slow  # it traces a whole network three times
def test_a_single_network_is_written_and_read_with_its_head(written, plain, tmp_path):
    single = variables_of(create=models.create_single)
    path = tmp_path / "single.safetensors"
    pretrained.write_weights(path, single, {})
    tensors, _ = pretrained.read_weights(str(path))
    assert tensors["fc.0.weight"].shape == (512, 128)
    assert tensors["fc.0.weight"][7, 3] == single["params"]["fc"]["0"]["kernel"][3, 7]

    other = variables_of(seed=1, create=models.create_single, num_classes=4)
    actual = leaves_of(pretrained.insert_weights(other, tensors, "it"))
    for name, leaf in actual.items():
        # Other classes, other classifier.
        source = other if "/classifier/" in name else single
        np.testing.assert_array_equal(leaf, leaves_of(source)[name])
    other["params"]["classifier"] = single["params"]["classifier"]
    other = jax.tree.map(np.zeros_like, other)
    actual = pretrained.insert_weights(other, tensors, "it")
    jax.tree.map(np.testing.assert_array_equal, actual, single)

    # A two-stream network takes the stages alone, and has no `fc` to give.
    actual = leaves_of(pretrained.insert_weights(plain, tensors, "it"))
    for name, leaf in actual.items():
        source = plain if "/head/" in name else single
        np.testing.assert_array_equal(leaf, leaves_of(source)[name])
    with pytest.raises(ValueError, match=r"fc\.0\.weight is missing"):
        pretrained.insert_weights(single, load_file(written), "it")


@pytest.mark.parametrize(
    "options",
    [{"num_specific_stages": 1}, {"num_specific_stages": 0, "separate_norm": True}],
)
def test_only_one_stream_can_be_written(options, tmp_path):
    with pytest.raises(ValueError, match="num_specific_stages=0"):
        pretrained.write_weights(tmp_path / "w", variables_of(**options), {})
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_lists_the_shipped_ones(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'no_such'.*neither a file") as caught:
        pretrained.read_weights("no_such")
    assert str(list(pretrained.shipped_weights())) in str(caught.value)
    monkeypatch.setattr(
        pretrained, "shipped_weights", lambda: {"mine": tmp_path / "m.safetensors"}
    )
    with pytest.raises(ValueError, match=r"\['mine'\]"):
        pretrained.read_weights("theirs")
    save_file({"x": np.ones(2)}, tmp_path / "m.safetensors")
    tensors, about = pretrained.read_weights("mine")
    assert tensors["x"].tolist() == [1, 1]
    assert about == {}


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04 a torch archive, not safetensors")
    with pytest.raises(ValueError, match=r"weights\.pth is not a safetensors file"):
        pretrained.read_weights(str(path))
