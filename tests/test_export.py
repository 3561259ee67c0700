"""The export command: files that compute what the checkpoint does, and the proof."""

import functools
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from PIL import Image
from python_process import run_python
from safetensors import safe_open
from small_run import config_of

import vireid_jax
from vireid_jax import models
from vireid_jax.embed.embedder import Embedder
from vireid_jax.export import __main__ as command
from vireid_jax.export import folding, formats, proof, runtimes
from vireid_jax.export.__main__ import export, in_float32
from vireid_jax.export.proof import compare_lists, open_trial
from vireid_jax.models.build import create_model, init_variables
from vireid_jax.run.files import check_new_folder
from vireid_jax.training.checkpoint import Checkpoints
from vireid_jax.training.state import TrainState

DOCS = Path(__file__).parents[1] / "docs" / "deployment.md"
RELEASED = Path(__file__).parent / "golden" / "run_0_1_0"
CLASSES = 6
SIZE = (64, 32)
RANDOM = np.random.default_rng(0)


def save(workdir, config, **about):
    """Write a checkpoint of random weights, as a run would."""
    model = create_model(config, CLASSES)
    variables = jax.jit(lambda: init_variables(model, jax.random.key(0)))()
    variables = jax.tree_util.tree_map_with_path(perturb, variables)
    about = {
        "config": json.loads(config.to_json_best_effort()),
        "num_classes": CLASSES,
        "step": 3,
        "epoch": 1.5,
        "data": {"title": "walkers/tiny:train", "fingerprint": "abc"},
        "environment": {"commit": "0123456789ab"},
    } | about
    checkpoints = Checkpoints(workdir, validated=False)
    params, batch_stats = variables["params"], variables["batch_stats"]
    checkpoints.save(TrainState(np.int32(3), params, batch_stats, ()), about, {})
    checkpoints.close()
    return workdir


def perturb(path, leaf):
    """Draw statistics of norms: folding the initial ones changes nothing."""
    if path[-1].key in ("scale", "var"):
        return np.float32(RANDOM.uniform(0.5, 1.5, leaf.shape))
    if path[-1].key in ("mean", "bias"):
        return np.float32(RANDOM.uniform(-0.1, 0.1, leaf.shape))
    return leaf


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def workdir(data_dir, tmp_path_factory, compiled_once):
    return save(tmp_path_factory.mktemp("run"), config_of(data_dir))


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    """The folder of an ONNX export with int8, and the proof."""
    out = tmp_path_factory.mktemp("exported") / "model"
    return out, export(workdir, "onnx", out, int8=True)


@pytest.mark.slow  # an export with its proof, in two runtimes
class TestOnnx:
    def test_the_folder_is_complete(self, exported):
        out, proof = exported
        names = {"infrared.int8.onnx", "infrared.onnx", "model.json", "proof.json"}
        names |= {"visible.int8.onnx", "visible.onnx"}
        assert {path.name for path in out.iterdir()} == names
        assert [path.name for path in out.parent.iterdir()] == ["model"]
        assert json.loads((out / "proof.json").read_text()) == proof
        for name, size in proof["bytes"].items():
            assert (out / name).stat().st_size == size
        assert proof["bytes"]["visible.int8.onnx"] < proof["bytes"]["visible.onnx"]

    def test_the_proof(self, exported):
        _, proof = exported
        named = [(run["runtime"].split()[0], run["precision"]) for run in proof["runs"]]
        runtimes = ("onnxruntime", "openvino")
        assert named == [(r, kind) for kind in ("float32", "int8") for r in runtimes]
        assert proof["images"] == {"visible": 24, "infrared": 24}  # the whole split
        assert proof["trained_on_walkers"]
        assert proof["checkpoint"]["commit"] == "0123456789ab"
        assert set(proof["runs"][0]["latency_ms"]) == {"1", "8"}
        for run in proof["runs"]:
            assert set(run["walkers"]) == {"visible-to-infrared", "infrared-to-visible"}
            for row in run["walkers"].values():
                assert row["rank_lists"]["queries"] == 24
                if run["precision"] == "float32":
                    assert row["rank_lists"]["largest_swap"] < 1e-5
                    assert row["rank_1_lost"] == 0
            exact = run["precision"] == "float32"
            assert (0 < run["largest_difference"] < 1e-5) == exact

    def test_the_model_describes_its_inputs(self, exported, workdir):
        out, _ = exported
        row = json.loads((out / "model.json").read_text())
        embedder = vireid_jax.load(workdir)
        assert row["input"]["shape"] == ["batch", *SIZE, 3]
        assert row["output"]["shape"] == ["batch", embedder.dim]
        assert row["fingerprint"] == embedder.fingerprint
        assert row["mirror"] is True
        assert "INTER_AREA" in row["input"]["resizing"]
        modalities, suffixes = ("visible", "infrared"), (".onnx", ".int8.onnx")
        files = {m + suffix: [m] for m in modalities for suffix in suffixes}
        assert row.pop("files") == files
        inside = onnx.load(out / "visible.onnx").metadata_props
        assert json.loads(inside[0].value) == row

    def test_int8_convolutions_compute_in_int8_and_gates_do_not(self, exported):
        nodes = onnx.load(exported[0] / "infrared.int8.onnx").graph.node
        by_output = {node.output[0]: node for node in nodes}
        for node in nodes:
            if node.op_type == "Conv":
                quantised = node.input[1] in by_output  # else it is a float weight
                assert quantised != ("/gate/" in node.input[1])

    @pytest.mark.parametrize("title", ["onnxruntime", "OpenVINO"])
    def test_the_page_s_example(self, exported, workdir, tmp_path, monkeypatch, title):
        monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
        monkeypatch.chdir(tmp_path)
        Path("model").symlink_to(exported[0])
        Path("day").mkdir()
        noise = RANDOM.integers(0, 256, (100, 50, 3), np.uint8)
        Image.fromarray(noise).save("day/1.jpg")
        (code,) = re.findall(
            rf"## {title}\n\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL
        )
        found = {}
        exec(code, found)
        expected = vireid_jax.load(workdir).embed("day/1.jpg", "visible")
        np.testing.assert_allclose(found["embedding"], expected, rtol=0, atol=1e-4)


