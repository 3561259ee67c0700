"""`python -m vireid_jax.prepare`: preparing, killing it, and bad releases."""

import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from data_sets import (
    DUMMIES,
    FIRST,
    RELEASES,
    TEST_ID,
    TRAIN_ID,
    VISIBLE,
    edit,
    left,
    overwrite,
    run,
    write,
)

from vireid_jax.data.source import load_records
from vireid_jax.prepare.__main__ import main


def one_config(name):
    return ["--config", "trial_2"] if name == "regdb" else []


# --- Preparing ------------------------------------------------------------------------


def test_all_trials_are_prepared_and_a_second_run_leaves_them_alone(
    release, tmp_path, capsys
):
    root, data = release("regdb"), tmp_path / "data"
    assert run("regdb", root, data=data) == ""
    shown = capsys.readouterr().out
    assert shown.count("new") == 20
    assert "160 records" in shown
    assert {path.name for path in (data / "regdb").glob("trial_*")} == {
        f"trial_{trial}" for trial in range(1, 11)
    }
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.array_record*")}
    assert run("regdb", root, data=data) == ""
    assert capsys.readouterr().out.count("was there") == 20
    shutil.rmtree(root)  # it is not needed any more
    assert "does not exist" in run("regdb", root, data=data)
    main(["--dataset", "regdb", "--data_dir", str(data)])
    assert capsys.readouterr().out.count("was there") == 20
    assert before == {
        path: path.stat().st_mtime_ns for path in data.rglob("*.array_record*")
    }


@pytest.mark.parametrize("change", ["pixels", "label", "one image more", "another set"])
def test_a_set_of_another_release_does_not_stand_for_this_one(
    release, tmp_path, change, capsys
):
    """A synthetic tree has the names of the real one: its set must not be taken."""
    root, data = release("regdb"), tmp_path / "data"
    options = ("--config", "trial_3")
    assert run("regdb", root, *options, data=data) == ""
    index = root / "idx/test_visible_3.txt"
    first = index.read_text().split()[0]
    match change:
        case "pixels":
            other = next(path for path in root.rglob("*.bmp") if path != root / first)
            shutil.copy(other, root / first)
        case "label":
            index.write_text(index.read_text().replace(" 0", " 9"))
        case "one image more":
            shutil.copy(root / first, root / "Visible/new.bmp")
            index.write_text(index.read_text() + "Visible/new.bmp 0\n")
        case "another set":
            root = release("llcm")
    error = run("regdb", root, *options, data=data)
    if change == "another set":
        assert "has no Visible, Thermal; RegDB holds" in error
    else:
        folder = data / "regdb/trial_3/1.0.0"
        assert f"{folder} exists and was not made from {root}: " in error
        assert f"(rm -r {folder})" in error
        assert error.endswith("give another folder, --data_dir DIR")


def test_left_out_images_do_not_make_another_release(release, tmp_path, capsys):
    root, data = release("llcm"), tmp_path / "data"
    next(root.rglob("vis/*/*.jpg")).write_bytes(b"no image")
    for state in ("new", "was there"):
        assert run("llcm", root, "--skip-unreadable", data=data) == ""
        assert capsys.readouterr().out.count(state) == 2


def test_a_set_that_exists_is_verified(release, tmp_path):
    root, data = release("llcm"), tmp_path / "data"
    assert run("llcm", root, data=data) == ""
    [file] = data.rglob("llcm-test.array_record*")
    overwrite(4000, 3000, keep_time=True)(file)
    assert re.search(r":test: record \d+ is damaged", run("llcm", root, data=data))


def test_a_missing_set_asks_for_its_release(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["--dataset", "llcm", "--data_dir", str(tmp_path)])
    assert "made from the files of a release (--source DIR)" in stop.value.code
    assert "github.com/ZYK100/LLCM" in stop.value.code
    command = "python -m vireid_jax.prepare --dataset llcm --source /path/to/LLCM"
    assert stop.value.code.endswith(f"{command} --data_dir {tmp_path}")


def test_a_custom_set_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="is missing") as caught:
        load_records("custom", "train", config={"name": "mine"}, data_dir=tmp_path)
    assert "agreement" not in str(caught.value)
    assert str(caught.value).endswith(
        f"--source FILE.csv --data_dir {tmp_path} --config mine"
    )


