"""Checkpoints: what is kept, what comes back, the error when there is none."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from vireid_jax.config import default_config
from vireid_jax.training.checkpoint import BEST_METRIC, Checkpoints, abstract
from vireid_jax.training.optimizer import make_optimizer
from vireid_jax.training.state import TrainState

HERE = SingleDeviceSharding(jax.devices()[0])
OPTIMIZER = make_optimizer(default_config())
# The best of them is the third.
SCORES = {2: 0.25, 4: 0.125, 6: 0.75, 8: 0.5, 10: 0.625}


def state_of(step):
    rng = np.random.default_rng(step)
    kernel = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    params = {"shared": {"kernel": kernel, "scale": jnp.full(3, step, jnp.bfloat16)}}
    batch_stats = {"shared": {"mean": jnp.arange(3.0) + step}}
    opt_state = jax.tree.map(lambda x: x + step, OPTIMIZER.init(params))
    return TrainState(jnp.int32(step), params, batch_stats, opt_state)


def about_of(step):
    return {"step": step, "config": {"data": {"size": [64, 32]}}, "note": "é"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of five checkpoints, closed."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder)
    for step, score in SCORES.items():
        metrics = {BEST_METRIC: score, "validation_Rank-1": 1 - score}
        checkpoints.save(state_of(step), about_of(step), metrics)
    checkpoints.close()
    return folder


def check_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_latest_and_the_best_are_kept(workdir):
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["10", "6"]
    checkpoints = Checkpoints(workdir, read_only=True)
    assert checkpoints.find("last") == 10
    assert checkpoints.find("best") == 6
    assert checkpoints.find(6) == 6
    checkpoints.close()


def test_the_complete_latest_state_comes_back(workdir):
    checkpoints = Checkpoints(workdir)
    found = checkpoints.restore(abstract(state_of(0), HERE))
    checkpoints.close()
    assert isinstance(found, TrainState)
    check_equal(found, state_of(10))


def test_the_network_of_any_kept_step_comes_back_alone(workdir):
    checkpoints = Checkpoints(workdir, read_only=True)
    expected = state_of(6)
    expected = {"params": expected.params, "batch_stats": expected.batch_stats}
    check_equal(checkpoints.restore_model(6), expected)
    checkpoints.close()


def test_the_metadata_of_a_step_comes_back(workdir):
    checkpoints = Checkpoints(workdir, read_only=True)
    for step in (6, 10):
        metrics = {BEST_METRIC: SCORES[step], "validation_Rank-1": 1 - SCORES[step]}
        assert checkpoints.about(step) == {**about_of(step), "metrics": metrics}
    checkpoints.close()


def test_a_missing_step_is_refused_with_the_valid_ones(workdir, tmp_path):
    checkpoints = Checkpoints(workdir, read_only=True)
    with pytest.raises(ValueError, match=r"step 7 .*\[6, 10\]"):
        checkpoints.find(7)
    with pytest.raises(ValueError, match=r"step newest .*\[6, 10\], or last, or best"):
        checkpoints.find("newest")
    checkpoints.close()
    empty = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match=r"no checkpoint in .*vireid_jax\.main"):
        empty.find("last")
    assert empty.restore(abstract(state_of(0), HERE)) is None
    empty.close()


@pytest.mark.parametrize("validated", [True, False])
def test_without_validation_the_latest_is_kept_and_none_is_best(validated, tmp_path):
    checkpoints = Checkpoints(tmp_path, validated=validated)
    for step in (1, 2, 3):
        checkpoints.save(state_of(step), about_of(step), {})
    checkpoints.wait()
    assert checkpoints.find("last") == 3
    with pytest.raises(ValueError, match="validation_identities"):
        checkpoints.find("best")
    checkpoints.close()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_going_on_keeps_the_best_of_the_first_part(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "copy")
    checkpoints = Checkpoints(tmp_path / "copy")
    for step, score in ((12, 0.1), (14, 0.2)):
        checkpoints.save(state_of(step), about_of(step), {BEST_METRIC: score})
    checkpoints.wait()
    assert checkpoints.find("best") == 6
    assert checkpoints.find("last") == 14
    checkpoints.save(state_of(16), about_of(16), {BEST_METRIC: 0.9})
    checkpoints.wait()
    assert checkpoints.find("best") == 16
    checkpoints.close()
    assert [p.name for p in (tmp_path / "copy" / "checkpoints").iterdir()] == ["16"]


def test_reading_a_copy_changes_nothing_in_it(workdir, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(workdir, copy)
    stamp = lambda: {
        str(p): (p.stat().st_mtime_ns, p.is_dir() or p.read_bytes())
        for p in copy.rglob("*")
    }
    before = stamp()
    checkpoints = Checkpoints(copy, read_only=True)
    step = checkpoints.find("best")
    expected = state_of(step)
    expected = {"params": expected.params, "batch_stats": expected.batch_stats}
    check_equal(checkpoints.restore_model(step), expected)
    checkpoints.close()
    assert stamp() == before


def change_shape(params):
    params["shared"]["kernel"] = jnp.zeros((4, 3))


def change_type(params):
    params["shared"]["kernel"] = params["shared"]["kernel"].astype(jnp.float16)


def change_name(params):
    params["shared"]["weight"] = params["shared"].pop("kernel")


@pytest.mark.parametrize("change", [change_shape, change_type, change_name])
def test_another_networks_checkpoint_is_refused(workdir, change):
    target = state_of(0)
    change(target.params)
    checkpoints = Checkpoints(workdir)
    with pytest.raises(ValueError, match=r"another network: .* params/shared/kernel"):
        checkpoints.restore(abstract(target, HERE))
    checkpoints.close()


BROKEN = ["model/d", "model/manifest.ocdbt", "optimizer/_METADATA", "about/metadata"]


@pytest.mark.parametrize("part", BROKEN)
def test_an_incomplete_step_is_named_with_the_complete_ones(workdir, part, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    path = copy / "checkpoints" / "10" / part
    if path.is_dir():
        for file in path.iterdir():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        path.unlink()
    checkpoints = Checkpoints(copy)
    message = rf"step 10 .* its {part.split('/')[0]} is .*\[6\].*rm -r .*/10"
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(abstract(state_of(0), HERE))
    checkpoints.close()
    assert sorted(p.name for p in (copy / "checkpoints").iterdir()) == ["10", "6"]

    shutil.rmtree(copy / "checkpoints" / "10")  # as the message says
    checkpoints = Checkpoints(copy)
    check_equal(checkpoints.restore(abstract(state_of(0), HERE)), state_of(6))
    checkpoints.close()


def test_a_kept_step_that_was_half_deleted_does_not_stop_a_run(workdir, tmp_path):
    """A kill may come while an older step is being removed."""
    copy = shutil.copytree(workdir, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "6" / "model")
    shutil.rmtree(copy / "checkpoints" / "6" / "metrics")
    checkpoints = Checkpoints(copy)
    check_equal(checkpoints.restore(abstract(state_of(0), HERE)), state_of(10))
    checkpoints.save(state_of(12), about_of(12), {BEST_METRIC: 0.1})
    checkpoints.wait()
    assert checkpoints.find("best") == 10
    checkpoints.close()
