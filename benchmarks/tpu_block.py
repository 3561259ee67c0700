"""Read what a TPU's compiler makes of one OSBlock, as it is and in other forms.

    python -m benchmarks.tpu_block [--form NAME ...] [--write_docs]

compiles the forward and backward pass of the first block of `conv2` (x1.0, 24 rows of
72x36 pixels, bfloat16) for one v5e chip, and of the reduction after it, and prints for
each form what XLA reports: the cycles it expects, bytes accessed, temporaries.
Needs libtpu (`pip install 'vireid-jax[aot]'`) and no TPU; nothing is run. With
`--write_docs` the table goes into docs/scaling.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jax.stages import Lowered

from benchmarks.demo import write_block
from benchmarks.scaling import DOCUMENT
from vireid_jax.models import ops, osnet
from vireid_jax.planning import topology
from vireid_jax.planning.cost import read_cost
from vireid_jax.run.environment import commit

ROWS = 24  # 8 pairs and the third view
BLOCK, REDUCTION = (72, 36, 64), (72, 36, 256)  # [H, W, C] at their entries


def narrow_window_pool(x):
    """Add up in the activations' own type; `ops` adds in float32."""
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") * 0.25


def matrix_pool(x):
    """Average 2x2 windows by a depthwise convolution of stride 2."""
    channels = x.shape[-1]
    return lax.conv_general_dilated(
        x,
        jnp.full((2, 2, 1, channels), 0.25, x.dtype),
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


POOL, DEPTHWISE = "average_pool2x2", "depthwise3x3"  # of ops
FORMS: dict[str, tuple[type[nn.Module], tuple[int, ...], dict[str, Callable]]] = {
    "block": (osnet.OSBlock, BLOCK, {DEPTHWISE: ops.depthwise3x3}),
    "block, depthwise as shifts": (
        osnet.OSBlock,
        BLOCK,
        {DEPTHWISE: ops._depthwise_shifts},
    ),
    "reduction": (osnet.Reduction, REDUCTION, {POOL: ops.average_pool2x2}),
    "reduction, reshape and mean": (
        osnet.Reduction,
        REDUCTION,
        {POOL: ops._average_pool_reshape},
    ),
    "reduction, narrow": (osnet.Reduction, REDUCTION, {POOL: narrow_window_pool}),
    "reduction, convolution": (osnet.Reduction, REDUCTION, {POOL: matrix_pool}),
}


def lower(make: Callable[..., nn.Module], entry: tuple[int, ...]) -> Lowered:
    """Lower a layer's forward and backward pass, with all gradients, for one chip."""
    layer = make(256)
    x = jax.ShapeDtypeStruct((ROWS, *entry), jnp.bfloat16)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: layer.init(key, x, None, True), x)

    def forward(variables, x):
        return layer.apply(variables, x, None, True, mutable=["batch_stats"])

    def both(params, batch_stats, x, g):
        run = lambda params, x: forward(
            {"params": params, "batch_stats": batch_stats}, x
        )
        y, back, updated = jax.vjp(run, params, x, has_aux=True)
        return y, back(g), updated

    y, _ = jax.eval_shape(forward, variables, x)
    mesh = topology.make_mesh("v5e-1")
    everywhere = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(both, in_shardings=everywhere, out_shardings=everywhere)
    return jitted.lower(variables["params"], variables["batch_stats"], x, y)


def measure(name: str) -> dict[str, Any]:
    """Compile one form; return its row of the table."""
    make, entry, patches = FORMS[name]
    with mock.patch.multiple(ops, **patches):
        compiled = lower(make, entry).compile()
    # The compiler writes cycles beside the instructions of the entry, which is last.
    entry_text = compiled.as_text().partition("\nENTRY ")[2]
    cycles = map(int, re.findall(r'"estimated_cycles":"(\d+)"', entry_text))
    cost = read_cost(compiled, 1, 0.0)
    return {
        "form": name,
        "Mcycles": round(sum(cycles) / 1e6, 3),
        "accessed MB": round(cost.bytes_accessed / 1e6, 1),
        "temporaries MB": round(cost.temporary_bytes / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--form", action="append", choices=list(FORMS))
    parser.add_argument("--write_docs", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.form or list(FORMS)
    if arguments.here:
        for name in names:
            print(json.dumps(measure(name)), flush=True)
        return
    topology.chips_of("v5e-1")  # or the error that libtpu is not installed
    flags = [flag for name in names for flag in ("--form", name)]
    command = [sys.executable, "-m", "benchmarks.tpu_block", "--here", *flags]
    environment = os.environ | topology.ENVIRONMENT
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    print(table_of(rows))
    if arguments.write_docs:
        libtpu = metadata.version("libtpu")
        origin = (
            f"libtpu {libtpu}, commit `{commit()}`, `python -m benchmarks.tpu_block`."
        )
        write_block(DOCUMENT, "tpu_block", f"{table_of(rows)}\n\n{origin}")


def table_of(rows: list[dict[str, Any]]) -> str:
    """Write what was measured as a table in Markdown."""
    names = list(rows[0])
    lines = [names, ["---", *["---:"] * (len(names) - 1)]]
    lines += [[str(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