@pytest.mark.slow  # one more file in two runtimes
def test_both_streams_in_one_file(workdir, tmp_path):
    proof = export(workdir, "onnx", tmp_path / "model", streams="both")
    assert list(proof["bytes"]) == ["both.onnx"]
    assert proof["latency_of"] == ["visible", "infrared"]
    assert all(run["largest_difference"] < 1e-5 for run in proof["runs"])


@pytest.mark.slow  # JAX compiles each file for batches of three sizes
@pytest.mark.parametrize("streams", ["separate", "both"])
def test_jax(workdir, tmp_path, streams):
    proof = export(workdir, "jax", tmp_path / "model", streams=streams)
    (run,) = proof["runs"]
    assert run["largest_difference"] < 1e-5
    if streams == "separate":
        (code,) = re.findall(
            r"## JAX, without this package\n\n```python\n(.*?)```",
            DOCS.read_text(),
            re.DOTALL,
        )
        # By a process that has jax and nothing of ours.
        code += "import sys\nassert 'vireid_jax' not in sys.modules\n"
        code += "np.save('embedding.npy', embedding)\n"
        assert run_python("-c", code, cwd=tmp_path).returncode == 0
        black = np.zeros((2, *SIZE, 3), np.uint8)
        expected = vireid_jax.load(workdir).embed(black, "visible")
        found = np.load(tmp_path / "embedding.npy")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow  # one more export with its proof
def test_safetensors(workdir, tmp_path):
    proof = export(workdir, "safetensors", tmp_path / "model")
    (run,) = proof["runs"]
    assert run["largest_difference"] == 0
    assert run["walkers"]["visible-to-infrared"]["rank_lists"]["identical"] == 24
    path = tmp_path / "model" / "network.safetensors"
    embedder = vireid_jax.load(workdir)
    with safe_open(path, "np") as file:
        kernel = file.get_tensor("params/infrared/conv1/conv/kernel")
    stored = embedder.variables["params"]["infrared"]["conv1"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, stored)
    assert vireid_jax.load(path).fingerprint == embedder.fingerprint


class TestAnythingElse:
    def test_a_run_on_other_data_is_proved_on_walkers(
        self, data_dir, tmp_path, monkeypatch
    ):
        tiny = {"test_ids": 3, "images_per_modality": 2, "height": 64, "width": 32}
        monkeypatch.setattr(proof, "OTHERS", proof.OTHERS | tiny)
        config = config_of(data_dir)
        config.data.name = "regdb"
        trial = open_trial(config, ("visible", "infrared"))
        assert (len(trial.records), trial.own) == (12, False)
        assert trial.records.title.startswith("walkers/nir")
        assert len(trial.protocols) == 2

    @pytest.mark.slow  # JAX compiles another network
    def test_a_stream_alone_is_exported_alone(self, data_dir, tmp_path):
        config = config_of(data_dir)
        config.data.second_side = "visible"
        workdir = save(tmp_path / "run", config)
        found = export(workdir, "onnx", tmp_path / "model")
        assert list(found["bytes"]) == ["visible.onnx"]
        assert "walkers" not in found["runs"][0]  # there is nothing to rank
        with pytest.raises(ValueError, match="was trained on visible images alone"):
            export(workdir, "onnx", tmp_path / "both", streams="both")

    def test_bfloat16_is_exported_in_float32(self):
        model = models.create("osnet_x0_25", dtype="bfloat16")
        given = Embedder(model, {}, size=SIZE, batch_size=4, flip=False)
        found = in_float32(given)
        assert found.model == models.create("osnet_x0_25")
        assert (found.flip, found.batch_size) == (False, 4)
        assert in_float32(found) is found


