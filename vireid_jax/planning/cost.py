"""The cost of a compiled program, as XLA reports it."""

import math
import re
import time
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax.training.program import make_program, step_arguments

Config: TypeAlias = ConfigDict | FrozenConfigDict
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf" = (.*?) ({KINDS})(-start)?\((.*)")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")


@dataclass(frozen=True)
class Cost:
    """Cost of a compiled step on one of its devices.

    Memory is XLA's `memory_analysis`, `flops` and `bytes_accessed` its `cost_analysis`.
    `collectives` has, by kind, their `count` and the `bytes` of their results.
    """

    devices: int
    argument_bytes: int
    output_bytes: int
    aliased_bytes: int  # outputs that reuse the arguments' memory
    temporary_bytes: int  # activations above all
    code_bytes: int
    flops: float
    bytes_accessed: float
    compile_seconds: float
    collectives: dict[str, dict[str, int]]

    @property
    def memory(self) -> int:
        """Return the bytes that the step needs at the same time."""
        held = self.argument_bytes + self.output_bytes - self.aliased_bytes
        return held + self.temporary_bytes + self.code_bytes


def read_cost(compiled: jax.stages.Compiled, devices: int, seconds: float) -> Cost:
    """Read the cost of a program that took `seconds` to compile for `devices`."""
    memory: Any = compiled.memory_analysis()
    cost = compiled.cost_analysis() or {}
    return Cost(
        devices=devices,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        aliased_bytes=memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        flops=float(cost.get("flops", 0.0)),
        bytes_accessed=float(cost.get("bytes accessed", 0.0)),
        compile_seconds=round(seconds, 1),
        collectives=count_collectives(compiled.as_text() or ""),
    )


def compile_step(
    mesh: Mesh, config: Config, num_classes: int, cached_rows: tuple[int, int]
) -> Cost:
    """Compile the train step of a config for the devices of `mesh`."""
    program = make_program(config, num_classes, mesh)
    start = time.monotonic()
    arguments = step_arguments(config, program.shapes, cached_rows)
    compiled = program.step.lower(*arguments).compile()
    return read_cost(compiled, mesh.size, time.monotonic() - start)


def count_collectives(text: str) -> dict[str, dict[str, int]]:
    """Count the collectives in a compiled program's text, by kind.

    One in a loop counts once, and so does one that the TPU's compiler cut into a chain.
    """
    counts: dict[str, dict[str, int]] = {}
    chains = set()
    for shape, kind, start, rest in _COLLECTIVE.findall(text):
        if chain := re.search(r'chain_id="\d+"', rest):
            if (kind, chain[0]) in chains:
                continue
            chains.add((kind, chain[0]))
        arrays = _ARRAY.findall(shape)
        if start:  # its result lists flags too, and of these kinds the operands first
            arrays = [array for array in arrays if array[2]]
            if kind in ("all-gather", "collective-permute"):
                arrays = arrays[len(arrays) // 2 :]
        count = counts.setdefault(kind, {"count": 0, "bytes": 0})
        count["count"] += 1
        for _, bits, dims in arrays:  # "pred" has no bits in its name: a byte each
            elements = math.prod(int(size) for size in dims.split(",") if size)
            count["bytes"] += elements * int(bits or 8) // 8
    return counts
