"""Read what a TPU's compiler makes of one OSBlock, as it is and in other forms.

    python -m benchmarks.tpu_block [--form NAME ...] [--write_docs]

compiles the forward and backward pass of the first block of `conv2` (x1.0, 24 rows of
72x36 pixels, bfloat16) for one v5e chip, and of the reduction after it, and prints for
each form: the compiler's own cycles, main-memory passes and bytes, all bytes accessed.
Needs libtpu (`pip install 'vireid-jax[aot]'`) and no TPU; nothing is run. With
`--write_docs` the table goes into docs/scaling.md.
"""

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
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
from vireid_jax.models import norm, ops, osnet
from vireid_jax.planning import ahead, compiled
from vireid_jax.planning.hardware import find_slice
from vireid_jax.run.environment import commit

ROWS = 24  # 8 pairs and the third view
BLOCK, REDUCTION = (72, 36, 64), (72, 36, 256)  # [H, W, C] at their entries


class NarrowNorm(norm.BatchNorm):
    """Applies scale and shift in the activations' type; statistics stay float32."""

    @nn.compact
    def __call__(self, x, train):
        """Normalises with the batch's statistics."""
        gain, shift = self._gain_and_shift(x)
        return x * gain.astype(x.dtype) + shift.astype(x.dtype)

    def _gain_and_shift(self, x):
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        self.variable("batch_stats", "mean", jnp.zeros, channels)
        self.variable("batch_stats", "var", jnp.ones, channels)
        axes = tuple(range(x.ndim - 1))
        wide = x.astype(jnp.float32)
        mean = wide.mean(axes)
        var = jnp.maximum((wide * wide).mean(axes) - mean * mean, 0)
        gain = scale * lax.rsqrt(var + self.epsilon)
        return gain, bias - mean * gain


@jax.custom_vjp
def _batch_norm(x, scale, bias):
    return _batch_norm_forward(x, scale, bias)[0]


def _batch_norm_forward(x, scale, bias):
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    mean = wide.mean(axes)
    var = jnp.maximum((wide * wide).mean(axes) - mean * mean, 0)
    inverse = lax.rsqrt(var + 1e-5)
    gain = scale * inverse
    y = wide * gain + (bias - mean * gain)
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _batch_norm_backward(saved, g):
    """Takes both sums of the gradient in one pass, then one multiply-add of x and g."""
    x, mean, inverse, scale = saved
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    wide, g = x.astype(jnp.float32), g.astype(jnp.float32)
    total = g.sum(axes)
    with_x = (g * wide).sum(axes)
    dscale = (with_x - mean * total) * inverse
    a = scale * inverse
    b = -a * inverse * dscale / count
    c = -a * total / count - b * mean
    return (a * g + b * wide + c).astype(x.dtype), dscale, total


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


class ByHandNorm(NarrowNorm):
    """Has its gradient written by hand: two sums in one pass, one multiply-add."""

    @nn.compact
    def __call__(self, x, train):
        """Normalises with the batch's statistics."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        self.variable("batch_stats", "mean", jnp.zeros, channels)
        self.variable("batch_stats", "var", jnp.ones, channels)
        return _batch_norm(x, scale, bias)


def narrow_window_pool(x):
    """Adds up in the activations' own type; `ops` adds in float32."""
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") * 0.25


def matrix_pool(x):
    """Averages 2x2 windows by a depthwise convolution of stride 2."""
    channels = x.shape[-1]
    return lax.conv_general_dilated(
        x,
        jnp.full((2, 2, 1, channels), 0.25, x.dtype),
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def _with_norm(layer: type[nn.Module]):
    return mock.patch.object(osnet, "norm", functools.partial(norm.norm, layer=layer))


def _with_pool(pool: Callable):
    return mock.patch.object(ops, "average_pool2x2", pool)


def _with_shifts():
    return mock.patch.object(ops, "depthwise3x3", ops._depthwise_shifts)


FORMS = {
    "block": (osnet.OSBlock, BLOCK, contextlib.nullcontext),
    "block, narrow norm": (osnet.OSBlock, BLOCK, lambda: _with_norm(NarrowNorm)),
    "block, norm by hand": (osnet.OSBlock, BLOCK, lambda: _with_norm(ByHandNorm)),
    "block, depthwise as shifts": (osnet.OSBlock, BLOCK, _with_shifts),
    "reduction": (osnet.Reduction, REDUCTION, contextlib.nullcontext),
    "reduction, reshape and mean": (
        osnet.Reduction,
        REDUCTION,
        lambda: _with_pool(ops._average_pool_reshape),
    ),
    "reduction, narrow": (
        osnet.Reduction,
        REDUCTION,
        lambda: _with_pool(narrow_window_pool),
    ),
    "reduction, convolution": (
        osnet.Reduction,
        REDUCTION,
        lambda: _with_pool(matrix_pool),
    ),
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
    mesh = ahead.mesh_of(find_slice("v5e-1"), 1)
    place = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(both, in_shardings=place, out_shardings=place)
    return jitted.lower(variables["params"], variables["batch_stats"], x, y)


def measure(name: str) -> dict[str, float]:
    """Compiles one form; returns what is printed of it."""
    make, entry, form = FORMS[name]
    with form():
        done = lower(make, entry).compile()
    facts = compiled.read(done, "tpu", 1)
    return {
        "Mcycles": round(facts.cycles / 1e6, 3),
        "passes": facts.passes,
        "main memory MB": round(facts.hbm_bytes / 1e6, 1),
        "accessed MB": round(facts.bytes_accessed / 1e6, 1),
        "temporaries MB": round(facts.temporary_bytes / 1e6, 1),
    }


def measure_all(names: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    for name in names:
        yield name, measure(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--form", action="append", choices=list(FORMS))
    parser.add_argument("--write_docs", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.form or list(FORMS)
    if arguments.here:
        for name, found in measure_all(names):
            print(json.dumps({"form": name} | found), flush=True)
        return
    ahead.check_libtpu()
    flags = [flag for name in names for flag in ("--form", name)]
    command = [sys.executable, "-m", "benchmarks.tpu_block", "--here", *flags]
    environment = os.environ | ahead.ENVIRONMENT
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
