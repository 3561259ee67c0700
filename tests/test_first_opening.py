"""The first opening of a set prepares it: disks full, processes killed or at once."""

import itertools
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from data_sets import CONFIG, SET, contents, load, refusal
from tensorflow_datasets.core import DatasetBuilder


@pytest.mark.parametrize("megabytes", [0.05, 0.2, 0.265])  # a set takes 0.27
def test_a_full_disk_keeps_nothing_and_the_same_command_goes_on(small_disk, megabytes):
    disk = small_disk(megabytes)
    (disk / "other").write_text("hours of work")
    before = contents(disk)
    with pytest.raises(ValueError, match="No space left on device") as caught:
        load(disk)
    message = str(caught.value)
    free = shutil.disk_usage(disk).free / 1e6
    assert message.startswith(f"{disk / SET} cannot be prepared: ")
    for words in (f"({free:.1f} MB are free)", "free some space", "--config.data.dir="):
        assert words in message
    lock = (disk / SET).with_name(".1.0.0.lock")
    assert contents(disk).keys() - {lock} == before.keys()
    assert {path.name for path in lock.parent.iterdir()} == {lock.name}

    subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
    assert len(load(disk)) == 8
    assert (disk / "other").read_text() == "hours of work"


def test_a_folder_that_cannot_be_written_to_is_named(small_disk):
    disk = small_disk(1)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    message = refusal(disk)
    assert message.startswith(f"{disk / SET} cannot be prepared: Read-only file sys")
    assert "make it writable" in message
    assert "--config.data.dir=DIR" in message


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "data").write_text("no folder")
    message = refusal(tmp_path / "data")
    assert message.startswith(f"{tmp_path / 'data' / SET} cannot be prepared: Not a di")
    assert (tmp_path / "data").read_text() == "no folder"


def start(data):
    """Begin to prepare the set in another process, and stop it half-way."""
    script = (
        "import sys\n"
        "from vireid_jax.data.source import load_records\n"
        f"found = load_records('walkers', 'train', config={CONFIG}, "
        f"data_dir={str(data)!r})\n"
        "print(found.fingerprint)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    aside = (data / SET).with_name(".1.0.0.preparing")
    wait_until(aside.exists)
    process.send_signal(signal.SIGSTOP)
    assert not (data / SET).exists()
    return process


def wait_until(condition):
    for _ in itertools.takewhile(lambda _: not condition(), range(100_000)):
        time.sleep(0.002)
    assert condition()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGCONT])
def test_a_second_process_waits_for_the_first_or_for_its_death(
    tmp_path, capfd, monkeypatch, end
):
    prepare, calls = DatasetBuilder.download_and_prepare, []
    note = lambda *given, **options: (calls.append(given), prepare(*given, **options))
    monkeypatch.setattr(DatasetBuilder, "download_and_prepare", note)
    first = start(tmp_path)
    found, said = [], ""
    second = threading.Thread(target=lambda: found.append(load(tmp_path)))
    second.start()

    def waits():
        nonlocal said
        said += capfd.readouterr().err
        return said

    wait_until(waits)
    assert said == f"waiting for another process to prepare {tmp_path / SET}\n"
    assert second.is_alive()
    first.send_signal(end)
    out, _ = first.communicate(timeout=600)
    second.join()
    assert len(calls) == (end == signal.SIGKILL)
    expected = load(tmp_path / "undisturbed").fingerprint
    assert found[0].fingerprint == expected
    if end == signal.SIGCONT:
        assert (first.returncode, out) == (0, f"{expected}\n")
    else:
        assert first.returncode == -signal.SIGKILL
    left = {path.name for path in (tmp_path / SET).parent.iterdir()}
    assert left == {"1.0.0", ".1.0.0.lock"}
    assert sorted(path.name for path in (tmp_path / SET).iterdir()) == sorted(
        path.name for path in (tmp_path / "undisturbed" / SET).iterdir()
    )


def test_a_killed_process_leaves_nothing_behind_the_next(tmp_path):
    for _ in range(2):
        process = start(tmp_path)
        process.kill()
        process.communicate(timeout=600)
    half = (tmp_path / SET).with_name(".1.0.0.preparing") / SET
    half.mkdir(parents=True)
    (half / "dataset_info.json").touch()
    expected = load(tmp_path / "undisturbed").fingerprint
    assert load(tmp_path).fingerprint == expected
    left = {path.name for path in (tmp_path / SET).parent.iterdir()}
    assert left == {"1.0.0", ".1.0.0.lock"}
