"""Several processes of one run: how they meet, how they agree, how they end together.

Each process drives its own devices and reads its own share of each batch; jax moves the
rest. Process 0 alone writes and speaks.
"""

import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vireid_jax.run.errors import UserError
from vireid_jax.run.stopping import Stopped

# After so many seconds without a sign of life a process counts as dead, and the
# runtime ends the others. jax's default is 100.
HEARTBEAT_SECONDS = 10
CONNECT_SECONDS = 120  # to wait for the others at the start


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = CONNECT_SECONDS,
) -> str:
    """Joins the processes of this run; returns in words how it knew of them.

    With the three arguments as they say; without, as SLURM, Cloud TPU or Kubernetes
    say, and where there is none of these, one process alone. Call it before jax
    touches a device. Raises UserError for arguments that do not fit together, and
    where the coordinator cannot be reached within `timeout` seconds; ends the process
    with a line where others do not come within these.
    """
    given = (coordinator, num_processes, process_id)
    found = cluster()
    if given == (None, None, None) and not found:
        return "one process"
    # Its notifier would take SIGTERM away from `stopping`, which saves and ends.
    jax.config.update("jax_enable_preemption_service", False)
    seconds = {"heartbeat_timeout_seconds": HEARTBEAT_SECONDS}
    if given == (None, None, None):
        jax.distributed.initialize(initialization_timeout=timeout, **seconds)
        return f"{jax.process_count()} processes, found by {found}"
    _check(*given)
    if process_id > 0:
        _wait_for(coordinator, process_id, timeout)
    # When its own time is up the runtime aborts with a page of C++: be faster.
    seconds["initialization_timeout"] = 2 * timeout + 60
    patience = threading.Timer(timeout, _give_up, (*given, timeout))
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            *given, cluster_detection_method="deactivate", **seconds
        )
    finally:
        patience.cancel()
    return f"{num_processes} processes, given by flags"


def cluster() -> str:
    """Names the system that started this process as one of several, if one did."""
    env = os.environ
    if "SLURM_JOB_ID" in env and int(env.get("SLURM_NTASKS", 1)) > 1:
        return "SLURM"
    if any(Path("/dev").glob("accel*")) or "TPU_WORKER_HOSTNAMES" in env:
        return "Cloud TPU"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return "Kubernetes"
    return ""


def _check(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Raises UserError unless the three flags make sense together."""
    if None in (coordinator, num_processes, process_id):
        raise UserError(
            "give --coordinator HOST:PORT, --num_processes and --process_id together,"
            f" or none; given are {coordinator}, {num_processes}, {process_id}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"--coordinator is {coordinator!r}; give HOST:PORT of process 0, such as"
            " 10.0.0.1:1234"
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id is {process_id}; with --num_processes {num_processes} legal"
            f" are 0 to {num_processes - 1}"
        )


def _wait_for(coordinator: str, process_id: int, timeout: int) -> None:
    """Waits until somebody listens there: the runtime itself would end in an abort."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"process {process_id} could not reach the coordinator at"
                    f" {coordinator} within {timeout} s ({error.strerror or error})."
                    " Start process 0 there, or mend --coordinator"
                ) from error
            time.sleep(0.5)


def _give_up(
    coordinator: str, num_processes: int, process_id: int, timeout: int
) -> None:
    """Ends this process, which waits inside the runtime for others that do not come."""
    sys.stderr.write(
        f"process {process_id} of {num_processes} waited {timeout} s at {coordinator}"
        f" and not all came. Start all {num_processes} with the same --coordinator and"
        " --num_processes, each with its own --process_id\n"
    )
    sys.stderr.flush()
    os._exit(1)


def is_first() -> bool:
    """Tells whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def agree(facts: Mapping[str, str]) -> None:
    """Raises UserError, in every process, unless all hold the same facts."""
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(text.encode()).digest() for text in facts.values()]
    mine = np.frombuffer(b"".join(digests), np.uint8).reshape(len(facts), 32)
    all_of_them = multihost_utils.process_allgather(mine)
    for index, name in enumerate(facts):
        other = np.flatnonzero((all_of_them[:, index] != all_of_them[0, index]).any(-1))
        if len(other):
            raise UserError(
                f"process {other[0]} has another {name} than process 0; this is"
                f" process {jax.process_index()} with {facts[name][:200]}. Start all"
                " with the same command, code and data"
            )


def any_of(flag: bool) -> bool:
    """Tells whether `flag` is set in one process at least; all must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def gather(rows: np.ndarray) -> np.ndarray:
    """Stacks what every process holds, `[processes, *rows.shape]`, in each of them."""
    if jax.process_count() == 1:
        return rows[None]
    return np.asarray(multihost_utils.process_allgather(rows))


@contextlib.contextmanager
def first_goes_first() -> Iterator[None]:
    """Runs the body in process 0, and only then in the others.

    For work on files that may or may not be shared, such as preparing a data set.
    """
    wait = lambda: multihost_utils.sync_global_devices("process 0 goes first")
    if not is_first():
        wait()
    yield
    if is_first() and jax.process_count() > 1:
        wait()


@contextlib.contextmanager
def fall_together() -> Iterator[None]:
    """Ends this process at once on any error, so that the runtime ends the others.

    An ordinary exit would wait at a barrier that the others never reach.
    """
    try:
        yield
    except Stopped:  # all stop together
        raise
    except BaseException as error:
        if not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        code = 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        elif isinstance(error.code, int):
            code = error.code
        else:
            sys.stderr.write(f"{error.code}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
