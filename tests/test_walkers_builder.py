"""The TFDS builder of `walkers`: a round trip without TensorFlow, configs, metadata."""

import hashlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from python_process import run_python
from vireid_jax.datasets.walkers import walkers_dataset_builder as walkers

from vireid_jax.synthetic import generate, preset

SMALL = {"train_ids": 3, "test_ids": 2, "images_per_modality": 2}
SHAPE = {"height": 64, "width": 32}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    config = walkers.make_config("nir", **SMALL, **SHAPE, first_identity=50)
    folder = tmp_path_factory.mktemp("data")
    builder = walkers.Builder(
        config=config, data_dir=folder, file_format="array_record"
    )
    builder.download_and_prepare()
    return builder


def records(builder, split):
    source = builder.as_data_source(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return {record["filename"].decode(): record for record in source}


def test_what_was_drawn_is_what_is_read(prepared):
    config = prepared.builder_config
    for split in ("train", "test"):
        stored = records(prepared, split)
        drawn = list(
            generate(config.specs(split), seed=0, size=(64, 32), knobs=preset("easy"))
        )
        assert sorted(stored) == [spec.filename for spec, _, _ in drawn]
        for spec, data, silhouette in drawn:
            record = stored[spec.filename]
            assert record["image"] == data
            assert record["identity"] == spec.identity
            assert record["camera"] == spec.camera
            modality = prepared.info.features["modality"].int2str(record["modality"])
            assert modality == spec.modality
            np.testing.assert_array_equal(record["silhouette"][..., 0], silhouette)


def test_splits_hold_the_promised_people_in_both_modalities(prepared):
    for split, people in (("train", {50, 51, 52}), ("test", {53, 54})):
        stored = records(prepared, split).values()
        assert {int(record["identity"]) for record in stored} == people
        assert len(stored) == len(people) * 2 * 2
        assert {int(record["modality"]) for record in stored} == {0, 1}


def test_images_decode_to_the_promised_shape(prepared):
    record = prepared.as_data_source(split="test")[0]
    assert record["image"].shape == (64, 32, 3)
    data = next(iter(records(prepared, "test").values()))["image"]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == (64, 32, 3)


def test_two_builds_store_the_same_bytes(prepared, tmp_path):
    again = walkers.Builder(
        config=prepared.builder_config, data_dir=tmp_path, file_format="array_record"
    )
    again.download_and_prepare()
    digest = lambda builder: {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in builder.data_path.iterdir()
    }
    assert digest(again) == digest(prepared)


def test_preparing_prints_nothing_and_needs_neither_tensorflow_nor_jax(tmp_path):
    script = (
        "import sys\n"
        "from vireid_jax.data.source import load_records\n"
        f"config = {SMALL | SHAPE}\n"
        "for _ in range(2):\n"
        "    records = load_records('walkers', 'test', config=config,"
        f" data_dir={str(tmp_path)!r})\n"
        "assert len(records) == 8\n"
        "assert not {'tensorflow', 'torch', 'jax'} & set(sys.modules)\n"
    )
    done = run_python("-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_are_readable_and_unique():
    configs = [
        walkers.make_config(),
        walkers.make_config("nir"),
        walkers.make_config(seed=1),
        walkers.make_config(first_identity=1),
        walkers.make_config(height=96, width=48),
        walkers.make_config(modality_gap=0.5),
        walkers.make_config(modality_gap=0.25),
    ]
    assert len({config.name for config in configs}) == len(configs)
    assert configs[0].name.startswith("thermal_500+200x10_128x64_easy_")


def test_the_ready_configs_are_the_default_sets():
    for variant in ("thermal", "nir"):
        ready = walkers.Builder.builder_configs[variant]
        assert len(ready.specs("train")) == 500 * 20
        assert len(ready.specs("test")) == 200 * 20


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": "xray"}, "thermal, nir"),
        ({"train_ids": 0}, "train_ids is 0; give at least 1"),
        ({"height": 4}, "at least 32"),
        ({"height": 64, "width": 256}, "at most twice the height, 128"),
        ({"train_ids": True}, "whole number"),
        ({"difficulty": "brutal"}, "easy, mid, hard"),
        ({"modality_gap": 2.0}, "0 to 1"),
        ({"glasses": 1.0}, "knob 'glasses' is unknown"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        walkers.make_config(**values)


def test_metadata_is_there_and_its_tags_are_valid(prepared):
    assert "synthetic" in prepared.info.description
    assert prepared.info.citation.startswith("@misc{walkers")
    tags = prepared.pkg_dir_path / "TAGS.txt"
    valid = set(tfds.core.dataset_metadata.valid_tags())
    listed = [line.split("#")[0].strip() for line in tags.read_text().splitlines()]
    assert listed
    assert set(listed) <= valid
