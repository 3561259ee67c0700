"""What a dry run says is what can be counted by hand."""

import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from vireid_jax.config import default_config
from vireid_jax.planning import ahead, compiled, roofline
from vireid_jax.planning.compiled import Collective, Facts, collectives
from vireid_jax.planning.dry_run import dry_run
from vireid_jax.planning.hardware import SLICES, Chip, Slice, find_slice
from vireid_jax.planning.needs import TrainingSet, cached_rows, needs_of, training_set
from vireid_jax.training import sharding
from vireid_jax.training.program import make_program, step_arguments

HLO = """
HloModule jit_step, is_scheduled=true

%chained.1 (p: f32[24,8]) -> f32[96,8] {
  %p = f32[24,8]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.5 = f32[96,8]{1,0:T(8,128)} all-gather(%p), channel_id=7, dimensions={0}, frontend_attributes={chain_id="2"}
}

%chained.2 (p: f32[24,8]) -> f32[96,8] {
  %p.1 = f32[24,8]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.6 = f32[96,8]{1,0:T(8,128)} all-gather(%p.1), channel_id=7, dimensions={0}, frontend_attributes={chain_id="2"}
}

ENTRY %main (a: bf16[64,100]) -> f32[2] {
  %a = bf16[64,100]{1,0:T(8,128)(2,1)} parameter(0)
  %near = bf16[64,100]{1,0:T(8,128)(2,1)S(1)} copy(%a), backend_config={"estimated_cycles":"40"}
  %all-reduce.1 = (f32[64]{0}, /*index=1*/f32[2,3]{1,0}) all-reduce(%x, %y), channel_id=1, to_apply=%add
  %all-reduce-start.2 = f32[10]{0} all-reduce-start(%x), to_apply=%add
  %all-reduce-done.2 = f32[10]{0} all-reduce-done(%all-reduce-start.2)
  %all-gather-start.3 = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) all-gather-start(%x), dimensions={0}
  %all-gather-done.3 = bf16[8,8]{1,0} all-gather-done(%all-gather-start.3)
  %collective-permute-start.4 = (f32[24]{0}, f32[24]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x)
  %collective-permute-done.4 = f32[24]{0} collective-permute-done(%collective-permute-start.4)
  %reduce-scatter.5 = f32[4]{0} reduce-scatter(%x), dimensions={0}
  %all-to-all.6 = pred[16]{0} all-to-all(%x), dimensions={0}
  %sum = bf16[64]{0:T(128)(2,1)S(1)} fusion(%near), kind=kLoop, calls=%add, metadata={op_name="jit(step)/all-reduce"}, backend_config={"estimated_cycles":"60"}
  ROOT %t = f32[2]{0} slice(%all-reduce-done.2), slice={[0:2]}
}
"""  # noqa: E501


def test_collectives_are_counted_by_kind():
    found = collectives(HLO)
    assert {kind: c[:2] for kind, c in found.items()} == {
        "all-reduce": (2, 4 * (64 + 6) + 4 * 10),
        "all-gather": (2, 4 * 96 * 8 + 2 * 64),  # the chain of two links once
        "reduce-scatter": (1, 16),
        "all-to-all": (1, 16),
        "collective-permute": (1, 96),
    }
    assert all(c.small == c.count for c in found.values())


def test_main_memory_is_counted_in_whole_tiles():
    sizes = dict(compiled.hbm_passes(HLO))
    assert sizes["near"] == 64 * 128 * 2  # read; it writes to the other memory
    assert "sum" not in sizes
    assert sizes["t"] == 4 * 2 + 4 * 10
    assert compiled.expected_cycles(HLO) == 100


def facts_of(**changes):
    numbers = dict.fromkeys(Facts.__dataclass_fields__, 0)
    numbers |= {"platform": "tpu", "flops": 0.0, "bytes_accessed": 0.0}
    return Facts(**numbers | {"collectives": {}, "compile_seconds": 0.0} | changes)


def slice_of(shape=(2, 2), **changes):
    numbers = {"flops": 100.0, "memory": 1e3, "bandwidth": 10.0, "links": 8.0}
    numbers |= {"host": 5.0, "clock": 50.0, "hop": 0.25}
    chip = Chip("made up", **numbers | changes)
    return Slice("made up", chip, shape, 4, 2, "v5e")


