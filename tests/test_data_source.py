"""The record index: what a tiny TFDS data set holds is what `Records` gives back."""

import dataclasses
import io
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_sets import PIXELS, example, png

import vireid_jax.datasets
from vireid_jax.data import source
from vireid_jax.data.source import (
    MODALITIES,
    index_records,
    load_records,
    open_records,
    split_identities,
)

IDS = (40, 7, 19, 23)  # original identities, neither dense nor sorted
SIZE = (32, 16)


def tiny_rows():
    """Two visible (colour) and one infrared (one channel) image of each identity."""
    for i, identity in enumerate(IDS):
        for shot in range(3):
            rng = np.random.default_rng((identity, shot))
            shape = (*SIZE, 3) if shot < 2 else SIZE
            pixels = rng.integers(0, 256, shape, np.uint8)
            yield {
                "image": pixels,  # RGB or grey
                "identity": identity,
                "camera": 10 + i,
                "modality": int(shot == 2),
                "filename": f"{shot}/{9 - i}.png",
            }


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": image,
                    "identity": np.int64,
                    "camera": np.int64,
                    "modality": tfds.features.ClassLabel(names=list(MODALITIES)),
                    "filename": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for row in tiny_rows():
            encoded = io.BytesIO(png(row["image"][..., ::-1]))  # OpenCV writes BGR
            if row["modality"]:
                encoded = io.BytesIO(png(row["image"]))
            yield row["filename"], {**row, "image": encoded}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    tfds.disable_progress_bar()
    builder = Tiny(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def records(builder):
    return open_records(builder, "train")


def test_rows_are_what_was_written_in_file_name_order(records):
    expected = sorted(tiny_rows(), key=lambda row: row["filename"])
    assert len(records) == len(expected) == 12
    assert records.filename == [row["filename"] for row in expected]
    for column in ("identity", "camera", "modality"):
        found = getattr(records, column)
        assert found.dtype == np.int32
        assert found.tolist() == [row[column] for row in expected]
    for i, row in enumerate(expected):
        pixels = row["image"]
        if pixels.ndim == 2:
            pixels = np.stack([pixels] * 3, axis=-1)
        np.testing.assert_array_equal(records.image(i, SIZE), pixels)


def test_bytes_are_those_that_tfds_reads(builder, records):
    theirs = builder.as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    for row, position in enumerate(records.position):
        example = theirs[int(position)]
        bgr = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)
        assert example["filename"].decode() == records.filename[row]
        np.testing.assert_array_equal(records.image(row, SIZE), bgr[..., ::-1])


def test_labels_count_identities_in_ascending_order(records):
    assert records.num_identities == 4
    assert records.identities.tolist() == sorted(IDS)
    np.testing.assert_array_equal(records.identities[records.labels], records.identity)
    with pytest.raises(ValueError, match="identity 40 is not in the label space"):
        _ = dataclasses.replace(records, identities=records.identities[:3]).labels


def test_resize_averages_blocks_when_shrinking_and_interpolates_when_growing(records):
    full = records.image(0, SIZE).astype(float)
    small = records.image(0, (8, 4))
    np.testing.assert_allclose(
        small, full.reshape(8, 4, 4, 4, 3).mean(axis=(1, 3)), atol=0.51
    )
    large = records.image(0, (64, 32)).astype(float)
    assert large.shape == (64, 32, 3)
    # Bilinear at twice the size: pixel (1, 1) is 9/16 of its nearest pixel, and so on.
    corner = (9 * full[0, 0] + 3 * full[0, 1] + 3 * full[1, 0] + full[1, 1]) / 16
    np.testing.assert_allclose(large[1, 1], corner, atol=1)


@pytest.mark.parametrize("size", [SIZE, (8, 4)])
def test_the_host_cache_changes_no_byte(records, size):
    rows = np.array([3, 0, 3, 11])
    plain = records.images(rows, size)
    for _ in range(2):
        cached = records.images(rows, size, cached=True)
        np.testing.assert_array_equal(cached, plain)
        cached[:] = 0  # a caller may write on its batch
    np.testing.assert_array_equal(plain[1], records.image(0, size))


