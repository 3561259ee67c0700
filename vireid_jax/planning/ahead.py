"""Compiles the train step for TPUs that are not here, in a process of its own.

libtpu wants to be told by the environment that no TPU is there, and writes what it
thinks to stderr; in the caller's process neither is to happen.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax.config import validate, with_defaults
from vireid_jax.planning import compiled
from vireid_jax.planning.compiled import Facts
from vireid_jax.planning.hardware import SLICES, Slice
from vireid_jax.run.errors import UserError
from vireid_jax.training.program import make_program, step_arguments

# Of the process that compiles.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # for all but the compiler
    "TPU_SKIP_MDS_QUERY": "1",  # else it asks Google's cloud who it is
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # beside another dry run
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class DoesNotFitError(UserError):
    """Says that a chip's memory does not suffice, in the compiler's words."""


def check_libtpu() -> None:
    """Raises UserError, saying what to install, where the compiler is missing."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for a TPU needs libtpu, which is not installed:"
            " pip install 'vireid-jax[aot]' (140 MB; no TPU needed)"
        )


def compile_for(
    where: Slice,
    config: ConfigDict | FrozenConfigDict,
    num_classes: int,
    cached_rows: tuple[int, int],
) -> Facts:
    """Compiles the step of a config for a slice; takes minutes for a whole network.

    Raises DoesNotFitError where a chip has too little memory, and UserError where
    libtpu is missing or refuses for another reason.
    """
    check_libtpu()
    request = {
        "slice": where.name,
        "config": json.loads(config.to_json_best_effort()),
        "num_classes": num_classes,
        "cached_rows": cached_rows,
    }
    done = subprocess.run(
        [sys.executable, "-m", "vireid_jax.planning.ahead"],
        env=os.environ | ENVIRONMENT,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if full := re.search(r"Ran out of memory in [^\n]*", done.stderr):
        raise DoesNotFitError(f"{where.name}: {full[0]}")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise UserError(f"{where.name} was not compiled: {said[-1]}")
    return Facts.from_json(json.loads(done.stdout.splitlines()[-1]))


def mesh_of(where: Slice, model: int) -> Mesh:
    """Arranges a slice's chips as `(data, model)`; needs libtpu's environment."""
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name=where.topology,
        chips_per_host_bounds=where.host_bounds,
    )
    devices = np.array(topology.devices).reshape(-1, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def compile_step(
    mesh: Mesh,
    config: ConfigDict | FrozenConfigDict,
    num_classes: int,
    cached_rows: tuple[int, int],
) -> Facts:
    """Compiles the step of a config for the devices of `mesh`, in this process."""
    program = make_program(config, num_classes, mesh)
    start = time.monotonic()
    lowered = program.step.lower(*step_arguments(config, program.shapes, cached_rows))
    done = lowered.compile()
    seconds = time.monotonic() - start
    return compiled.read(done, mesh.devices.flat[0].platform, mesh.size, seconds)


def main() -> None:
    """Answers one request of `compile_for`."""
    request = json.loads(sys.stdin.read())
    config = validate(with_defaults(request["config"]))
    jax.config.update("jax_enable_compilation_cache", False)  # no run reads these
    mesh = mesh_of(SLICES[request["slice"]], config.mesh.model)
    facts = compile_step(
        mesh, config, request["num_classes"], tuple(request["cached_rows"])
    )
    sys.stdout.write(f"{json.dumps(facts.to_json())}\n")


if __name__ == "__main__":
    main()