def test_a_step_takes_the_chip_and_then_the_links(monkeypatch):
    monkeypatch.setattr(Slice, "is_paper", False)
    monkeypatch.setitem(roofline.IMAGES_PER_CORE, "none", 16)
    facts = facts_of(
        flops=200.0,
        hbm_bytes=50,
        cycles=150,
        collectives={"all-reduce": Collective(3, 16), "all-gather": Collective(1, 8)},
    )
    load = roofline.Load(images=64, bytes=40, cache="none")
    found = roofline.estimate(facts, slice_of(), load)
    assert found.terms == {
        "arithmetic": 2.0,
        "instructions": 3.0,
        "memory": 5.0,
        "link bandwidth": (16 * 2 * 3 / 4 + 8 * 3 / 4) / (8 / 2),
        "link latency": 4 * 2 * 2 * 0.25,
        "transfer": 40 / 4 / 5,
        "decoding": 64 / (2 * 16),
    }
    assert found.bound == "link bandwidth"
    assert found.seconds == 5.0 + 7.5 + 4.0
    assert found.images_per_second == 64 / 16.5
    starved = roofline.estimate(facts, slice_of(), roofline.Load(6400, 40, "none"))
    assert starved.bound == "decoding"
    assert starved.seconds == 200.0
    held = roofline.estimate(facts, slice_of(), roofline.Load(6400, 40, "device"))
    assert held.terms["decoding"] == 0


def test_another_makers_chip_is_estimated_from_all_bytes_accessed():
    facts = facts_of(hbm_bytes=50, cycles=10**12, bytes_accessed=3.35e12)
    found = roofline.estimate(facts, find_slice("h100"), roofline.Load(2, 2, "device"))
    assert found.terms["memory"] == pytest.approx(1)
    assert found.terms["instructions"] == 0
    assert found.bound == "memory"


def test_slices_are_rectangles_of_whole_hosts():
    for name, where in SLICES.items():
        assert where.hosts * where.chips_per_host == where.chips, name
    assert find_slice("v5e-256").topology == "v5e:16x16"
    assert find_slice("v5e-256").hops == 16
    assert find_slice("v5e-8").hops == 4


# --- A program that is small enough to count ------------------------------------------


def test_memory_is_that_of_the_parameters():
    mesh = sharding.make_mesh()
    place = NamedSharding(mesh, PartitionSpec())
    step = lambda w, x: (w - x.sum() * w, x.mean())
    step = jax.jit(step, in_shardings=place, out_shardings=place, donate_argnums=0)
    shape = jax.ShapeDtypeStruct
    lowered = step.lower(shape((300, 7), jnp.float32), shape((5,), jnp.float32))
    facts = compiled.read(lowered.compile(), "cpu", 1)
    assert facts.argument_bytes == 4 * (300 * 7 + 5)
    assert facts.aliased_bytes == 4 * 300 * 7
    assert facts.output_bytes >= 4 * (300 * 7 + 1)
    assert facts.memory >= facts.argument_bytes
    assert facts.flops > 0
    assert facts.collectives == {}
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


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


@pytest.mark.parametrize("cache", ["none", "host", "device"])
def test_a_cached_data_set_is_counted(cache):
    config = config_of(cache)
    data = training_set(config)
    assert data == TrainingSet(6, 24, 24, "planned")
    program = make_program(config, data.identities, sharding.make_mesh())
    rows = cached_rows(config, data)
    arguments = step_arguments(config, program.shapes, rows)
    needs = needs_of(config, data, arguments)
    image = 64 * 32 * 3
    assert needs.cached_bytes == (0 if cache == "none" else 48 * image)
    each = 4 if cache == "device" else image  # the number of a row, or its pixels
    assert needs.batch_bytes == 8 * (each + 4)
    assert needs.images_per_step == 8
    assert needs.views_per_step == 12
    sizes = [np.prod(leaf.shape) for leaf in jax.tree.leaves(program.shapes.params)]
    assert needs.parameters == sum(sizes)
    assert needs.parameter_bytes == 4 * needs.parameters
    assert needs.optimizer_bytes >= 2 * needs.parameter_bytes  # Adam's two moments


