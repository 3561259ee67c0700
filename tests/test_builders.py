"""The builders of the releases: what lies in the tree is what the records hold."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from vireid_jax.datasets.custom import custom_dataset_builder as custom
from vireid_jax.datasets.llcm import llcm_dataset_builder as llcm
from vireid_jax.datasets.regdb import regdb_dataset_builder as regdb
from vireid_jax.datasets.sysu_mm01 import sysu_mm01_dataset_builder as sysu_mm01

from vireid_jax.data.source import load_records

MODULES = {"sysu_mm01": sysu_mm01, "regdb": regdb, "llcm": llcm, "custom": custom}
GOLDEN = Path(__file__).parent / "golden"


def dummy(name):
    """The small tree that lies beside each builder."""
    return Path(MODULES[name].Builder.pkg_dir_path) / "dummy_data"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def load(name, split, data, **options):
    return load_records(name, split, data_dir=data, manual_dir=dummy(name), **options)


def rows(records):
    """(identity, camera, modality) by file name."""
    numbers = records.identity, records.camera, records.modality
    return dict(zip(records.filename, np.stack(numbers, 1).tolist(), strict=True))


def stored(records, row):
    example = records.store.example(records.position[row])
    return example["image"].bytes_list.value[0]


def ids(name, *lists):
    texts = [(dummy(name) / path).read_text() for path in lists]
    return {int(entry) for text in texts for entry in text.split(",")}


@pytest.mark.parametrize("name", MODULES)
def test_files_are_stored_byte_for_byte_under_their_paths(data, name):
    for split in ("train", "test"):
        records = load(name, split, data)
        assert len(records) > 3
        for row, filename in enumerate(records.filename):
            assert stored(records, row) == (dummy(name) / filename).read_bytes()
        assert records.image(0, (32, 16)).shape == (32, 16, 3)


def test_sysu_splits_hold_both_modalities_of_their_identities(data):
    lists = {
        "train": ids("sysu_mm01", "exp/train_id.txt", "exp/val_id.txt"),
        "test": ids("sysu_mm01", "exp/test_id.txt"),
    }
    root, found = dummy("sysu_mm01"), {}
    for split, members in lists.items():
        found |= rows(load("sysu_mm01", split, data))
        assert set(load("sysu_mm01", split, data).identity) == members
    expected = {}
    for path in root.glob("cam*/*/*.jpg"):
        camera, identity = int(path.parts[-3][3:]), int(path.parts[-2])
        infrared = camera in (3, 6)
        expected[str(path.relative_to(root))] = [identity, camera, int(infrared)]
    assert found == expected


def test_regdb_identities_are_the_labels_of_the_trial(data):
    prints = set()
    for trial in (1, 3):
        for split in ("train", "test"):
            records = load("regdb", split, data, config=f"trial_{trial}")
            expected = {}
            for modality, kind in enumerate(("visible", "thermal")):
                text = (dummy("regdb") / f"idx/{split}_{kind}_{trial}.txt").read_text()
                for line in text.splitlines():
                    name, label = line.split(" ")
                    expected[name] = [int(label), modality + 1, modality]
            assert rows(records) == expected
            assert records.num_identities == 2
            prints.add(records.fingerprint)
    assert len(prints) == 4


def test_regdb_has_ten_configs():
    assert list(regdb.Builder.builder_configs) == [f"trial_{t}" for t in range(1, 11)]
    with pytest.raises(ValueError, match=r"'trial_11'; valid values .*'trial_1', "):
        load_records("regdb", "train", config="trial_11", data_dir=os.devnull)


def test_llcm_takes_cameras_from_names_and_folders(data):
    train, test = (rows(load("llcm", split, data)) for split in ("train", "test"))
    assert {row[0] for row in test.values()} == ids("llcm", "idx/test_id.txt")
    for name, (identity, camera, modality) in (train | test).items():
        parts = name.split("/")
        assert identity == int(parts[-2])
        assert f"_c{camera:02d}_" in parts[-1]
        assert modality == ("nir" in parts[0])
    listed = [
        line.split(" ")[0]
        for kind in ("vis", "nir")
        for line in (dummy("llcm") / f"idx/train_{kind}.txt").read_text().splitlines()
    ]
    assert sorted(listed) == sorted(train)
    pool = [
        str(path.relative_to(dummy("llcm")))
        for path in dummy("llcm").glob("test_*/cam*/*/*.jpg")
    ]
    assert sorted(pool) == sorted(test)


def test_custom_rows_are_those_of_the_csv(data):
    lines = (dummy("custom") / "records.csv").read_text().splitlines()[1:]
    for split in ("train", "test"):
        expected = {}
        for name, identity, camera, modality, where in (x.split(",") for x in lines):
            if where == split:
                infrared = modality == "infrared"
                expected[name] = [int(identity), int(camera), int(infrared)]
        assert rows(load("custom", split, data)) == expected
    named = load("custom", "test", data, config={"name": "mine"})
    assert named.title == "custom/mine/1.0.0:test"
    with pytest.raises(ValueError, match=r"config is 'a/b'; valid .*letters"):
        load("custom", "test", data, config={"name": "a/b"})


def test_a_path_that_says_cam_elsewhere_is_no_camera(tmp_path):
    root = tmp_path / "camille" / "cam9" / "0042"
    root.parent.mkdir(parents=True)
    for name in ("llcm", "sysu_mm01"):
        root.unlink(missing_ok=True)
        root.symlink_to(dummy(name), target_is_directory=True)
        read = MODULES[name].Builder.read
        assert read(root) == read(dummy(name))


def golden_tree(root):
    """The files that the reference loaders were run on, images of a pixel each."""
    tree = json.loads((GOLDEN / "fake_tree.json").read_text())
    pixel = cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    for filename in tree["files"]:
        path = root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pixel)
    for filename, text in tree["text"].items():
        (root / filename).write_text(text)
    return tree


def test_the_lists_are_those_of_the_reference_loaders(tmp_path):
    golden_tree(tmp_path)
    draws = json.loads((GOLDEN / "gallery_draws.json").read_text())
    root = tmp_path / "SYSU-MM01"
    splits = sysu_mm01.Builder.read(root)
    test = {image.filename: image for image in splits["test"]}
    for found in draws["sysu"]["query"].values():
        relative = found["files"]
        assert [test[path].identity for path in relative] == found["ids"]
        assert [test[path].camera for path in relative] == found["cams"]
        assert relative == [n for n, im in test.items() if im.modality == "infrared"]
    root = tmp_path / "LLCM"
    test = {image.filename: image for image in llcm.Builder.read(root)["test"]}
    for kind, modality in (("vis", "visible"), ("nir", "infrared")):
        found = draws["llcm"]["query"][kind]
        relative = found["files"]
        assert relative == [n for n, im in test.items() if im.modality == modality]
        assert [test[path].camera for path in relative] == found["cams"]


@pytest.mark.parametrize("name", MODULES)
def test_plain_tfds_builds_the_same_records_in_several_files(data, tmp_path, name):
    ours = load(name, "test", data)
    module = MODULES[name]
    tfds.disable_progress_bar()
    builder = module.Builder(data_dir=tmp_path, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=dummy(name), num_shards=3)
    builder.download_and_prepare(download_config=config)
    theirs = load_records(name, "test", data_dir=tmp_path)
    assert len(list(tmp_path.rglob(f"{name}-test.array_record-*"))) == 3
    assert theirs.fingerprint == ours.fingerprint
    assert rows(theirs) == rows(ours)
    source = module.Builder(data_dir=data, file_format="array_record").as_data_source(
        split="test"
    )
    assert {row["filename"].decode() for row in source} == set(ours.filename)
    assert source[0]["image"].shape == (32, 16, 3)


@pytest.mark.parametrize("name", MODULES)
def test_metadata_is_there_and_its_tags_are_valid(name):
    builder = MODULES[name].Builder(data_dir=os.devnull, file_format="array_record")
    assert "python -m vireid_jax.prepare" in builder.info.description
    assert builder.info.citation.startswith("@")
    tags = builder.pkg_dir_path / "TAGS.txt"
    valid = set(tfds.core.dataset_metadata.valid_tags())
    listed = {line.split("#")[0].strip() for line in tags.read_text().splitlines()}
    assert listed
    assert listed <= valid
