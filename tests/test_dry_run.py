"""A dry run reports what can be counted by hand."""

import importlib.util
import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from vireid_jax.config import default_config
from vireid_jax.planning import dry_run as planning
from vireid_jax.planning import topology
from vireid_jax.planning.cost import Cost, count_collectives, read_cost
from vireid_jax.planning.dry_run import TrainingSet, dry_run, training_set
from vireid_jax.planning.topology import SHAPES, TOPOLOGIES
from vireid_jax.training import sharding

HLO = """
%chained.1 (p: f32[24,8]) -> f32[96,8] {
  %p = f32[24,8]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.5 = f32[96,8]{1,0:T(8,128)} all-gather(%p), channel_id=7, dimensions={0}, frontend_attributes={chain_id="2"}
}

%chained.2 (p: f32[24,8]) -> f32[96,8] {
  ROOT %all-gather.6 = f32[96,8]{1,0:T(8,128)} all-gather(%p.1), channel_id=7, dimensions={0}, frontend_attributes={chain_id="2"}
}

ENTRY %main (a: bf16[64,100]) -> f32[2] {
  %all-reduce.1 = (f32[64]{0}, /*index=1*/f32[2,3]{1,0}) all-reduce(%x, %y), channel_id=1, to_apply=%add
  %all-reduce-start.2 = f32[10]{0} all-reduce-start(%x), to_apply=%add
  %all-reduce-done.2 = f32[10]{0} all-reduce-done(%all-reduce-start.2)
  %all-gather-start.3 = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%x), dimensions={0}
  %all-gather-done.3 = bf16[8,8]{1,0} all-gather-done(%all-gather-start.3)
  %collective-permute-start.4 = (f32[24]{0}, f32[24]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x)
  %collective-permute-done.4 = f32[24]{0} collective-permute-done(%collective-permute-start.4)
  %reduce-scatter.5 = f32[4]{0} reduce-scatter(%x), dimensions={0}
  %all-to-all.6 = pred[16]{0} all-to-all(%x), dimensions={0}
  %sum = bf16[64]{0:T(128)(2,1)S(1)} fusion(%near), kind=kLoop, metadata={op_name="jit(step)/all-reduce"}
  ROOT %t = f32[2]{0} slice(%all-reduce-done.2), slice={[0:2]}
}
"""  # noqa: E501


def test_collectives_are_counted_by_kind():
    counts = count_collectives(HLO)
    assert {kind: (c["count"], c["bytes"]) for kind, c in counts.items()} == {
        "all-reduce": (2, 4 * (64 + 6) + 4 * 10),
        "all-gather": (2, 4 * 96 * 8 + 2 * 64),  # the chain of two links once
        "reduce-scatter": (1, 16),
        "all-to-all": (1, 16),
        "collective-permute": (1, 96),
    }


def test_topologies_are_rectangles_of_whole_hosts():
    for name, chips in TOPOLOGIES.items():
        rows, columns = SHAPES[chips]
        assert rows * columns == chips, name
        assert chips in (1, 8) or chips % 4 == 0


def test_memory_is_that_of_the_parameters():
    mesh = sharding.make_mesh()
    everywhere = NamedSharding(mesh, PartitionSpec())
    step = lambda w, x: (w - x.sum() * w, x.mean())
    step = jax.jit(
        step, in_shardings=everywhere, out_shardings=everywhere, donate_argnums=0
    )
    shape = jax.ShapeDtypeStruct
    lowered = step.lower(shape((300, 7), jnp.float32), shape((5,), jnp.float32))
    cost = read_cost(lowered.compile(), 1, 0.0)
    assert cost.argument_bytes == 4 * (300 * 7 + 5)
    assert cost.aliased_bytes == 4 * 300 * 7
    assert cost.output_bytes >= 4 * (300 * 7 + 1)
    assert cost.memory >= cost.argument_bytes
    assert cost.flops > 0
    assert cost.collectives == {}


def config_of(cache="none", **options):
    c = default_config()
    c.data.name = "walkers"
    c.data.dir = "/nowhere"
    options = {"train_ids": 9, "images_per_modality": 4} | options
    c.data.options.update({"variant": "thermal", "test_ids": 2} | options)
    c.data.size = (64, 32)
    c.data.cache = cache
    c.data.validation_identities = 3
    c.batch.identities = 2
    c.batch.images = 2
    c.augment.pad = 2
    c.model.name = "osnet_x0_25"
    return c


