"""The launch scripts: their commands; processes that start and end together."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
LOCAL = LAUNCH / "local_multiprocess.sh"
FLAGS = ("--config", "configs/demo.py", "--workdir", "runs/with space")
COMMAND = ["-m", "vireid_jax.main", *FLAGS]
CHANGED = ("PYTHON", "DEVICES", "GRACE", "XLA_FLAGS", "SPOT", "BUCKET", "ZONE", "TYPE")

# Replaces Python: records its number and arguments, then acts by its number's
# BEHAVIOUR. It records signals too, and ends after them as the program does.
STAND_IN = """\
#!{python}
import json, os, signal, sys, time
number = int(sys.argv[sys.argv.index("--process_id") + 1])
note = lambda name, text: open(f"{{name}}-{{number}}", "a").write(text + "\\n")
def stop(received, frame):
    note("signals", signal.Signals(received).name)
    sys.exit(130 if received == signal.SIGINT else 75)
behaviour = os.environ["BEHAVIOUR"].split(",")[number]
if behaviour != "deaf":
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
print("hello from", number, flush=True)
note("started", json.dumps([sys.argv[1:], os.environ.get("XLA_FLAGS")]))
if behaviour in ("wait", "deaf"):
    time.sleep(60)
sys.exit(int(behaviour))
"""


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if name not in CHANGED}
    return {**kept, **changes}


def dry_run(script, *arguments, **changes):
    """Return the commands of a script, each a list of words."""
    done = subprocess.run(
        ["bash", script, "--dry-run", *arguments],
        cwd=ROOT,
        env=environment(PYTHON="python", PATH="/usr/bin:/bin", **changes),
        capture_output=True,
        text=True,
        check=True,
    )
    return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.fixture
def local(tmp_path):
    """Start local_multiprocess.sh with stand-ins; `local("0,wait")` starts two."""
    stand_in = tmp_path / "stand_in"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    started = []
    # A process started in the background ignores Ctrl-C, and so do its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(behaviour, **changes):
        count = len(behaviour.split(","))
        process = subprocess.Popen(
            [LOCAL, str(count), *FLAGS],
            cwd=tmp_path,
            env=environment(PYTHON=str(stand_in), BEHAVIOUR=behaviour, **changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    signal.signal(signal.SIGINT, before)
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=120)


def wait_for(paths):
    end = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < end, f"{paths} never came"
        time.sleep(0.02)


# --- The scripts ----------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    assert os.access(script, os.X_OK)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_every_file():
    text = (LAUNCH / "README.md").read_text()
    for path in [*SCRIPTS, *LAUNCH.glob("*.yaml")]:
        assert f"launch/{path.name}" in text


def test_locally_each_process_gets_its_number_and_all_the_same_port():
    lines = dry_run(LOCAL, "3", *FLAGS)
    (port,) = {line[line.index("--coordinator") + 1] for line in lines}
    assert re.fullmatch(r"127\.0\.0\.1:\d{5}", port)
    ends = ["--coordinator", port, "--num_processes", "3", "--process_id"]
    assert lines == [["env", "python", *COMMAND, *ends, str(i)] for i in range(3)]


def test_locally_devices_are_simulated_on_request_beside_other_flags():
    (line,) = dry_run(LOCAL, "1", *FLAGS, DEVICES="4", XLA_FLAGS="--xla_other=1")
    flags = "XLA_FLAGS=--xla_other=1 --xla_force_host_platform_device_count=4"
    assert line[:4] == ["env", "JAX_PLATFORMS=cpu", flags, "python"]


@pytest.mark.parametrize("count", ["", "0", "two", "-1"])
def test_locally_the_number_of_processes_is_required(count):
    done = subprocess.run([LOCAL, count, *FLAGS], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: " in done.stderr


def test_slurm_runs_the_command_in_each_task():
    (line,) = dry_run(LAUNCH / "slurm.sbatch", *FLAGS)
    assert line[0] == "srun"
    assert line[line.index("python") :] == ["python", *COMMAND]
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", text, re.MULTILINE))
    assert options["gpus-per-node"] == options["ntasks-per-node"]
    assert options["signal"] == "TERM@120"  # to the tasks, not to the batch script


def test_a_tpu_is_requested_and_every_worker_runs_the_command():
    changes = {"SPOT": "1", "BUCKET": "mine", "TYPE": "v6e-8"}
    create, *steps = dry_run(LAUNCH / "tpu_vm.sh", "me", *FLAGS, **changes)
    words = ["gcloud", "compute", "tpus", "queued-resources", "create", "me"]
    assert create[: len(words)] == words
    assert {"--node-id", "--zone", "--runtime-version", "--spot"} < set(create)
    assert create[create.index("--accelerator-type") + 1] == "v6e-8"
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "me", "--zone"]
    for step in steps:
        assert step[: len(ssh)] == ssh
        assert "--worker=all" in step
    clone, install, mount, run = (step[-1] for step in steps)
    assert "git clone" in clone
    assert "'.[tpu]'" in install
    assert "gcsfuse --implicit-dirs mine bucket" in mount
    prefix = ["cd", "vireid_jax", "&&", "exec", ".venv/bin/python"]
    assert shlex.split(run) == [*prefix, *COMMAND]


def test_the_jobset_has_the_fields_that_jax_reads():
    """As jax/_src/clusters/k8s_cluster.py reads it."""
    documents = yaml.safe_load_all((LAUNCH / "k8s_jobset.yaml").read_text())
    found = {document["kind"]: document for document in documents}
    jobset, service = found["JobSet"], found["Service"]
    name = jobset["metadata"]["name"]
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    # Process 0 is looked up at JOB-0.NAME-OF-THE-JOBSET.
    network = jobset["spec"]["network"]
    assert network == {"enableDNSHostnames": True, "subdomain": name}
    assert service["metadata"]["name"] == name
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"jobset.sigs.k8s.io/jobset-name": name}
    # The number of processes is one Job's parallelism, the id a pod's index in it.
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert job["replicas"] == 1
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"] > 1
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (
        0,
        "Never",
    )
    # It may read pods, jobs and services.
    pod = spec["template"]["spec"]
    account = found["ServiceAccount"]["metadata"]["name"]
    assert pod["serviceAccountName"] == account
    (subject,) = found["RoleBinding"]["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": account}
    assert found["RoleBinding"]["roleRef"]["name"] == found["Role"]["metadata"]["name"]
    verbs = {
        resource: set(rule["verbs"])
        for rule in found["Role"]["rules"]
        for resource in rule["resources"]
    }
    assert verbs["pods"] >= {"list"}
    assert verbs["services"] >= {"list"}
    assert verbs["jobs"] >= {"get"}
    # The command is the usual one, and its config exists.
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "vireid_jax.main"]
    flags = dict(one.removeprefix("--").split("=") for one in container["args"])
    assert (ROOT / flags["config"]).is_file()
    assert flags["workdir"].startswith("/shared/")
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


# --- Processes ------------------------------------------------------------------------


def test_locally_processes_start_and_the_output_of_others_is_marked(local, tmp_path):
    process = local("0,0", DEVICES="2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "hello from 0\n"
    assert err == "[1] hello from 1\n"
    for number in range(2):
        text = (tmp_path / f"started-{number}").read_text()
        assert f'"--process_id", "{number}"' in text
        assert "--xla_force_host_platform_device_count=2" in text
    assert len(list(tmp_path.glob("started-*"))) == 2


def test_locally_the_first_failure_is_the_exit_code_and_ends_the_others(
    local, tmp_path
):
    process = local("wait,3,deaf", GRACE="1")
    process.communicate(timeout=120)
    assert process.returncode == 3
    assert not list(tmp_path.glob("signals-*"))  # they were killed


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_locally_a_signal_reaches_every_process_once(number, code, local, tmp_path):
    process = local("wait,wait,wait")
    wait_for([tmp_path / f"started-{i}" for i in range(3)])
    process.send_signal(getattr(signal, number))
    process.communicate(timeout=120)
    assert process.returncode == code
    for i in range(3):
        assert (tmp_path / f"signals-{i}").read_text() == f"{number}\n"
