"""From torch's checkpoints to ours: the same features, or a refusal by name."""

import hashlib
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from test_osnet_variants import FOLDER, KEYS, golden_images, recipe

from vireid_jax import __version__, models, pretrained
from vireid_jax.convert import convert, recognise, show
from vireid_jax.embedder import init_variables

NAME = "osnet_x0_25"


@pytest.fixture(scope="module")
def tensors():
    return recipe(NAME)


@pytest.fixture
def converted(tmp_path):
    """Converts tensors by way of a safetensors file; gives the report."""

    def run(tensors, **options):
        save_file(tensors, tmp_path / "theirs.safetensors")
        return convert(tmp_path / "theirs.safetensors", tmp_path / "out", **options)

    return run


def restored(folder, name):
    """Reads a checkpoint with orbax alone, onto the shapes of the network."""
    model = models.create_single(name)
    images = jnp.zeros((1, 1, 64, 32, 3))
    target = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=True))
    with ocp.StandardCheckpointer() as checkpointer:
        variables = checkpointer.restore(folder.resolve(), target)
    return model, variables


def features(folder, name, images):
    model, variables = restored(folder, name)
    return jax.jit(model.apply)(variables, jnp.asarray(images))[0][:, 0]


def nothing_in(folder):
    return not folder.exists() or not list(folder.iterdir())


# --- What is written ------------------------------------------------------------------


@pytest.mark.slow  # XLA compiles a whole network
def test_the_checkpoint_has_torchs_features(tensors, converted, tmp_path):
    converted(tensors)
    found = features(tmp_path / "out" / NAME, NAME, golden_images(NAME))
    golden = np.load(FOLDER / "osnet_x0_25_fc_f64.npz")["fc"]
    np.testing.assert_allclose(found, golden, atol=1e-5)


def test_the_checkpoint_restores_with_plain_orbax(tensors, converted, tmp_path):
    converted(tensors)
    model, variables = restored(tmp_path / "out" / NAME, NAME)
    expected = pretrained.insert_weights(
        jax.eval_shape(lambda: init_variables(model, jax.random.key(0))), tensors, "it"
    )
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_the_weights_are_torchs_and_serve_as_pretrained(tensors, converted, tmp_path):
    converted(tensors)
    path = tmp_path / "out" / f"{NAME}.safetensors"
    found, about = pretrained.read_weights(str(path))
    kept = {k: x for k, x in tensors.items() if not k.startswith("classifier.")}
    assert sorted(found) == sorted(kept)
    for key, x in kept.items():
        np.testing.assert_array_equal(found[key], x)
    source = tmp_path / "theirs.safetensors"
    assert about == {
        "name": NAME,
        "source": "theirs.safetensors",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "left": json.dumps(["classifier.bias", "classifier.weight"]),
        "written_by": f"vireid_jax.convert {__version__}",
    }
    two = models.create(NAME, num_classes=3)
    shapes = jax.eval_shape(lambda: init_variables(two, jax.random.key(0)))
    variables = pretrained.insert_weights(shapes, found, "it")
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


# --- What is told ---------------------------------------------------------------------


@pytest.mark.parametrize("name", KEYS)
def test_keys_and_shapes_tell_the_network(name):
    shaped = {key: np.zeros(shape) for key, shape in KEYS[name].items()}
    assert recognise(shaped) == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: dict.fromkeys(["backbone.conv1.weight"], np.ones(3)), "of no OSNet"),
        (lambda t: t | {"conv2.0.conv2.0.layers.0.bn.bias": np.ones(4)}, "of both"),
        (
            lambda t: t | {"conv1.conv.weight": np.ones((24, 3, 7, 7))},
            "24 channels.*16",
        ),
        (lambda t: t | {"conv1.conv.weight": np.ones(16)}, r"width, is \(16,\)"),
        (lambda t: t | {"conv2.0.IN.bias": np.ones(64)}, r"\(ibn\) has one of \[64\]"),
    ],
)
def test_an_unknown_network_is_told_with_the_known_ones(tensors, change, said):
    with pytest.raises(ValueError, match=rf"{said}.*give --name, one of \['osnet_x1_0"):
        recognise(change(tensors))