def test_published_sets_need_no_files(tmp_path):
    config = config_of()
    config.data.options = {}
    config.data.name = "sysu_mm01"
    config.data.dir = str(tmp_path)
    config.data.validation_identities = 0
    assert training_set(config).identities == 395


# --- What is said of mistakes ---------------------------------------------------------


def refusal(config, topologies):
    with pytest.raises(ValueError, match=r".") as error:
        dry_run(config, topologies=topologies, console=Console(file=io.StringIO()))
    return str(error.value)


def test_an_unknown_topology_is_refused():
    said = refusal(config_of(), ["v5e-88"])
    assert said.startswith("there is no topology 'v5e-88'; did you mean v5e-8? Legal")
    assert "v6e-256" in said


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(ahead.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'vireid-jax[aot]'" in refusal(config_of(), ["v5e-4"])


def test_a_batch_that_does_not_divide_is_refused():
    assert refusal(config_of(), ["v5e-8"]) == (
        "a batch's P x K is 4, which 8 devices cannot share evenly; the nearest that"
        " work are [8]"
    )


def test_a_mesh_that_does_not_fit_is_refused():
    config = config_of()
    config.mesh.model = 3
    assert refusal(config, ["v5e-8"]) == (
        "config.mesh.model is 3, which does not divide the 8 chips of v5e-8"
    )


def test_a_wrong_config_is_refused():
    config = config_of()
    config.model.dtype = "float8"
    assert refusal(config, []).startswith("config.model.dtype is 'float8'; valid")


def test_a_set_of_unknown_size_is_refused(tmp_path):
    config = config_of()
    config.data.name = "custom"
    config.data.options = {"name": "mine"}
    config.data.dir = str(tmp_path)
    assert "before it is prepared" in refusal(config, [])


def refusing(monkeypatch, stderr):
    done = SimpleNamespace(returncode=1, stdout="", stderr=stderr)
    monkeypatch.setattr(ahead.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(ahead, "check_libtpu", lambda: None)
    facts = facts_of(platform="cpu", devices=1)
    monkeypatch.setattr(ahead, "compile_step", lambda *_: facts)


def test_a_chip_that_is_too_small_ends_nothing(monkeypatch):
    words = "Ran out of memory in memory space hbm. Used 20.1G of 15.75G hbm."
    refusing(monkeypatch, f"E0000: RESOURCE_EXHAUSTED: {words}\nmore\n")
    console = Console(file=io.StringIO(), width=100)
    report = dry_run(config_of(), topologies=["v5e-1", "v6e-1"], console=console)
    assert report.too_small == [f"v5e-1: {words}", f"v6e-1: {words}"]
    assert len(report.machines) == 1
    assert "Does not fit: v6e-1: Ran out" in console.file.getvalue()
    json.dumps(report.to_json())


def test_the_compilers_last_words_are_told(monkeypatch):
    refusing(monkeypatch, "trace\nRuntimeError: no such chip\n")
    said = refusal(config_of(), ["v5e-1"])
    assert said == "v5e-1 was not compiled: RuntimeError: no such chip"


@pytest.mark.slow  # XLA compiles the training step of a whole OSNet, once or twice
def test_a_whole_dry_run():
    config = config_of("device")
    config.model.students = ("conv2", "conv3", "conv4")
    config.model.granularities = (2, 4)
    names = ["v5e-4"] if ahead.importlib.util.find_spec("libtpu") else []
    console = Console(file=io.StringIO(), width=100)
    report = dry_run(config, topologies=names, console=console)
    here = report.machines[0].facts
    held = report.needs.parameter_bytes + report.needs.optimizer_bytes
    assert here.argument_bytes > held + report.needs.cached_bytes
    assert here.aliased_bytes >= held
    printed = console.file.getvalue()
    assert f"{report.needs.parameters:,}" in printed
    json.dumps(report.to_json())
    for machine in report.machines[1:]:
        assert machine.facts.devices == 4
        assert machine.facts.collectives["all-reduce"].count > 10
        assert machine.fits
        assert "bound by" in printed