def test_a_full_disk_is_reported_with_the_flag_of_this_command(small_disk):
    disk = small_disk(0.01)
    error = run("llcm", DUMMIES / "llcm/dummy_data", data=disk)
    assert "cannot be prepared: No space left on device" in error
    assert error.endswith("or give another folder, --data_dir DIR")
    assert not [path for path in left(disk) if "1.0.0/" in path]


def test_sets_without_a_release_have_nothing_to_check(tmp_path):
    assert "valid values: ['custom', 'llcm', 'reg" in run("market", tmp_path)
    assert "is made from no release" in run("walkers", tmp_path, "--check")
    assert "--partial needs --check" in run("regdb", tmp_path, "--partial")


SCRIPT = "from vireid_jax.prepare.__main__ import main; main({})"


def test_killed_half_way_it_leaves_nothing_and_the_same_command_gives_the_same(
    tmp_path, monkeypatch
):
    """A real process, stopped at work and then killed with SIGKILL."""
    root, data = DUMMIES / "sysu_mm01/dummy_data", tmp_path / "data"
    arguments = ["--dataset", "sysu_mm01", "--source", str(root), "--data_dir"]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format([*arguments, str(data)])],
        stdout=subprocess.DEVNULL,
    )
    aside = data / "sysu_mm01/.1.0.0.preparing"
    for _ in range(200_000):
        if aside.exists():
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    assert not (data / "sysu_mm01/1.0.0").exists()
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert aside.exists()
    assert run("sysu_mm01", root, data=data) == ""
    assert {path.name for path in (data / "sysu_mm01").iterdir()} == {
        "1.0.0", ".1.0.0.lock"
    }  # fmt: skip
    assert run("sysu_mm01", root, data=tmp_path / "other") == ""
    for split in ("train", "test"):
        prints = {
            load_records("sysu_mm01", split, data_dir=folder).fingerprint
            for folder in (data, tmp_path / "other")
        }
        assert len(prints) == 1


# --- Images that do not decode --------------------------------------------------------

JPEG = cv2.imencode(".jpg", np.zeros((32, 16, 3), np.uint8))[1].tobytes()
FLAWS = {
    "is not a JPEG, PNG or BMP": b"nothing",
    "is a truncated JPEG": JPEG[:-200],
    "cannot be decoded by OpenCV": JPEG[:20] + b"\xff\xda\x00\x02" + JPEG[-2:],
}


@pytest.mark.parametrize("reason", FLAWS)
def test_an_image_that_does_not_decode_is_named_and_nothing_is_kept(
    release, tmp_path, reason
):
    root, data = release("llcm"), tmp_path / "data"
    broken = min(root.glob("test_*/cam*/*/*.jpg"))
    broken.write_bytes(FLAWS[reason])
    filename = broken.relative_to(root)
    error = run("llcm", root, data=data)
    assert f"{root}: 1 of " in error
    assert f"images of 'test' cannot be used: {filename} {reason}." in error
    assert error.endswith("leave them out with --skip-unreadable")
    assert not [path for path in left(data) if "1.0.0" in path]
    assert "unreadable images" in run("llcm", root, "--check", "--partial")


def test_unreadable_images_are_left_out_on_request_and_listed(
    release, tmp_path, capsys
):
    root, data = release("llcm"), tmp_path / "data"
    whole = len(list(root.glob("test_*/cam*/*/*.jpg")))
    broken = sorted(root.glob("test_*/cam*/*/*.jpg"))[:2]
    for path in broken:
        path.write_bytes(b"")
    assert run("llcm", root, "--skip-unreadable", data=data) == ""
    assert "2 unreadable images were left out" in capsys.readouterr().out
    assert len(load_records("llcm", "test", data_dir=data)) == whole - 2
    listed = (data / "llcm/1.0.0/unreadable.txt").read_text().splitlines()
    assert listed == [
        f"{path.relative_to(root)} is not a JPEG, PNG or BMP" for path in broken
    ]


