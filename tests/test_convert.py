"""Convert torch checkpoints: the same features, or an error that names the tensor."""

import hashlib
import io
import json
import pickle
import sys
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
from osnet_reference import (
    FOLDER,
    KEYS,
    features,
    golden_images,
    nothing_in,
    recipe,
    shapes_of,
    zeros_of,
)
from python_process import run_python
from rich.console import Console
from safetensors.numpy import save_file

from vireid_jax import __version__, models
from vireid_jax import convert as convert_command
from vireid_jax.convert import convert_run, show
from vireid_jax.weights import pretrained
from vireid_jax.weights.torchreid import convert, recognise

NAME = "osnet_x0_25"


@pytest.fixture(scope="module")
def tensors():
    return recipe(NAME)


@pytest.fixture
def converted(tmp_path):
    """Convert tensors by way of a safetensors file; return the report."""

    def run(tensors, **options):
        save_file(tensors, tmp_path / "theirs.safetensors")
        return convert(tmp_path / "theirs.safetensors", tmp_path / "out", **options)

    return run


# --- What is written ------------------------------------------------------------------


@pytest.mark.slow  # XLA compiles a whole network
def test_the_weights_have_torchs_features(tensors, converted, tmp_path):
    converted(tensors)
    actual = features(tmp_path / "out", NAME, golden_images(NAME))
    golden = np.load(FOLDER / "osnet_x0_25_fc_f64.npz")["fc"]
    np.testing.assert_allclose(actual, golden, atol=1e-5)


def test_the_weights_are_torchs_and_serve_as_pretrained(tensors, converted, tmp_path):
    converted(tensors)
    path = tmp_path / "out" / f"{NAME}.safetensors"
    actual, about = pretrained.read_weights(str(path))
    kept = {k: x for k, x in tensors.items() if not k.startswith("classifier.")}
    assert sorted(actual) == sorted(kept)
    for key, x in kept.items():
        np.testing.assert_array_equal(actual[key], x)
    source = tmp_path / "theirs.safetensors"
    assert about == {
        "name": NAME,
        "source": "theirs.safetensors",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "left": json.dumps(["classifier.bias", "classifier.weight"]),
        "written_by": f"vireid_jax.convert {__version__}",
    }
    two = models.create(NAME, num_classes=3)
    variables = pretrained.insert_weights(shapes_of(two), actual, "it")
    for stream in ("visible", "infrared"):
        scale = variables["params"][stream]["conv1"]["bn"]["scale"]
        np.testing.assert_array_equal(scale, tensors["conv1.bn.weight"])


def test_what_was_converted_converts_again(tensors, converted, tmp_path):
    converted(tensors)
    first = tmp_path / "out" / f"{NAME}.safetensors"
    convert(first, tmp_path / "again")
    one, _ = pretrained.read_file(first)
    two, _ = pretrained.read_file(tmp_path / "again" / first.name)
    jax.tree.map(np.testing.assert_array_equal, one, two)


# --- What is reported -----------------------------------------------------------------


@pytest.mark.parametrize("name", KEYS)
def test_the_network_follows_from_keys_and_shapes(name):
    shaped = {key: np.zeros(shape) for key, shape in KEYS[name].items()}
    assert recognise(shaped) == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: dict.fromkeys(["backbone.conv1.weight"], np.ones(3)), "of no OSNet"),
        (lambda t: t | {"conv2.0.conv2.0.layers.0.bn.bias": np.ones(4)}, "of both"),
        (
            lambda t: t | {"conv1.conv.weight": np.ones((24, 3, 7, 7))},
            r"\(24, 3, 7, 7\).*\[64, 48, 32, 16\] channels",
        ),
        (lambda t: t | {"conv1.conv.weight": np.ones(16)}, r"shape \(16,\)"),
        (lambda t: t | {"conv2.0.IN.bias": np.ones(64)}, r"\(ibn\) has one of \[64\]"),
    ],
)
def test_an_unknown_network_lists_the_valid_names(tensors, change, words):
    words = rf"{words}.*give --name, one of \['osnet_x1_0"
    with pytest.raises(ValueError, match=words):
        recognise(change(tensors))


def test_a_name_overrides_the_keys(tensors, converted, tmp_path):
    with pytest.raises(ValueError, match=r"as osnet_x0_5; --name.*fit the network"):
        converted(tensors, name="osnet_x0_5")
    with pytest.raises(ValueError, match=r"unknown model 'osnet_x2'.*valid values"):
        converted(tensors, name="osnet_x2")
    both = tensors | {"other.conv2.0.layers.bias": np.ones(4, np.float32)}
    with pytest.raises(ValueError, match="of both OSNet and OSNet-AIN"):
        converted(both)
    assert nothing_in(tmp_path / "out")
    assert converted(both, name=NAME).name == NAME


