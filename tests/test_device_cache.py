"""The training set in device memory: the same run, and no image crosses in the loop."""

import json
import logging
import re

import jax
import numpy as np
import pytest
from small_run import arrays_of, config_of

from vireid_jax import train
from vireid_jax.config import validate
from vireid_jax.data.pipeline import batches
from vireid_jax.data.pk import PKStream
from vireid_jax.training import sharding

# The module's runs share the small network and what XLA compiles of it.
# Slow: two trainings, each compiled.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_network", "compiled_once"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory, small_network, compiled_once):
    """Train twice, images read by the batch or on the device; note what crosses."""
    found = {}
    for cache in ("none", "device"):
        config = config_of(data)
        config.data.cache = cache
        config.log.every_steps = 1
        crossed = []
        place = sharding.place_batch

        def note(batch, mesh, place=place, crossed=crossed):
            crossed.append({name: (x.dtype, x.nbytes) for name, x in batch.items()})
            return place(batch, mesh)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharding, "place_batch", note)
            workdir = tmp_path_factory.mktemp(cache)
            train.train_run(config, workdir)
        found[cache] = workdir, crossed
    return found


def test_the_run_is_the_same_bit_for_bit(run):
    one, two = (arrays_of(workdir) for workdir, _ in run.values())
    jax.tree.map(np.testing.assert_array_equal, one, two)
    losses = [
        [
            json.loads(line).get("loss")
            for line in (workdir / "metrics.jsonl").read_text().splitlines()
        ]
        for workdir, _ in run.values()
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 8  # six steps, two validations


def test_row_numbers_cross_and_no_pixels(run):
    (_, with_images), (_, with_rows) = run.values()
    image = 4 * 64 * 32 * 3
    assert {b["visible"] for b in with_images} == {(np.dtype(np.uint8), image)}
    assert len(with_rows) == 6
    for batch in with_rows:
        assert set(batch.values()) == {(np.dtype(np.int32), 16)}


def test_what_is_not_placed_on_purpose_does_not_cross(data, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "place_everywhere", lambda tree, _: tree)
    with pytest.raises(Exception, match="Disallowed host-to-device"):
        train.train_run(config_of(data), tmp_path)


def test_the_step_is_compiled_once(data, tmp_path, caplog):
    """Through the first step, validation, a restore of the optimizer and the test."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        config = config_of(data)
        train.train_run(config, tmp_path)
    compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    assert "init" in compiled
    assert compiled.count("train_step") == 1


def test_rows_are_those_whose_images_are_read_otherwise(data):
    config = config_of(data)
    config.data.cache = "device"
    records, _ = train.training_data(validate(config))
    visible, infrared = records.of("visible"), records.of("infrared")
    stream = PKStream(visible.labels, infrared.labels, P=2, K=2, seed=3)
    both = [
        list(
            batches(visible, infrared, stream, size=(64, 32), num_steps=3, cache=cache)
        )
        for cache in ("none", "device")
    ]
    assert len(both[0]) == len(both[1]) == 3
    images = sharding.place_images(visible, infrared, (64, 32), sharding.make_mesh())
    for read, rows in zip(*both, strict=True):
        for name in ("visible", "infrared"):
            found = np.asarray(images[name])[rows[name]].reshape(-1, 64, 32, 3)
            np.testing.assert_array_equal(found, read[name])
        np.testing.assert_array_equal(read["visible_id"], rows["visible_id"])


def test_some_steps_are_traced(data, tmp_path):
    train.train_run(config_of(data), tmp_path, profile_steps="2:3")
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"train_step" in trace.read_bytes()


@pytest.mark.parametrize("steps", ["3:2", "0:1", "5:7", "two"])
def test_steps_that_are_not_there_are_not_traced(data, tmp_path, steps):
    with pytest.raises(ValueError, match=f"--profile_steps is '{steps}'; give FIRST"):
        train.train_run(config_of(data), tmp_path, profile_steps=steps)
