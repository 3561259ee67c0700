"""Compile the train step for TPUs that are not here, in a process of its own.

libtpu learns from the environment that no TPU is there, and writes to stderr; the
caller's process is kept clean of both.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from ml_collections import FrozenConfigDict

from vireid_jax.config import validate, with_defaults
from vireid_jax.planning.cost import Cost, compile_step
from vireid_jax.run.errors import UserError, check_installed, did_you_mean

# Bytes of a chip: cloud.google.com/tpu/docs/v5e and .../v6e.
MEMORY = {"v5e": 16e9, "v6e": 32e9}
# The shapes of slices by their number of chips: "Configurations" on the same pages.
SHAPES = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8)}
SHAPES |= {128: (8, 16), 256: (16, 16)}
TOPOLOGIES = {f"{chip}-{count}": count for chip in MEMORY for count in SHAPES}

# Environment of the process that compiles.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # for all but the compiler
    "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks Google's cloud about this machine
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # beside another dry run
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class DoesNotFitError(UserError):
    """A chip has too little memory; the message is the compiler's."""


def chips_of(name: str) -> int:
    """Return the number of chips of a topology such as `v5e-8`.

    Raise UserError for an unknown one, or where libtpu is not installed.
    """
    if name not in TOPOLOGIES:
        meant = did_you_mean(name, TOPOLOGIES)
        valid = f"valid values: {list(TOPOLOGIES)}"
        raise UserError(f"unknown topology {name!r}; {meant}{valid}")
    check_installed("compiling for a TPU", "aot", "libtpu")
    return TOPOLOGIES[name]


def compile_for(
    name: str, config: FrozenConfigDict, num_classes: int, cached_rows: tuple[int, int]
) -> Cost:
    """Compile the step for a topology such as `v5e-8`; takes minutes for an OSNet.

    Raise DoesNotFitError where a chip has too little memory, and UserError where libtpu
    fails for another reason.
    """
    config = json.loads(config.to_json_best_effort())
    done = subprocess.run(
        [sys.executable, "-m", "vireid_jax.planning.topology"],
        env=os.environ | ENVIRONMENT,
        input=json.dumps([name, config, num_classes, cached_rows]),
        capture_output=True,
        text=True,
        check=False,
    )
    if full := re.search(r"Ran out of memory in [^\n]*", done.stderr):
        raise DoesNotFitError(f"{name}: {full[0]}")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{name} was not compiled: {lines[-1]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def make_mesh(name: str, model: int = 1) -> Mesh:
    """Arrange a topology's chips as `(data, model)`; needs `ENVIRONMENT`."""
    from jax.experimental import topologies

    count = TOPOLOGIES[name]
    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name="{}:{}x{}".format(name.partition("-")[0], *SHAPES[count]),
        chips_per_host_bounds=(*SHAPES[count if count <= 8 else 4], 1),
    )
    devices: np.ndarray = np.array(topology.devices).reshape(-1, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def main() -> None:
    """Answer one request of `compile_for`."""
    name, config, num_classes, cached_rows = json.loads(sys.stdin.read())
    config = validate(with_defaults(config))
    jax.config.update("jax_enable_compilation_cache", False)  # no run reads these
    mesh = make_mesh(name, config.mesh.model)
    cost = compile_step(mesh, config, num_classes, tuple(cached_rows))
    sys.stdout.write(f"{json.dumps(asdict(cost))}\n")


if __name__ == "__main__":
    main()
