"""Files that torch itself wrote, some of them hostile; skipped without torch."""

import io
import os
import pickle
import pickletools

import numpy as np
import pytest
from osnet_reference import features, nothing_in

from vireid_jax.weights import pretrained
from vireid_jax.weights.torchreid import convert

NAME = "osnet_x0_25"


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
    actual = features(tmp_path / "out", name, images)
    assert expected.max() > 1
    np.testing.assert_allclose(actual, expected, atol=1e-5)


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
    actual, _ = pretrained.read_file(tmp_path / "out" / f"{NAME}.safetensors")
    for key, x in actual.items():
        np.testing.assert_array_equal(x, network.state_dict()[key].numpy())


def as_python_2_wrote(data):
    """Turn the strings of a file of torch's old format into Python 2's."""
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
    status = {row.key: row.status for row in report.rows}
    assert status["fc.0.bias"] == "taken, cast from bfloat16"
    actual, _ = pretrained.read_file(tmp_path / "out" / f"{NAME}.safetensors")
    np.testing.assert_array_equal(actual["fc.0.bias"], half.float().numpy())


class Hostile:
    """Run a command when it is unpickled."""

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


def test_the_replacement_of_numpys_numbers_can_do_nothing(torch, network, tmp_path):
    """A file may call it, with anything: no weights come of it."""
    state = network.state_dict()
    state["fc.0.bias"] = np.float64(1)
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=r"no state_dict.*'fc\.0\.bias' is _Number"):
        convert(tmp_path / "theirs.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
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
    torch, network, tmp_path, content, words
):
    torch.save(content(network), tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=words):
        convert(tmp_path / "theirs.pth", tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 1, 1000, -100])
def test_a_damaged_file_of_torch_is_refused(torch, network, tmp_path, kept):
    path = tmp_path / "theirs.pth"
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        ValueError, match=r"theirs\.pth is not a checkpoint.*: .+;"
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