def test_a_name_overrides_what_the_keys_tell(tensors, converted, tmp_path):
    with pytest.raises(ValueError, match=r"as osnet_x0_5; --name.*fit the network"):
        converted(tensors, name="osnet_x0_5")
    with pytest.raises(ValueError, match=r"unknown model 'osnet_x2'.*Known"):
        converted(tensors, name="osnet_x2")
    both = tensors | {"other.conv2.0.layers.bias": np.ones(4, np.float32)}
    with pytest.raises(ValueError, match="of both OSNet and OSNet-AIN"):
        converted(both)
    assert nothing_in(tmp_path / "out")
    assert converted(both, name=NAME).name == NAME


def test_the_report_tells_of_every_tensor(tensors, converted, tmp_path):
    theirs = {f"module.{key}": x for key, x in tensors.items()}
    theirs["module.fc.1.num_batches_tracked"] = np.array(7)
    theirs["module.bottleneck.bias"] = np.ones(512, np.float32)
    report = converted(theirs)
    console = Console(file=io.StringIO(), width=150, markup=False)
    show(report, tmp_path / "out", console)
    text = console.file.getvalue()
    lines = {
        line.split()[0]: line.split() for line in text.splitlines() if line.strip()
    }
    for key, shape in KEYS[NAME].items():
        assert lines[key][1] == "x".join(map(str, shape))
    path = "params/shared/conv2/0/conv2b/1/conv2/kernel"
    assert lines["conv2.0.conv2b.1.conv2.weight"][2:] == [path, "taken"]
    assert "left: a counter of torch's" in text
    assert "left: no layer of the network" in text
    assert "'module.' taken off 489 keys" in text
    assert "osnet_x0_25, 489 tensors: 485 taken, 2 left: a classifier of 395" in text
    assert f"--config.model.pretrained={tmp_path}/out/osnet_x0_25.safetensors" in text


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_are_cast_and_it_is_said(tensors, converted, tmp_path, kind):
    report = converted(
        tensors | {"conv5.bn.bias": tensors["conv5.bn.bias"].astype(kind)}
    )
    fates = {row.key: row.fate for row in report.rows}
    assert fates["conv5.bn.bias"] == f"taken, cast from {np.dtype(kind)}"
    assert fates["conv5.bn.weight"] == "taken"
    found, _ = pretrained.read_file(tmp_path / "out" / f"{NAME}.safetensors")
    assert {x.dtype for x in found.values()} == {np.dtype("float32")}


# --- What is refused ------------------------------------------------------------------


def without(tensors, *keys):
    return {key: x for key, x in tensors.items() if key not in keys}


def with_values(tensors, key, *values):
    x = tensors[key].astype(np.float64)
    x.flat[: len(values)] = values
    return tensors | {key: x}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: without(t, "fc.0.bias", "conv5.bn.running_var"),
            ["fc.0.bias is missing", "conv5.bn.running_var is missing"],
        ),
        (
            lambda t: t | {"conv3.0.gate.fc1.bias": np.ones(3, np.float32)},
            ["conv3.0.gate.fc1.bias is (3,), the network wants (1,)"],
        ),
        (
            lambda t: t | {"conv5.bn.bias": np.ones(128, np.int64)},
            ["conv5.bn.bias is int64; legal types are ['float32'"],
        ),
        (
            lambda t: t | {"conv2.0.attention.weight": np.ones(3, np.float32)},
            ["conv2.0.attention.weight is no part of osnet_x0_25"],
        ),
        (
            lambda t: with_values(t, "fc.0.weight", np.nan, np.inf, 1e300),
            ["fc.0.weight: 3 of 65536 values are not finite"],
        ),
        (
            lambda t: t | {"module.fc.0.bias": t["fc.0.bias"]},
            ["some keys with 'module.' and without"],
        ),
    ],
)
def test_a_wrong_tensor_is_named(tensors, converted, tmp_path, change, said):
    with pytest.raises(ValueError, match=r"theirs\.safetensors") as caught:
        converted(change(tensors))
    for words in said:
        assert words in str(caught.value)
    assert nothing_in(tmp_path / "out")