def test_a_training_set_is_counted_without_its_files(tmp_path):
    config = config_of()
    assert training_set(config) == TrainingSet(6, 24, 24, "planned")
    config.data.options = {}
    config.data.name = "sysu_mm01"
    config.data.dir = str(tmp_path)
    config.data.validation_identities = 0
    assert training_set(config).identities == 395


# --- Errors ---------------------------------------------------------------------------


@pytest.fixture
def with_libtpu(monkeypatch):
    """Let the check for libtpu pass."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)


def error_of(config, topologies):
    with pytest.raises(ValueError, match=r".") as error:
        dry_run(config, topologies=topologies, console=Console(file=io.StringIO()))
    return str(error.value)


def test_an_unknown_topology_is_refused():
    message = error_of(config_of(), ["v5e-88"])
    for words in ("'v5e-88'", "did you mean v5e-8?", "valid values", "v6e-256"):
        assert words in message


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'vireid-jax[aot]'" in error_of(config_of(), ["v5e-4"])


@pytest.mark.usefixtures("with_libtpu")
def test_a_batch_that_does_not_divide_is_refused():
    message = error_of(config_of(), ["v5e-8"])
    for words in ("P x K is 4", "8 devices", "[8]"):
        assert words in message


@pytest.mark.usefixtures("with_libtpu")
def test_a_mesh_that_does_not_fit_is_refused():
    config = config_of()
    config.mesh.model = 3
    message = error_of(config, ["v5e-8"])
    for words in ("config.mesh.model is 3", "v5e-8's 8 chips"):
        assert words in message


def test_a_wrong_config_is_refused():
    config = config_of()
    config.model.dtype = "float8"
    assert "config.model.dtype is 'float8'" in error_of(config, [])


def test_a_set_of_unknown_size_is_refused(tmp_path):
    config = config_of()
    config.data.name = "custom"
    config.data.options = {"name": "mine"}
    config.data.dir = str(tmp_path)
    assert "before it is prepared" in error_of(config, [])


@pytest.fixture
def compiler_fails(monkeypatch, with_libtpu):
    """Give a dry run a compiler for TPUs that fails with what it is given."""
    numbers = dict.fromkeys(Cost.__dataclass_fields__, 0)
    cost = Cost(**numbers | {"devices": 1, "collectives": {}})
    monkeypatch.setattr(planning, "compile_step", lambda *_: cost)

    def fail(stderr):
        done = SimpleNamespace(returncode=1, stdout="", stderr=stderr)
        monkeypatch.setattr(topology.subprocess, "run", lambda *_, **__: done)

    return fail


def test_a_chip_that_is_too_small_ends_nothing(compiler_fails):
    words = "Ran out of memory in memory space hbm. Used 20.1G of 15.75G hbm."
    compiler_fails(f"E0000: RESOURCE_EXHAUSTED: {words}\nmore\n")
    console = Console(file=io.StringIO(), width=100)
    report = dry_run(config_of(), topologies=["v5e-1", "v6e-1"], console=console)
    assert report["too_small"] == [f"v5e-1: {words}", f"v6e-1: {words}"]
    assert len(report["machines"]) == 1
    assert "Does not fit: v6e-1: Ran out" in console.file.getvalue()
    json.dumps(report)


def test_the_compiler_s_last_line_is_shown(compiler_fails):
    compiler_fails("trace\nRuntimeError: no such chip\n")
    message = error_of(config_of(), ["v5e-1"])
    assert "v5e-1" in message
    assert "RuntimeError: no such chip" in message


@pytest.mark.slow  # XLA compiles the training step of a complete OSNet, once or twice
def test_a_complete_dry_run():
    config = config_of("device")
    config.model.students = ("conv2", "conv3", "conv4")
    config.model.granularities = (2, 4)
    names = ["v5e-4"] if importlib.util.find_spec("libtpu") else []
    console = Console(file=io.StringIO(), width=100)
    report = dry_run(config, topologies=names, console=console)
    here, *others = report["machines"]
    data = report["data"]
    cached = (data["visible"] + data["infrared"]) * 64 * 32 * 3
    assert here["argument_bytes"] > cached
    assert here["aliased_bytes"] > 2**20  # the state is updated in its own memory
    assert f"{data['identities']} identities" in console.file.getvalue()
    json.dumps(report)
    for machine in others:
        assert machine["devices"] == 4
        assert machine["collectives"]["all-reduce"]["count"] > 10
        assert machine["fits"]
        assert "Fits: " in console.file.getvalue()