def test_the_host_cache_reads_each_image_once():
    class Counting(list):
        reads = 0

        def __getitem__(self, position):
            self.reads += 1
            return super().__getitem__(position)

    stored = Counting(example(filename=name) for name in "abc")
    records = index_records(stored, "tiny")
    half = records.select(np.array([0, 1]))
    stored.reads = 0
    for part in (records, half, records):  # selections share the cache
        part.images(np.arange(len(part)), (4, 2), cached=True)
    assert stored.reads == 3


def test_a_selection_keeps_the_label_space(records):
    infrared = records.of("infrared")
    assert set(infrared.modality) == {1}
    assert len(infrared) == 4
    some = infrared.select(infrared.identity != 7)
    assert some.num_identities == 4
    np.testing.assert_array_equal(some.identities[some.labels], some.identity)
    np.testing.assert_array_equal(
        some.image(0, SIZE),
        records.image(records.filename.index(some.filename[0]), SIZE),
    )


def test_split_identities_holds_out_complete_identities(records):
    train, held = split_identities(records, 2, seed=3)
    assert len(train) + len(held) == len(records)
    assert sorted({*train.identity, *held.identity}) == sorted(IDS)
    assert not {*train.identity} & {*held.identity}
    assert held.num_identities == train.num_identities == 2
    assert sorted(set(train.labels)) == [0, 1]
    again = split_identities(records, 2, seed=3)[1]
    assert again.fingerprint == held.fingerprint
    others = {split_identities(records, 2, seed)[1].fingerprint for seed in range(20)}
    assert len(others) > 3
    for wrong in (0, 4):
        with pytest.raises(ValueError, match=rf"_identities is {wrong}.*1 to 3"):
            split_identities(records, wrong, seed=0)