def test_what_is_there_is_not_overwritten(tensors, converted, tmp_path):
    converted(tensors)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"would be overwritten.*rm -r") as caught:
        converted(tensors)
    assert f"{out / NAME}.safetensors" in str(caught.value)
    (out / f"{NAME}.safetensors").unlink()
    with pytest.raises(ValueError, match="would be overwritten"):
        converted(tensors)
    assert [path.name for path in out.iterdir()] == [NAME]


def test_a_failure_leaves_nothing_behind(tensors, converted, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointer, "save", fail)
        with pytest.raises(OSError, match="No space"):
            converted(tensors)
    assert nothing_in(tmp_path / "out")
    converted(tensors)


def test_a_disk_without_room_is_refused(tensors, tmp_path, small_disk):
    save_file(tensors, tmp_path / "theirs.safetensors")
    disk = small_disk(1.5)  # room for one of the two
    with pytest.raises(ValueError, match=rf"no room in {disk}.*free some space"):
        convert(tmp_path / "theirs.safetensors", disk)
    assert nothing_in(disk)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match=r"x\.safetensors is not a safetensors file"):
        convert(tmp_path / "x.safetensors", tmp_path / "out")
    with pytest.raises(ValueError, match=r"there is no file .*none\.pth; give a \.pth"):
        convert(tmp_path / "none.pth", tmp_path / "out")


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pth").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"x\.pth needs PyTorch.*pip install.*\.safet"):
        convert(tmp_path / "x.pth", tmp_path / "out")


def test_the_command_ends_with_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vireid_jax.convert", "none.pth", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no file none.pth; give a .pth")
    assert nothing_in(tmp_path)


# --- With torch itself ----------------------------------------------------------------


@pytest.fixture
def torch():
    reason = "PyTorch is not installed; tests/write_torch_checkpoint.py says how"
    return pytest.importorskip("torch", reason=reason)


@pytest.fixture
def network(torch):
    from write_torch_checkpoint import random_network

    return random_network(NAME)


@pytest.mark.slow  # XLA compiles a whole network
@pytest.mark.parametrize("name", [NAME, "osnet_ain_x0_25", "osnet_ibn_x1_0"])
def test_a_torch_network_keeps_its_features(torch, tmp_path, name):
    from write_torch_checkpoint import random_network

    theirs = random_network(name)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    report = convert(tmp_path / "theirs.pth", tmp_path / "out")
    assert report.name == name
    images = np.random.default_rng(0).standard_normal((3, 1, 128, 64, 3), np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(images[:, 0]).permute(0, 3, 1, 2)).numpy()
    found = features(tmp_path / "out" / name, name, images)
    assert expected.max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_of_torchreid_is_read(torch, network, tmp_path, zipped):
    parallel = torch.nn.DataParallel(network)
    optimizer = torch.optim.Adam(parallel.parameters(), amsgrad=True)
    for parameter in parallel.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # now it has a state
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [20, 40])
    state = {
        "state_dict": parallel.state_dict(),
        "epoch": 60,
        "rank1": np.float32(0.942),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
    }
    path = tmp_path / "model.pth.tar-60"  # torchreid's name
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    report = convert(path, tmp_path / "out")
    assert report.notes == [
        "read from 'state_dict'; left beside it: epoch, rank1, optimizer, scheduler",
        f"'module.' taken off {len(report.rows)} keys",
    ]
    found, _ = pretrained.read_file(tmp_path / "out" / f"{NAME}.safetensors")
    for key, x in found.items():
        np.testing.assert_array_equal(x, network.state_dict()[key].numpy())


def as_python_2_wrote(data):
    """Turns the strings of a file of torch's old format into Python 2's."""
    stream, out = io.BytesIO(data), b""
    for _ in range(5):  # magic, protocol, system, the object, storages
        operations = [(op.name, arg, at) for op, arg, at in pickletools.genops(stream)]
        ends = [at for _, _, at in operations[1:]] + [stream.tell()]
        for (name, argument, start), end in zip(operations, ends, strict=True):
            if name == "BINUNICODE":
                raw = argument.encode("latin1")
                out += b"U" + bytes([len(raw)]) + raw
            else:
                out += data[start:end]
    return out + stream.read()


