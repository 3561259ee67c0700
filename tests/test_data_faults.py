"""What lies on the disk is damaged, or changed since: one clear line.

Real faults, on a real `walkers` set of 2 + 2 identities.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from data_sets import (
    PIXELS,
    RECORDS,
    SET,
    contents,
    image,
    load,
    overwrite,
    refusal,
    rewrite,
    set_image,
    set_number,
)
from tensorflow_datasets.proto import tf_example_pb2

from vireid_jax.data import manifest
from vireid_jax.data.manifest import Row


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data = tmp_path_factory.mktemp("prepared") / "data"
    load(data)
    return data


@pytest.fixture
def data(prepared, tmp_path):
    """A folder of prepared sets: one to damage, and another."""
    shutil.copytree(prepared, tmp_path / "data")
    (tmp_path / "data/other/1.0.0").mkdir(parents=True)
    (tmp_path / "data/other/1.0.0/records").write_text("hours of work")
    return tmp_path / "data"


@pytest.fixture
def folder(data):
    return data / SET


def check_remedy(message, folder):
    assert message.endswith(
        f"; delete this set (rm -r {folder}) and run the same command again"
    )


# --- The manifest ---------------------------------------------------------------------


def add_row(examples):
    new = tf_example_pb2.Example()
    new.CopyFrom(examples[-1])
    new.features.feature["filename"].bytes_list.value[0] = b"zzz.jpg"
    examples.append(new)


def test_the_first_opening_writes_a_manifest_and_the_next_ones_leave_it(folder, data):
    path = folder / "manifest-train.tsv"
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    records = load(data)
    assert header == ["filename", "identity", "camera", "modality", "sha256", "record"]
    assert [row[0] for row in rows] == records.filename
    assert [int(row[1]) for row in rows] == records.identity.tolist()
    assert [int(row[2]) for row in rows] == records.camera.tolist()
    assert [row[3] == "infrared" for row in rows] == records.modality.tolist()
    for row, position in zip(rows, records.position, strict=True):
        encoded = records.store.example(position)["image"].bytes_list.value[0]
        assert row[4] == hashlib.sha256(encoded).hexdigest()
        assert int(row[5]) == position
    whole = contents(folder)
    path.unlink()
    load(data)
    assert contents(folder) == whole
    before = path.stat()
    load(data)
    assert path.stat().st_ino == before.st_ino


def test_records_are_read_again_only_when_size_or_time_of_a_file_changed(folder, data):
    path = folder / RECORDS
    overwrite(4000, 3000, keep_time=True)(path)
    records = load(data)  # nothing that can be seen without reading
    with pytest.raises(ValueError, match=r"record \d is damaged"):
        records.images(np.arange(8), (32, 16))
    with pytest.raises(ValueError, match=r"record \d is damaged"):
        load(data, verify=True)
    os.utime(path)
    assert re.search(r"record \d is damaged", refusal(data))


def test_a_copy_with_other_times_is_read_once(folder, data):
    path = folder / "manifest-train.json"
    os.utime(folder / RECORDS)
    for content in (path.read_text(), "{"):  # of other times, and damaged
        path.write_text(content)
        load(data)
        state = (folder / RECORDS).stat()
        files = json.loads(path.read_text())["files"]
        assert files == {RECORDS: [state.st_size, state.st_mtime_ns]}


@pytest.mark.parametrize(
    ("change", "which", "what"),
    [
        (lambda rows: set_number(rows[0], "identity", 7), 0, "identity was 0, is 7"),
        (lambda rows: set_number(rows[3], "camera", 5), 3, r"camera was \d, is 5"),
        (lambda rows: set_number(rows[0], "modality", 1), 0, "modality was visible.*"),
        (lambda rows: set_image(rows[4], PIXELS), 4, r"sha256 was \w+, is \w+"),
        (lambda rows: rows.pop(2), 2, "the row is missing"),
        (add_row, None, "the row is new"),
    ],
)
def test_a_changed_row_is_named(folder, data, change, which, what):
    name = "zzz.jpg" if which is None else load(data).filename[which]
    rewrite(folder, change)
    message = refusal(data)
    path = re.escape(str(folder / "manifest-train.tsv"))
    first = f"differs from the records in 1 of [789] rows, the first being '{name}'"
    assert re.match(rf"{path} {first} \({what}\); ", message)
    check_remedy(message, folder)


def test_all_changed_rows_are_counted_and_the_first_one_is_named(folder, data):
    names = load(data).filename

    def swap(rows):
        set_number(rows[1], "camera", 5)
        set_number(rows[1], "identity", 1)
        first, last = image(rows[5]), image(rows[7])
        set_image(rows[5], last)
        set_image(rows[7], first)

    rewrite(folder, swap)
    message = refusal(data)
    assert f"in 3 of 8 rows, the first being '{names[1]}'" in message
    assert "(identity was 0, is 1, camera was 1, is 5)" in message


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda old: b"", "its first line is not filename identity"),
        (lambda old: b"hello\n", "its first line is not filename identity"),
        (lambda old: old[: old.index(b"\tvisible")], "line 2 has 3 columns"),
        (lambda old: b"\xff\xfe" + old, "can't decode byte 0xff"),
        (lambda old: old + old.splitlines(True)[-1], "occurs more than once"),
        (lambda old: old[:-30], "line 9 has 5 columns"),
        (lambda old: old[: old.rindex(b"\n", 0, -1)], "in 1 of 8 rows"),
    ],
)
def test_a_damaged_manifest_is_named(folder, data, damage, why):
    path = folder / "manifest-train.tsv"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(data)
    assert message.startswith(str(path))
    assert why in message
    check_remedy(message, folder)


def test_a_manifest_of_the_first_version_is_compared_and_written_again(folder, data):
    """It had no positions of records, and no sizes and times beside it."""
    path = folder / "manifest-train.tsv"
    load(data)
    complete = path.read_text()
    old = re.sub(r"\t[^\t\n]*\n", "\n", complete)
    path.write_text(old)
    path.with_suffix(".json").unlink()
    load(data)
    assert path.read_text() == complete
    path.write_text(old.replace("\tvisible\t", "\tinfrared\t", 1))
    assert "modality was infrared" in refusal(data)


def test_other_line_ends_change_nothing(folder, data):
    path = folder / "manifest-train.tsv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    load(data)


def test_odd_file_names_survive(tmp_path):
    names = 'a"b', "c\td", "e\nf", "é"
    rows = [Row(name, 0, 1, "visible", "ab", 0) for name in names]
    manifest.check_manifest(tmp_path / "m.tsv", rows, {}, "do this")
    manifest.check_manifest(tmp_path / "m.tsv", rows, {}, "do this")
    with pytest.raises(ValueError, match=r"1 of 4 rows.* 'c\\td' .*is missing"):
        manifest.check_manifest(tmp_path / "m.tsv", rows[:1] + rows[2:], {}, "do this")


def test_a_folder_that_cannot_be_written_to_gets_no_manifest(prepared, small_disk):
    disk = small_disk(1)
    shutil.copytree(prepared, disk / "data")
    for path in (disk / "data" / SET).glob("manifest-train.*"):
        path.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = contents(disk)
    assert len(load(disk / "data")) == 8
    assert contents(disk) == before


def test_a_manifest_is_complete_or_absent_after_a_kill(tmp_path):
    script = (
        "import os, pathlib, signal, sys\n"
        "from vireid_jax.data import manifest\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "rows = [manifest.Row(str(i), 0, 0, 'visible', 'ab', i) for i in range(9)]\n"
        "manifest.check_manifest(pathlib.Path(sys.argv[1]), rows, {}, 'do this')\n"
    )
    path = tmp_path / "manifest-train.tsv"
    killed = subprocess.run([sys.executable, "-c", script, str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()

    rows = [Row(f"{i}", 0, 0, "visible", "ab", i) for i in range(1000)]
    raised = []

    def open_often():
        try:
            for _ in range(20):
                manifest.check_manifest(path, rows, {}, "do this")
                path.unlink(missing_ok=True)
        except ValueError as error:
            raised.append(error)

    threads = [threading.Thread(target=open_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []


# --- Files of a prepared set ----------------------------------------------------------


INFO = "dataset_info.json"


def cut(size):
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def change_format(path):
    path.write_text(path.read_text().replace("array_record", "tfrecord"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        *((cut(size), "is damaged or cut short") for size in (65536, 40000, 0, -1)),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_damaged_record_file_is_named(folder, data, damage, reason):
    damage(folder / RECORDS)
    message = refusal(data)
    assert message.startswith(f"{folder / RECORDS} {reason}")
    check_remedy(message, folder)


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        (INFO, lambda path: path.unlink(), "is missing or empty"),
        (INFO, cut(0), "cannot be read (Failed to load JSON"),
        (INFO, cut(1000), "cannot be read (Failed to load JSON"),
        (INFO, lambda path: path.write_text("{}"), "cannot be read (The constructed"),
        (INFO, lambda path: path.write_text('{"odd": 1}'), "cannot be read (Message"),
        (INFO, change_format, "cannot be read (File format is already set"),
        ("features.json", lambda path: path.unlink(), "is missing or empty"),
        ("features.json", cut(0), "is missing or empty"),
    ],
)
def test_a_missing_or_broken_info_file_is_named(folder, data, name, damage, reason):
    damage(folder / name)
    message = refusal(data)
    assert message.startswith(f"{folder / name} {reason}")
    check_remedy(message, folder)


@pytest.mark.parametrize("promised", [[7], [9], []])
def test_a_wrong_number_of_records_is_named(folder, data, promised):
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"][0]["shardLengths"] = promised
    path.write_text(json.dumps(info))
    message = refusal(data)
    expected = f"{folder / RECORDS} holds 8 records, dataset_info.json says {promised}"
    if not promised:
        expected = f"{path} lists no rows of 'train'"
    assert message.startswith(expected.replace("[", "").replace("]", ""))
    check_remedy(message, folder)


def test_a_file_that_breaks_while_it_is_read_is_named(folder, data):
    records = load(data)
    overwrite(0, 60000)(folder / RECORDS)
    fresh = pickle.loads(pickle.dumps(records))
    with pytest.raises(ValueError, match=r"record \d is damaged .*; delete this"):
        fresh.image(0, (32, 16))


def test_a_truncated_image_in_a_set_is_named(folder, data):
    name = load(data).filename[2]
    rewrite(folder, lambda rows: set_image(rows[2], image(rows[2])[:-100]))
    message = refusal(data)
    assert re.match(rf"walkers/.*:train: image '{name}' .* is a truncated", message)
    check_remedy(message, folder)
