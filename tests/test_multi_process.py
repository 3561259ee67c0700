"""Two processes train one run: they agree first, and end together."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from python_process import run_python
from small_run import arrays_of, finish, start

from vireid_jax.run import processes

TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
ONE_STEP = ("--config.schedule.epochs=0.1",)


@pytest.fixture(scope="module")
def flags_of_all(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    flags = [f"--config.data.dir={data}", "--config.log.every_steps=1"]
    return [*flags, "--config.schedule.epochs=1.5"]  # nine steps, a save at each third


@pytest.fixture(scope="module")
def run_both(flags_of_all, compiled_once):
    """Start two processes on a workdir; returns both, not waited for."""

    def run(workdir, flags=((), ()), environments=({}, {})):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        common = [f"--coordinator=localhost:{port}", "--num_processes=2"]
        return [
            start(
                workdir,
                *flags_of_all,
                *common,
                f"--process_id={index}",
                *flags[index],
                **compiled_once,
                **TWO_DEVICES,
                **environments[index],
            )
            for index in range(2)
        ]

    return run


@pytest.fixture(scope="module")
def undisturbed(flags_of_all, compiled_once, tmp_path_factory):
    """A whole run by launch/local_multiprocess.sh, of the small network."""
    folder = tmp_path_factory.mktemp("undisturbed")
    small_run = Path(__file__).with_name("small_run.py")
    python = folder / "python"  # in place of `-m vireid_jax.main`
    python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {small_run} "$@"\n')
    python.chmod(0o755)
    script = Path(__file__).parents[1] / "launch" / "local_multiprocess.sh"
    run = [f"--config={small_run}", f"--workdir={folder}"]
    done = subprocess.run(
        [script, "2", *run, *flags_of_all],
        env={**os.environ, **compiled_once, "PYTHON": str(python), "DEVICES": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def one_step(flags_of_all, compiled_once, tmp_path_factory):
    """The folder of one process that has taken one step."""
    folder = tmp_path_factory.mktemp("one_step")
    code, _, err = finish(start(folder, *flags_of_all, *ONE_STEP, **compiled_once))
    assert code == 0, err
    return folder


def rows_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_same_arrays(one, two):
    one, two = arrays_of(one), arrays_of(two)
    assert len(jax.tree.leaves(one)) > 10
    jax.tree.map(np.testing.assert_array_equal, one, two)


class TestTwoProcesses:
    # Slow: each test starts two processes, and each of them jax and its compiler.
    pytestmark = pytest.mark.slow

    def test_both_end_well_and_the_first_alone_speaks(self, undisturbed):
        workdir, done = undisturbed
        assert "visible-to-infrared" in done.stdout
        assert "visible-to-infrared" not in done.stderr
        story = (workdir / "log.txt").read_text()
        assert "started as 2 processes, given by flags" in story
        assert story.count("--- ") == 1

    def test_each_step_is_logged_once_and_every_query_counts_once(self, undisturbed):
        workdir, _ = undisturbed
        rows = rows_of(workdir)
        assert [r["step"] for r in rows if r["kind"] == "train"] == list(range(1, 10))
        report = json.loads((workdir / "eval.json").read_text())
        assert report["results"][0]["valid_queries"] == 24

    def test_the_first_loss_is_that_of_one_process(self, undisturbed, one_step):
        first = [rows_of(folder)[0]["loss"] for folder in (undisturbed[0], one_step)]
        assert first[0] == pytest.approx(first[1], rel=1e-5)

    def test_a_classifier_split_over_devices_is_saved_whole(
        self, run_both, one_step, tmp_path
    ):
        flags = (*ONE_STEP, "--config.mesh.model=2")
        ends = [finish(process) for process in run_both(tmp_path, (flags, flags))]
        assert [code for code, _, _ in ends] == [0, 0], ends
        first = [rows_of(folder)[0]["loss"] for folder in (tmp_path, one_step)]
        assert first[0] == pytest.approx(first[1], rel=1e-5)
        kernels = [
            arrays_of(folder)["model"]["params"]["head"]["classifier"]["kernel"]
            for folder in (tmp_path, one_step)
        ]
        np.testing.assert_allclose(*kernels, rtol=1e-3, atol=1e-6)

    def test_a_classifier_is_not_split_over_processes(self, run_both, tmp_path):
        flags = (*ONE_STEP, "--config.mesh.model=4")  # both processes' devices
        ends = [finish(process) for process in run_both(tmp_path, (flags, flags))]
        assert all(code for code, _, _ in ends), ends
        for words in ("config.mesh.model is 4", "has 2 devices", "[1, 2]"):
            assert any(words in err for _, _, err in ends), ends

    @pytest.mark.parametrize("killed", [0, 1])
    def test_one_is_killed_the_other_ends_and_the_run_goes_on_bit_for_bit(
        self, undisturbed, run_both, tmp_path, killed
    ):
        environments = [{}, {}]
        environments[killed] = {"KILL": "step:8"}  # 3 is saved, 6 may be
        both = run_both(tmp_path, environments=environments)
        assert both[killed].wait(300) == -signal.SIGKILL
        code, _, _ = finish(both[1 - killed])
        assert code != 0
        finish(both[killed])

        ends = [finish(process) for process in run_both(tmp_path)]
        assert [code for code, _, _ in ends] == [0, 0], ends
        assert re.search("Resuming from step [36] of 9", ends[0][1])
        assert_same_arrays(undisturbed[0], tmp_path)

    def test_sigterm_to_one_stops_both_with_all_saved(
        self, undisturbed, run_both, tmp_path
    ):
        flags = ("--config.schedule.epochs=50", "--config.eval.every_epochs=50")
        both = run_both(tmp_path, flags=(flags, flags))
        metrics = tmp_path / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            assert both[0].poll() is None, finish(both[0])
            time.sleep(0.1)
        both[1].send_signal(signal.SIGTERM)
        ends = [finish(process) for process in both]
        assert [code for code, _, _ in ends] == [75, 75], ends
        assert "stopped by another process" in ends[0][2]
        assert "stopped by SIGTERM" in ends[1][2]
        assert len(list((tmp_path / "checkpoints").glob("[0-9]*"))) == 1

    @pytest.mark.parametrize(
        ("fact", "flag", "environment"),
        [
            ("config", ("--config.seed=1",), {}),
            ("set of packages", (), {"OTHER": "packages"}),
            ("training set", (), {"OTHER": "images"}),
        ],
    )
    def test_processes_that_disagree_end_with_a_line_each(
        self, run_both, tmp_path, fact, flag, environment
    ):
        both = run_both(tmp_path, ((), flag), ({}, environment))
        ends = [finish(process) for process in both]
        assert all(code for code, _, _ in ends), ends
        said = [f"process 1 has another {fact} than process 0; this is process {i}"
                for i in range(2)]  # fmt: skip
        # One may be ended by the other's end before it has said its line.
        assert any(line in err for line, (_, _, err) in zip(said, ends, strict=True))
        assert not any("Traceback" in err for _, _, err in ends)
        assert not (tmp_path / "metrics.jsonl").exists()


class TestConnect:
    def test_alone_where_nothing_says_otherwise(self, monkeypatch):
        for name in ("SLURM_JOB_ID", "TPU_WORKER_HOSTNAMES", "KUBERNETES_SERVICE_HOST"):
            monkeypatch.delenv(name, raising=False)
        assert processes.connect() == "one process"

    @pytest.mark.parametrize("index", [0, 1])
    def test_a_process_that_waits_for_the_others_in_vain_ends_with_a_line(self, index):
        """Process 0 waits for process 1; process 1 cannot reach the coordinator."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        code = "from vireid_jax.run import processes as p; p.connect(*{}, timeout=2)"
        process = run_python("-c", code.format((address, 2, index)))
        assert process.returncode == 1
        (line,) = process.stderr.splitlines()
        for words in (f"process {index}", "2 s", address, "--coordinator"):
            assert words in line

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (
                ("localhost:1", None, 0),
                "together, or none of them; they are localhost:1, None",
            ),
            (("localhost", 2, 0), "--coordinator is 'localhost'; give HOST:PORT"),
            (
                ("localhost:1", 2, 2),
                "--process_id is 2; valid values with --num_processes 2: 0 to 1",
            ),
        ],
    )
    def test_flags_that_do_not_fit_are_refused(self, flags, said):
        with pytest.raises(ValueError, match=r"give|valid") as refused:
            processes.connect(*flags)
        assert said in str(refused.value)

    @pytest.mark.parametrize(
        ("environment", "cluster"),
        [
            ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, "SLURM"),
            ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}, ""),
            ({"TPU_WORKER_HOSTNAMES": "a,b"}, "Cloud TPU"),
            (
                {"KUBERNETES_SERVICE_HOST": "k", "JOB_COMPLETION_INDEX": "0"},
                "Kubernetes",
            ),
            ({"KUBERNETES_SERVICE_HOST": "k"}, ""),
        ],
    )
    def test_clusters_are_known_by_their_environment(
        self, monkeypatch, environment, cluster
    ):
        monkeypatch.setattr(os, "environ", environment)
        assert processes.cluster() == cluster