def test_a_checkpoint_of_python_2_is_read(torch, network, tmp_path):
    state = {"state_dict": network.state_dict(), "bytes of its Rank-1": "\x85\xeb"}
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    data = as_python_2_wrote(buffer.getvalue())
    assert b"U\x02\x85\xeb" in data
    (tmp_path / "old.pth").write_bytes(data)
    assert convert(tmp_path / "old.pth", tmp_path / "out").name == NAME


def test_halves_of_torch_are_cast(torch, network, tmp_path):
    state = network.state_dict()
    state["fc.0.bias"] = half = state["fc.0.bias"].to(torch.bfloat16)
    torch.save({"model": state}, tmp_path / "theirs.pt")
    report = convert(tmp_path / "theirs.pt", tmp_path / "out")
    assert report.notes == ["read from 'model'; left beside it: nothing"]
    fates = {row.key: row.fate for row in report.rows}
    assert fates["fc.0.bias"] == "taken, cast from bfloat16"
    found, _ = pretrained.read_file(tmp_path / "out" / f"{NAME}.safetensors")
    np.testing.assert_array_equal(found["fc.0.bias"], half.float().numpy())


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("format", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize(
    ("function", "asks_for"), [(os.system, "posix.system"), (exec, "exec")]
)
def test_a_file_that_wants_to_run_code_does_nothing(
    torch, network, tmp_path, format, function, asks_for
):
    mark = tmp_path / "was_here"
    order = (
        f"touch {mark}"
        if function is os.system
        else f"open({str(mark)!r}, 'w').close()"
    )
    state = network.state_dict() | {"hostile": Hostile(function, order)}
    path = tmp_path / "theirs.pth"
    if format == "pickle":
        path.write_bytes(pickle.dumps(state["hostile"], protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=format == "zip")
    with pytest.raises(ValueError, match=f"asks for {asks_for}, which") as caught:
        convert(path, tmp_path / "out")
    assert "weights_only" not in str(caught.value)
    assert not mark.exists()
    assert nothing_in(tmp_path / "out")
    if format != "pickle":  # the order is a real one
        torch.load(path, weights_only=False)
        assert mark.exists()


def test_what_stands_for_numpys_numbers_can_do_nothing(torch, network, tmp_path):
    """A file may call it, with anything: no weights come of it."""
    state = network.state_dict()
    state["fc.0.bias"] = np.float64(1)
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=r"no state_dict.*'fc\.0\.bias' is _Number"):
        convert(tmp_path / "theirs.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            lambda network: network,
            r"asks for write_torch_checkpoint\.OSNet.*state_dict",
        ),
        (lambda network: [1, 2], r"holds no state_dict.*it is a list"),
        (lambda network: {"net": {}, "epoch": 3}, r"'net' is dict, 'epoch' is int"),
        (
            lambda network: {"x": next(network.parameters()).to_sparse()},
            r"x is torch\.sparse_coo of torch\.float32 on cpu; save it dense",
        ),
    ],
)
def test_a_file_of_torch_without_weights_is_refused(
    torch, network, tmp_path, content, said
):
    torch.save(content(network), tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=said):
        convert(tmp_path / "theirs.pth", tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 1, 1000, -100])
def test_a_damaged_file_of_torch_is_refused(torch, network, tmp_path, kept):
    path = tmp_path / "theirs.pth"
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        ValueError, match=r"theirs\.pth is no checkpoint.*: .+;"
    ) as caught:
        convert(path, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_type_that_numpy_has_not_is_refused(torch, tmp_path):
    torch.save({"x": torch.ones(3).to(torch.float8_e5m2)}, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=r"x is .* of torch\.float8_e5m2 on cpu; save"):
        convert(tmp_path / "theirs.pth", tmp_path / "out")


def test_an_old_torch_is_not_trusted(torch, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
    torch.save({}, tmp_path / "theirs.pth")
    with pytest.raises(
        ValueError, match=r"torch is 2\.9\.1.*pip install 'torch>=2\.10'"
    ):
        convert(tmp_path / "theirs.pth", tmp_path / "out")