def test_a_split_without_any_readable_image_is_refused(release, tmp_path):
    root = release("llcm")
    for path in root.glob("test_*/cam*/*/*.jpg"):
        path.write_bytes(b"")
    error = run("llcm", root, "--skip-unreadable", data=tmp_path / "data")
    assert "no image of 'test' is left to store" in error


# --- Releases that are not as they should be ------------------------------------------


def level(root, where):
    if where == "high":
        return root.parent
    if where == "deep":
        return next(path for path in sorted(root.iterdir()) if path.is_dir())
    if where == "empty":
        root.parent.joinpath("empty").mkdir()
        return root.parent / "empty"
    if where == "file":
        return next(path for path in sorted(root.iterdir()) if path.is_file())
    return root / "nowhere"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("missing", "does not exist; give the folder of the release"),
        ("empty", "is empty; unpack the release there"),
        ("file", "is a file; give the folder of the release"),
        ("high", "is one level too high: the release begins at"),
        ("deep", "is one level too deep: the release begins at"),
    ],
)
@pytest.mark.parametrize("name", RELEASES)
def test_a_wrong_folder_is_refused(release, tmp_path, name, where, message):
    root = release(name)
    source = level(root, where)
    for options in ([], ["--check"]):
        error = run(name, source, *options, *one_config(name), data=tmp_path / "data")
        assert error.startswith(f"error: {source} {message}")
        if where in ("high", "deep"):
            assert error.endswith(f"begins at {root}; give --source {root}")
    assert not (tmp_path / "data").exists() or left(tmp_path / "data") == []


VAL_FILE, TEST_FILE = "exp/val_id.txt", "exp/test_id.txt"


def remove(name):
    def damage(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def first_line(text):
    return edit(VISIBLE, f"{FIRST} 0\n", text)


BAD = [
    ("sysu_mm01", remove("cam3"), "{root} has no cam3; SYSU"),
    ("sysu_mm01", remove("exp"), "{root} has no exp; SYSU"),
    ("sysu_mm01", remove(VAL_FILE), "{root}/exp/val_id.txt is missing; unpack"),
    ("sysu_mm01", write(VAL_FILE, ""), "{root}/exp/val_id.txt is empty; unpack"),
    ("sysu_mm01", write(VAL_FILE, "4,x7\n"), "id.txt, line 1, entry 2: 'x7'"),
    ("sysu_mm01", write(TEST_FILE, TEST_ID.replace(",", "\n")), "id.txt, line 2: "),
    ("sysu_mm01", write(TEST_FILE, f"{TEST_ID},777"), "{root}/exp: identities [777]"),
    ("sysu_mm01", write(TEST_FILE, f"{TEST_ID},{TRAIN_ID}"), "in train and in test"),
    ("llcm", remove("idx/test_id.txt"), "{root}/idx/test_id.txt is missing"),
    ("llcm", write("idx/test_id.txt", "9999"), "identities [9999] of 'test' have no"),
    ("llcm", write("idx/train_nir.txt", "nir/x/1_c01.jpg 0\n"), "1 of 1 images are"),
    ("regdb", remove(VISIBLE), "{root}/" + VISIBLE + " is missing"),
    ("regdb", first_line(f"{FIRST} 0\n{FIRST}\n"), f"line 2: '{FIRST}' is malformed"),
    ("regdb", first_line(f"{FIRST} one\n"), "{root}/" + VISIBLE + ", line 1: "),
    ("regdb", first_line(f"{FIRST} 0\n" * 2), f"line 2: '{FIRST}' is repeated"),
    ("regdb", first_line(f"../{FIRST} 0\n"), f"line 1: '../{FIRST}' is not below"),
    ("regdb", remove(FIRST), "is missing; 1 of 4 images"),
]


@pytest.mark.parametrize(("name", "damage", "message"), BAD)
def test_a_damaged_release_is_one_line_and_nothing_is_kept(
    release, tmp_path, name, damage, message
):
    root, data = release(name), tmp_path / "data"
    damage(root)
    for options in ([], ["--check"]):
        error = run(name, root, *options, *one_config(name), data=data)
        assert message.format(root=root) in error
    assert not [path for path in left(data) if "1.0.0" in path]
