"""What tests of the data share: a small `walkers` set, its records, and `prepare`."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from vireid_jax.data.source import load_records
from vireid_jax.prepare.__main__ import main

CONFIG = {
    "train_ids": 2, "test_ids": 2, "images_per_modality": 2, "height": 32, "width": 16
}  # fmt: skip
SET = "walkers/thermal_2+2x2_32x16_easy_96773aac/1.0.0"
RECORDS = "walkers-train.array_record-00000-of-00001"


def load(data, verify=False):
    return load_records("walkers", "train", config=CONFIG, data_dir=data, verify=verify)


def contents(data):
    """Every file, by path, with a hash of its bytes."""
    files = (path for path in data.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refusal(data):
    """Load a set that must be refused, in one line, with nothing changed."""
    before = contents(data)
    with pytest.raises(ValueError, match="; ") as caught:
        load(data)
    assert contents(data) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- Records --------------------------------------------------------------------------


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


PIXELS = png(np.zeros((4, 2, 3), np.uint8))


def example(image=PIXELS, filename="a", **numbers):
    """Serialise one record as TFDS does."""
    out = tf_example_pb2.Example()
    feature = out.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["filename"].bytes_list.value.append(filename.encode())
    for key in ("identity", "camera", "modality"):
        feature[key].int64_list.value.append(numbers.get(key, 0))
    if "silhouette" in numbers:
        feature["silhouette"].bytes_list.value.append(png(numbers["silhouette"]))
    return out.SerializeToString()


def rewrite(folder, change):
    """Let `change` edit the list of examples in the record file of `train`."""
    path = folder / RECORDS
    reader = ArrayRecordReader(str(path))
    stored = reader.read(0, reader.num_records())
    reader.close()
    examples = [tf_example_pb2.Example.FromString(record) for record in stored]
    examples.sort(key=filename)
    promised = f'"{len(examples)}"'
    change(examples)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for one in examples:
        writer.write(one.SerializeToString())
    writer.close()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace(promised, f'"{len(examples)}"', 1))


def filename(one):
    return one.features.feature["filename"].bytes_list.value[0].decode()


def set_number(one, name, number):
    one.features.feature[name].int64_list.value[0] = number


def set_image(one, encoded):
    one.features.feature["image"].bytes_list.value[0] = encoded


def image(one):
    return one.features.feature["image"].bytes_list.value[0]


def overwrite(start, length, keep_time=False):
    """Overwrite some bytes of a file."""

    def damage(path):
        old, state = path.read_bytes(), path.stat()
        noise = np.random.default_rng(0).bytes(length)
        path.write_bytes(old[:start] + noise + old[start + length :])
        if keep_time:
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    return damage


# --- `python -m vireid_jax.prepare` ---------------------------------------------------

DUMMIES = Path(__file__).parents[1] / "datasets"
RELEASES = ("sysu_mm01", "regdb", "llcm")


def run(name, source, *options, data=None):
    """Run the command in this process; return its one line of error, or ""."""
    data_dir = [] if data is None else ["--data_dir", str(data)]
    error = ""
    try:
        main(["--dataset", name, "--source", str(source), *data_dir, *options])
    except SystemExit as stop:
        error = str(stop.code)
    assert not error or (error.startswith("error: ") and "\n" not in error)
    return error


def left(data):
    """List the files in a data folder, without locks."""
    return sorted(
        str(path.relative_to(data))
        for path in data.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    )


def write(path, text):
    return lambda root: (root / path).write_text(text)


def edit(path, old, new):
    def change(root):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return change


VISIBLE = "idx/train_visible_2.txt"
FIRST = (DUMMIES / "regdb/dummy_data" / VISIBLE).read_text().split()[0]
TEST_ID = (DUMMIES / "sysu_mm01/dummy_data/exp/test_id.txt").read_text().strip()
TRAIN_ID = (DUMMIES / "sysu_mm01/dummy_data/exp/train_id.txt").read_text().strip()