@pytest.mark.parametrize("verbose", [False, True])
def test_the_report_names_tensors(tensors, converted, tmp_path, verbose):
    theirs = {f"module.{key}": x for key, x in tensors.items()}
    theirs["module.fc.1.num_batches_tracked"] = np.array(7)
    theirs["module.bottleneck.bias"] = np.ones(512, np.float32)
    report = converted(theirs)
    console = Console(file=io.StringIO(), width=150, markup=False)
    show(report, console, verbose=verbose)
    text = console.file.getvalue()
    lines = {
        line.split()[0]: line.split() for line in text.splitlines() if line.strip()
    }
    left = ["bottleneck.bias", "fc.1.num_batches_tracked", "classifier.weight"]
    assert lines.keys() >= set(left)
    for key, shape in KEYS[NAME].items() if verbose else ():
        assert lines[key][1] == "x".join(map(str, shape))
    taken = "conv2.0.conv2b.1.conv2.weight"
    path = "params/shared/conv2/0/conv2b/1/conv2/kernel"
    assert lines.get(taken, [])[2:] == ([path, "taken"] if verbose else [])
    assert "left: a counter of torch's" in text
    assert "left: no layer of the network" in text
    assert "'module.' taken off 489 keys" in text
    assert "osnet_x0_25, 489 tensors: 485 taken, 2 left: a classifier of 395" in text
    assert f"--config.model.pretrained={tmp_path}/out/osnet_x0_25.safetensors" in text


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_are_cast_and_reported(tensors, converted, tmp_path, kind):
    report = converted(
        tensors | {"conv5.bn.bias": tensors["conv5.bn.bias"].astype(kind)}
    )
    status = {row.key: row.status for row in report.rows}
    assert status["conv5.bn.bias"] == f"taken, cast from {np.dtype(kind)}"
    assert status["conv5.bn.weight"] == "taken"
    actual, _ = pretrained.read_file(tmp_path / "out" / f"{NAME}.safetensors")
    assert {x.dtype for x in actual.values()} == {np.dtype("float32")}


# --- Invalid input --------------------------------------------------------------------


def without(tensors, *keys):
    return {key: x for key, x in tensors.items() if key not in keys}


def replace(key, values):
    return lambda tensors: tensors | {key: values}


def with_values(tensors, key, *values):
    x = tensors[key].astype(np.float64)
    x.flat[: len(values)] = values
    return tensors | {key: x}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: without(t, "fc.0.bias", "conv5.bn.running_var"),
            ["fc.0.bias is missing", "conv5.bn.running_var is missing"],
        ),
        (replace("conv3.0.gate.fc1.bias", np.ones(3, "f4")), ["fc1.bias is (3,)"]),
        (replace("conv5.bn.bias", np.ones(128, int)), ["is int64; valid dtypes: ["]),
        (replace("conv2.0.more.weight", np.ones(3, "f4")), ["more.weight is not in"]),
        (replace("module.fc.0.bias", np.ones(512, "f4")), ["'module.' and without"]),
        (
            lambda t: with_values(t, "fc.0.weight", np.nan, np.inf, 1e300),
            ["fc.0.weight: 3 of 65536 values are not finite"],
        ),
    ],
)
def test_a_wrong_tensor_is_named(tensors, converted, tmp_path, change, words):
    with pytest.raises(ValueError, match=r"theirs\.safetensors") as caught:
        converted(change(tensors))
    for part in words:
        assert part in str(caught.value)
    assert nothing_in(tmp_path / "out")


def test_what_is_there_is_not_overwritten(tensors, converted, tmp_path):
    converted(tensors)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"would be overwritten.*rm ") as caught:
        converted(tensors)
    assert f"{out / NAME}.safetensors" in str(caught.value)
    assert [path.name for path in out.iterdir()] == [f"{NAME}.safetensors"]


def test_a_full_disk_leaves_no_weights(tensors, tmp_path, small_disk):
    save_file(tensors, tmp_path / "theirs.safetensors")
    disk = small_disk(0.5)
    with pytest.raises(OSError, match="No space"):
        convert(tmp_path / "theirs.safetensors", disk)
    assert not (disk / f"{NAME}.safetensors").exists()


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match=r"x\.safetensors is not a safetensors file"):
        convert(tmp_path / "x.safetensors", tmp_path / "out")
    with pytest.raises(ValueError, match=r"there is no file .*none\.pth; give a \.pth"):
        convert(tmp_path / "none.pth", tmp_path / "out")


def test_a_run_of_one_stream_is_converted_and_no_other(tmp_path, monkeypatch):
    config = {"model": {"name": NAME}}
    for k in (0, 1):
        model = models.create(NAME, num_specific_stages=k)
        content = {"config": config, "step": 7}
        about = SimpleNamespace(config=config, to_json=lambda content=content: content)
        run = zeros_of(model), about
        monkeypatch.setattr(convert_command, "read", lambda _, run=run: run)
        if k:
            with pytest.raises(ValueError, match="num_specific_stages=0"):
                convert_run(tmp_path, tmp_path / "two")
            continue
        path = convert_run(tmp_path, tmp_path / "out").weights
        tensors, about = pretrained.read_file(path)
        assert "conv5.bn.weight" in tensors
        assert (json.loads(about["config"]), about["step"]) == (config, "7")


def test_without_torch_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pth").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"x\.pth needs PyTorch.*pip install.*\.safet"):
        convert(tmp_path / "x.pth", tmp_path / "out")


def test_the_command_ends_with_one_line(tmp_path):
    done = run_python("-m", "vireid_jax.convert", "none.pth", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no file none.pth; give a .pth")
    assert nothing_in(tmp_path)