def test_rank_lists_by_hand():
    reference = np.array([[0.1, 0.2, 0.30, 0.9], [0.1, 0.2, 0.3, 0.4]], np.float32)
    other = np.array([[0.1, 0.3, 0.25, 0.9], [0.1, 0.2, 0.3, 0.4]], np.float32)
    found = compare_lists(reference, other)
    assert found["queries"] == 2
    assert found["identical"] == found["identical_top_10"] == 1
    assert found["largest_swap"] == pytest.approx(0.1)


def test_without_openvino_the_rest_is_proved(monkeypatch):
    monkeypatch.setattr(
        runtimes.importlib.util, "find_spec", lambda name: name != "openvino" or None
    )
    (target,) = runtimes.open_files("onnx", formats.Files("float32", {}))
    assert target.runtime.startswith("onnxruntime")


class TestRefusals:
    @pytest.mark.slow  # an export with its proof
    def test_features_that_differ_leave_nothing(self, workdir, tmp_path, monkeypatch):
        monkeypatch.setattr(folding, "EPSILON", 0.1)
        with pytest.raises(ValueError, match=r"differ .* by 0\.\d+, 0\.0001 is"):
            export(workdir, "onnx", tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.mistakes("export")
    def test_what_is_there_is_not_overwritten(self, refuses, tmp_path):
        (tmp_path / "mine.txt").write_text("a thesis")
        for title, out, words in (
            ("a folder in which something lies", tmp_path, "is not empty"),
            ("a file as the folder", tmp_path / "mine.txt", "is not empty"),
            ("a folder in no folder", tmp_path / "a" / "b", "there is no folder"),
        ):
            action = functools.partial(export, tmp_path, "onnx", out)
            refuses(title, action, words)
        assert (tmp_path / "mine.txt").read_text() == "a thesis"

    def test_an_empty_folder_serves(self, tmp_path):
        check_new_folder(tmp_path)

    @pytest.mark.mistakes("export")
    @pytest.mark.parametrize(
        ("title", "format", "options", "message"),
        [
            ("an unknown format, from Python", "tflite", {}, "'tflite'; valid values"),
            ("int8 of another format", "jax", {"int8": True}, "is for --format onnx"),
            (
                "both streams in a safetensors file",
                "safetensors",
                {"streams": "both"},
                "has both streams in any case",
            ),
            ("a step that was not saved", "onnx", {"which": "7"}, "no checkpoint of"),
        ],
    )
    def test_options(self, title, format, options, message, refuses, tmp_path):
        action = lambda: export(RELEASED, format, tmp_path / "model", **options)
        refuses(title, action, message)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.mistakes("export")
    @pytest.mark.parametrize(
        ("title", "format", "message"),
        [
            ("without the packages for ONNX", "onnx", "needs onnx and onnxruntime"),
            ("without the package for JAX", "jax", "needs flatbuffers"),
        ],
    )
    def test_packages_that_are_missing(
        self, title, format, message, refuses, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
        action = lambda: export(tmp_path, format, tmp_path / "model")
        refuses(title, action, message, "pip install 'vireid-jax")

    def test_the_command_prints_one_line(self, tmp_path):
        given = ["--checkpoint", str(tmp_path), "--format", "onnx"]
        given += ["--out", str(tmp_path / "model")]
        done = run_python("-m", "vireid_jax.export", *given)
        assert done.returncode == 1
        assert done.stderr.startswith("error: no checkpoint in ")
        assert done.stderr.count("\n") == 1


@pytest.mark.slow  # an export with its proof
def test_the_command_prints_what_it_proved(
    workdir, tmp_path, monkeypatch, capsys, exported
):
    monkeypatch.setattr(command, "set_up", lambda: None)
    monkeypatch.setattr(command, "export", lambda *_, **__: exported[1])
    given = ["--checkpoint", str(workdir), "--format", "onnx", "--out", "model"]
    monkeypatch.setattr(sys, "argv", ["export", *given])
    monkeypatch.setenv("COLUMNS", "120")
    command.main()
    out = capsys.readouterr().out
    assert "the checkpoint" in out
    assert re.search(r"onnxruntime [\d.]+, int8", out)
    assert "visible.int8.onnx" in out
