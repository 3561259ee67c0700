"""Reads what XLA says of a compiled program: memory, operations, collectives."""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import jax

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_SMALL = 2**16
_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16}
_ARRAY = re.compile(r"\b([a-z]+\d*)[a-z0-9]*\[([\d,]*)\](?:\{([^{}]*)\})?")
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z-]*[a-z])\((.*)$")
_NO_TRAFFIC = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",  # its body's own passes are not counted
    "after-all",
    "partition-id",
}


class Collective(NamedTuple):
    """How many collectives of one kind a program holds, and the bytes they give.

    `small` counts those of less than 64 KiB: their time is that of the way alone.
    """

    count: int = 0
    bytes: int = 0
    small: int = 0


@dataclass(frozen=True)
class Facts:
    """What is known of a compiled step; every number is that of one device.

    `flops` and `bytes_accessed` are XLA's own estimates; `hbm_bytes` counts the arrays
    that each instruction reads and writes in the chip's main memory, tiles' padding
    included: 0 where the program names no other memory, as on a CPU.
    """

    platform: str
    devices: int
    argument_bytes: int
    output_bytes: int
    aliased_bytes: int  # outputs that lie in the arguments' memory
    temporary_bytes: int  # activations above all
    code_bytes: int
    flops: float
    bytes_accessed: float
    hbm_bytes: int
    passes: int  # instructions that touch main memory
    cycles: int
    compile_seconds: float
    collectives: dict[str, Collective] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        """Returns the bytes that the step needs at once."""
        held = self.argument_bytes + self.output_bytes - self.aliased_bytes
        return held + self.temporary_bytes + self.code_bytes

    @property
    def traffic(self) -> float:
        """Returns the bytes to divide by the memory's bandwidth."""
        return self.hbm_bytes or self.bytes_accessed

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` reads."""
        named = {kind: c._asdict() for kind, c in self.collectives.items()}
        return asdict(self) | {"collectives": named}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Facts":
        """Rebuilds what `to_json` returned."""
        named = {kind: Collective(**c) for kind, c in found["collectives"].items()}
        return cls(**found | {"collectives": named})


def read(
    compiled: jax.stages.Compiled, platform: str, devices: int, seconds: float = 0.0
) -> Facts:
    """Reads a compiled program that took `seconds` to compile for `devices`."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    text = compiled.as_text()
    passes = hbm_passes(text) if platform == "tpu" else []
    return Facts(
        platform=platform,
        devices=devices,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        aliased_bytes=memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        flops=float(cost.get("flops", 0.0)),
        bytes_accessed=float(cost.get("bytes accessed", 0.0)),
        hbm_bytes=sum(size for _, size in passes),
        passes=len(passes),
        cycles=expected_cycles(text),
        compile_seconds=round(seconds, 1),
        collectives=collectives(text),
    )


def collectives(text: str) -> dict[str, Collective]:
    """Counts the collectives in a program's text, by kind.

    Bytes are those of the results. Of an asynchronous one only the start counts, and of
    one that the TPU's compiler cut into a chain among other work, one link. One inside
    a loop counts once.
    """
    found: dict[str, Collective] = {}
    chains = set()
    for line in text.splitlines():
        match = _LINE.match(line)
        kind = match and match[3].removesuffix("-start")
        if not match or kind not in KINDS:
            continue
        chain = re.search(r'chain_id="(\d+)"', line)
        if chain and (kind, chain[1]) in chains:
            continue
        chains |= {(kind, chain[1])} if chain else set()
        size = _result_bytes(match[2], kind, match[3].endswith("-start"))
        old = found.get(kind, Collective())
        small = old.small + (size < _SMALL)
        found[kind] = Collective(old.count + 1, old.bytes + size, small)
    return {kind: found[kind] for kind in KINDS if kind in found}


def _result_bytes(shape: str, kind: str, started: bool) -> int:
    """Sums a result's bytes; what a start gives holds its operands first, and flags."""
    arrays = [a for a in arrays_of(shape) if a.dims or not started]
    if started and kind in ("all-gather", "collective-permute"):
        arrays = arrays[len(arrays) // 2 :]
    return sum(array.bytes for array in arrays)


class Array(NamedTuple):
    """An array in a program's text."""

    dims: tuple[int, ...]
    bytes: int
    padded_bytes: int  # as it lies in memory, in tiles
    in_hbm: bool


def arrays_of(shape: str) -> list[Array]:
    """Lists the arrays of a shape, or of a tuple of shapes, as HLO writes them."""
    return [_array(*match.groups()) for match in _ARRAY.finditer(shape)]


def _array(kind: str, dims: str, layout: str | None) -> Array:
    sizes = tuple(int(d) for d in dims.split(",") if d)
    number = re.search(r"\d+$", kind)
    bits = _BITS[kind] if kind in _BITS else int(number[0]) if number else 8
    padded, layout = list(sizes), layout or ""
    tile = re.search(r"T\(([\d,]+)\)", layout)
    if tile:
        order = [int(i) for i in layout.partition(":")[0].split(",") if i]
        edges = [int(e) for e in tile[1].split(",")][::-1]
        for axis, edge in zip(order, edges, strict=False):
            padded[axis] = math.ceil(padded[axis] / edge) * edge
    count = lambda sides: math.prod(sides) * bits // 8
    return Array(sizes, count(sizes), count(padded), "S(" not in layout)


def hbm_passes(text: str) -> list[tuple[str, int]]:
    """Lists the instructions of a TPU program that touch its main memory.

    Gives (name, bytes) for each of the entry computation; loops' bodies are left out.
    An operand counts whole, also where only a part of it is read.
    """
    shapes: dict[str, list[Array]] = {}
    found = []
    for name, shape, operation, rest in _entry(text):
        shapes[name] = arrays_of(shape)
        if operation in _NO_TRAFFIC or operation.endswith("-done"):
            continue
        if operation.endswith("-start"):
            size = _moved(shapes[name])
        else:
            names = re.findall(r"%([\w.-]+)", re.split(r"\), |\)$", rest)[0])
            read_from = (array for n in names for array in shapes.get(n, []))
            arrays = [*shapes[name], *read_from]
            size = sum(a.padded_bytes for a in arrays if a.in_hbm)
        if size:
            found.append((name, size))
    return found


def expected_cycles(text: str) -> int:
    """Adds up the cycles that a TPU's compiler notes beside the entry's instructions.

    They run one after the other; copies and collectives have none.
    """
    noted = (
        re.search(r'"estimated_cycles":"(\d+)"', rest) for *_, rest in _entry(text)
    )
    return sum(int(match[1]) for match in noted if match)


def _moved(arrays: list[Array]) -> int:
    """Counts what an asynchronous copy reads and writes in main memory.

    Its start gives the source, the target and flags; of a slice's source a part moves.
    """
    arrays = [array for array in arrays if array.dims]
    moved = min((array.padded_bytes for array in arrays), default=0)
    return moved * sum(array.in_hbm for array in arrays)


def _entry(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields name, shape, operation and the rest of each instruction of the entry."""
    inside = False
    for line in text.splitlines():
        if line.startswith("ENTRY"):
            inside = True
        elif inside and line.startswith("}"):
            return
        elif inside and (match := _LINE.match(line)):
            yield match.groups()
