"""A run killed anywhere, or asked to stop, ends where an undisturbed one does.

Real processes, killed with SIGKILL; a tiny network, so that each starts in seconds.
benchmarks/kills.py does the same with a real network, at random moments.
"""

import json
import re
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_run import finish, start

# Slow: some thirty processes, each with the start of jax.
pytestmark = pytest.mark.slow

TIMED = {"seconds", "steps_per_second", "images_per_second"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"--config.data.dir={tmp_path_factory.mktemp('data')}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once, data):
    """A run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    code, _, err = finish(start(workdir, data, **compiled_once))
    assert code == 0, err
    return workdir


def arrays_of(workdir, step):
    """Read every array of a checkpoint, optimizer and all."""
    folder = workdir / "checkpoints" / str(step)
    handler = ocp.StandardCheckpointer()
    return {item: handler.restore(folder / item) for item in ("model", "optimizer")}


def check_same_end(workdir, whole):
    """Compares parameters, optimizer, log rows and test results, bit for bit."""
    one, two = (ocp.tree.to_flat_dict(arrays_of(w, 6)) for w in (whole, workdir))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=str(name))
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k not in TIMED}
            for line in (w / "metrics.jsonl").read_text().splitlines()
        ]
        for w in (whole, workdir)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 6
    results = [
        json.loads((w / "eval.json").read_text())["results"] for w in (whole, workdir)
    ]
    assert results[0] == results[1]


def test_the_log_tells_the_story_in_order(whole):
    lines = (whole / "log.txt").read_text().splitlines()
    story = (
        rf"--- vireid train --config=.* --workdir={whole}",
        rf"environment: commit \S+, Python .*, jax {jax.__version__}, .*; 1 x cpu, ",
        r"config: .*data\.name='walkers' .*model\.name='osnet_x0_25'",
        r"data: walkers/thermal_\S+:train, fingerprint [0-9a-f]{64}$",
        r"No checkpoint yet: starting from random weights\.",
        r"Training osnet_x0_25 on walkers/.*: 48 images of 6 identities, 6 steps of 8",
        r"step 3: saving; .*'validation_mAP': 0\.\d+",
        r"step 6: saving; ",
        r"walkers/visible-to-infrared by global: {'Rank-1': ",
        r"done$",
    )
    date, found = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", iter(lines)
    for pattern in story:  # others may stand between them
        assert any(re.match(date + pattern, line) for line in found), pattern
    assert len(lines) == len(set(lines))


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    whole, compiled_once, data, tmp_path
):
    deaths = ["stream:2", "step:3", "rewrite:3", "validation:1", "save:1", "step:2"]
    deaths += ["log:2", "save:2", "test:1"]
    for death in deaths:
        code, _, err = finish(start(tmp_path, data, KILL=death, **compiled_once))
        assert code == -signal.SIGKILL, (death, err)
    code, out, err = finish(start(tmp_path, data, **compiled_once))
    assert code == 0, err
    assert "Resuming from step 6 of 6" in out
    check_same_end(tmp_path, whole)


# --- Stopping -------------------------------------------------------------------------


def wait_for_log(workdir, words, process):
    """Wait until the run's log.txt holds `words`."""
    log = workdir / "log.txt"
    for _ in range(15_000):  # five minutes, on a loaded machine
        if log.exists() and words in log.read_text():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"{words!r} is not in {log.read_text()}")


def stop_while_training(workdir, data, compiled_once, number):
    """Send a signal when the loop has begun, before its first step is done."""
    process = start(workdir, data, **compiled_once)
    wait_for_log(workdir, "Training", process)
    process.send_signal(number)
    return finish(process)


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_a_signal_saves_once_and_the_same_command_goes_on(
    number, exit_code, whole, compiled_once, data, tmp_path
):
    code, _, err = stop_while_training(tmp_path, data, compiled_once, number)
    assert code == exit_code, err
    assert "is saved; the same command resumes" in err
    assert "Traceback" not in err
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    step = int(checkpoint.name)
    assert 1 <= step < 6
    code, out, err = finish(start(tmp_path, data, **compiled_once))
    assert code == 0, err
    assert f"Resuming from step {step} of 6" in out
    check_same_end(tmp_path, whole)


def test_the_clock_stops_a_run_anywhere_between_two_log_rows(
    whole, compiled_once, data, tmp_path
):
    # After the first step, in the middle of a row; after the second, with its row; and
    # after the third, which is saved anyway.
    for step in (1, 2, 3):
        process = start(tmp_path, data, "--max_minutes=1e-6", **compiled_once)
        code, _, err = finish(process)
        assert code == 75, err
        assert f"--max_minutes=1e-06: step {step} of 6 is saved" in err
    code, _, err = finish(start(tmp_path, data, **compiled_once))
    assert code == 0, err
    check_same_end(tmp_path, whole)


def interrupt_twice(process):
    """Press Ctrl-C twice; return the exit code and the errors."""
    process.send_signal(signal.SIGINT)
    lines = []
    for line in process.stderr:  # until it has noticed
        lines.append(line)
        if line.startswith("Stopping"):
            break
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    return code, "".join(lines) + err


def test_a_second_ctrl_c_ends_at_once_and_the_last_checkpoint_is_complete(
    compiled_once, data, tmp_path
):
    process = start(tmp_path, data, "--config.schedule.epochs=1e6", **compiled_once)
    wait_for_log(tmp_path, "step 9: saving", process)
    code, err = interrupt_twice(process)
    assert code == 130, err
    assert "Traceback" not in err
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    step = max(int(name) for name in names if name.isdigit())
    found = arrays_of(tmp_path, step)
    assert int(found["optimizer"]["step"]) == step


def test_a_second_ctrl_c_does_not_wait_for_the_compiler(data, tmp_path):
    process = start(tmp_path, data)  # nothing compiled yet: it takes seconds
    wait_for_log(tmp_path, "Training", process)
    time.sleep(0.5)
    code, err = interrupt_twice(process)
    assert code == 130
    assert "Stopping after this step and one save. Press again: at once." in err
    assert "ended at once" in err
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))  # no step was made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_the_loop_ends_the_run_there(
    number, compiled_once, data, tmp_path
):
    process = start(tmp_path, data, **compiled_once)
    wait_for_log(tmp_path, "environment", process)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 75}[number], err
    assert "Traceback" not in err
    assert "the same command resumes" in err