def test_held_out_identities_have_both_modalities():
    rows = [(1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]
    records = index_records(
        [
            example(filename=f"{i}", identity=identity, modality=modality)
            for i, (identity, modality) in enumerate(rows)
        ],
        "tiny",
    )
    for seed in range(10):
        assert 2 not in split_identities(records, 1, seed)[1].identity


def test_fingerprint_sees_every_change(builder, records):
    assert open_records(builder, "train").fingerprint == records.fingerprint
    base = [example(filename="a"), example(filename="b", identity=1)]
    other = png(np.ones((4, 2, 3), np.uint8))
    changed = {
        "order": base[::-1],
        "image": [example(other, filename="a"), base[1]],
        "filename": [example(filename="c"), base[1]],
        "identity": [example(filename="a", identity=5), base[1]],
        "camera": [example(filename="a", camera=5), base[1]],
        "modality": [example(filename="a", modality=1), base[1]],
        "rows": base[:1],
    }
    prints = {k: index_records(v, "tiny").fingerprint for k, v in changed.items()}
    known = index_records(base, "tiny").fingerprint
    assert prints.pop("order") == known  # how a set lies on disk is no part of it
    assert len({known, index_records(base, "other").fingerprint, *prints.values()}) == 8


def test_silhouettes_come_in_row_order(records):
    masks = np.random.default_rng(0).integers(0, 256, (3, 32, 16), np.uint8)
    stored = [example(filename=f"{2 - i}", silhouette=m) for i, m in enumerate(masks)]
    found = index_records(stored, "tiny").silhouettes()
    np.testing.assert_array_equal(found, masks[::-1])
    with pytest.raises(ValueError, match=r"tiny/1.2.0:train has no silhouettes"):
        records.silhouettes()


def test_threads_and_pickled_copies_read_the_same(records):
    copy = pickle.loads(pickle.dumps(records))
    with ThreadPoolExecutor(8) as pool:
        rows = range(len(records))
        found = list(pool.map(lambda row: copy.image(row, SIZE), [*rows] * 8))
    for row, image in zip([*rows] * 8, found, strict=True):
        np.testing.assert_array_equal(image, records.image(row, SIZE))


def test_errors_name_the_value_and_the_valid_values(builder, records):
    with pytest.raises(ValueError, match=r"'val'; valid.* tiny/1.2.0: \['train'\]"):
        open_records(builder, "val")
    with pytest.raises(ValueError, match=r"'market'; valid values: .*regdb"):
        load_records("market", "train")
    with pytest.raises(ValueError, match=r"'thermal'; valid values: .*infrared"):
        records.of("thermal")
    broken = PIXELS[:40] + b"#" + PIXELS[41:]  # its end is there
    broken = index_records([example(broken, "x.png")], "tiny", "do this")
    with pytest.raises(ValueError, match=r"'x.png' \(\d+ bytes\) cannot .*; do this"):
        broken.image(0, SIZE)
    with pytest.raises(ValueError, match="file name 'a' occurs more than once"):
        index_records([example(filename="a"), example(filename="a")], "tiny")


BUILDER = """
import io, pathlib
import cv2, numpy as np, tensorflow_datasets as tfds
from etils import epath

def make_config(ids=2):
    return tfds.core.BuilderConfig(name=f"ids{ids}", version="1.0.0")

class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [make_config(2)]
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS
    pkg_dir_path = epath.Path(__file__).parent

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "identity": np.int64, "camera": np.int64,
            "modality": tfds.features.ClassLabel(names=["visible", "infrared"]),
            "filename": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        if self.MANUAL_DOWNLOAD_INSTRUCTIONS:
            assert (pathlib.Path(dl_manager.manual_dir) / "release.txt").exists()
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        pixels = cv2.imencode(".png", np.zeros((4, 2, 3), np.uint8))[1].tobytes()
        for i in range(int(self.builder_config.name[3:])):
            yield i, {"image": io.BytesIO(pixels), "identity": i, "camera": 0,
                      "modality": 0, "filename": f"{i}.png"}
"""


@pytest.fixture
def builders(tmp_path, monkeypatch):
    """Two sets beside ours: `made` generates itself, `signed` needs a release."""
    for name, instructions in (("made", None), ("signed", "Sign the agreement.")):
        file = tmp_path / "builders" / name / f"{name}_dataset_builder.py"
        file.parent.mkdir(parents=True)
        file.write_text(BUILDER.replace("INSTRUCTIONS\n", f"{instructions!r}\n"))
    monkeypatch.setattr(vireid_jax.datasets, "__path__", [str(tmp_path / "builders")])
    yield
    mine = ("vireid_jax.datasets.made", "vireid_jax.datasets.signed")
    for name in [m for m in sys.modules if m.startswith(mine)]:
        del sys.modules[name]


def test_load_prepares_a_set_that_generates_itself_once(
    builders, tmp_path, monkeypatch
):
    first = load_records("made", "train", data_dir=tmp_path / "data")
    assert len(first) == 2
    monkeypatch.setattr(source, "prepare", None)  # calling it again would raise
    second = load_records("made", "train", config="ids2", data_dir=tmp_path / "data")
    assert second.fingerprint == first.fingerprint
    assert "tensorflow" not in sys.modules


def test_load_makes_a_config_from_arguments(builders, tmp_path):
    found = load_records("made", "train", config={"ids": 5}, data_dir=tmp_path)
    assert len(found) == 5
    assert found.title == "made/ids5/1.0.0:train"
    with pytest.raises(ValueError, match=r"'x'; valid values for made: \['ids2'\]"):
        load_records("made", "train", config="x", data_dir=tmp_path)


def test_load_asks_for_the_release_and_prepares_from_it(builders, tmp_path):
    with pytest.raises(ValueError, match=r"manual_dir=.*Sign the agreement"):
        load_records("signed", "train", data_dir=tmp_path / "data")
    release = tmp_path / "release"
    release.mkdir()
    Path(release, "release.txt").touch()
    found = load_records(
        "signed", "train", data_dir=tmp_path / "data", manual_dir=release
    )
    assert len(found) == 2


def test_a_broken_signed_set_asks_for_the_release_again(builders, tmp_path):
    Path(tmp_path, "release.txt").touch()
    load = lambda: load_records(
        "signed", "train", data_dir=tmp_path / "data", manual_dir=tmp_path
    )
    load()
    [file] = tmp_path.glob("data/**/features.json")
    file.unlink()
    step = rf"delete this set \(rm -r {file.parent}\).*with the release \(manual_dir=\)"
    with pytest.raises(ValueError, match=rf"{file} is missing.*{step}"):
        load()
