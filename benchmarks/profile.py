"""Split the time of a training step of vireid_jax by kind of operation.

    python -m benchmarks.profile [--quick]

traces a step of each case and prints, as JSON, the milliseconds of each kind of work,
forward and backward. Each moment counts in equal parts for the operations that run in
it, so that the numbers of a case add up to the step.
"""

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax

from benchmarks import cases
from benchmarks.ours import batch_of, config_of, jitted_step, variables_of
from vireid_jax.run.runtime import set_up

STEPS = 3
# A kind of work, and how its operations are recognised: by the scope in which they were
# traced, or by an instruction in them. The first match counts.
KINDS = (
    ("augmentation", "make_views", None),
    ("optimizer", "update", None),
    ("stem", "stem_", None),
    ("depthwise 3x3", "depthwise_", None),
    ("pooling", "pool", None),
    ("1x1 convolutions, classifier", None, "dot"),
    ("sums over pixels", None, "reduce"),
    ("norms, ReLU, gates, sums of branches", "TwoStreamOSNet", None),
)
REST, WAITING = "losses and the rest", "between operations"

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = \S+ ([\w-]+)\(")


class Operation(NamedTuple):
    """An instruction of the compiled program: its scope, and the opcodes in it."""

    scope: str
    opcodes: frozenset[str]

    @property
    def direction(self) -> str:
        """Return its pass."""
        return "backward" if "transpose(" in self.scope else "forward"

    @property
    def kind(self) -> str:
        """Return its kind of work."""
        for kind, scope, opcode in KINDS:
            if scope and scope in self.scope:
                return kind
            if opcode and any(o.startswith(opcode) for o in self.opcodes):
                return kind
        return REST


def operations(program: str) -> dict[str, Operation]:
    """Read the instructions of a compiled program, by name."""
    inside: dict[str, set[str]] = {}
    found = {}
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            here = inside.setdefault(match[1], set())
        elif match := _INSTRUCTION.match(line):
            name, opcode = match.groups()
            here.add(opcode)
            called = re.search(r"calls=%?([\w.-]+)", line)
            scope = re.search(r'op_name="([^"]*)"', line)
            found[name] = scope[1] if scope else "", opcode, called and called[1]
    return {
        name: Operation(scope, frozenset({opcode} | inside.get(called, set())))
        for name, (scope, opcode, called) in found.items()
    }


def share_out(spans: Iterable[tuple[float, float, str]]) -> Counter[str]:
    """Split each moment in equal parts between the spans (start, end, name) over it.

    Moments without a span count as `WAITING`.
    """
    changes = sorted(
        change
        for start, end, name in spans
        for change in ((start, 1, name), (end, -1, name))
    )
    running: Counter[str] = Counter()
    found: Counter[str] = Counter()
    since = changes[0][0]
    for moment, change, name in changes:
        active = running.total()
        for other, count in running.items():
            found[other] += (moment - since) * count / active
        if not active:
            found[WAITING] += moment - since
        running[name] += change
        running += Counter()  # drops those that have ended
        since = moment
    return found


def spans_of(folder: Path) -> list[tuple[float, float, str]]:
    """Read start and end in ms, and the name, of a trace's operations."""
    (file,) = folder.rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(file))
    return [
        (event.start_ns / 1e6, (event.start_ns + event.duration_ns) / 1e6, event.name)
        for plane in data.planes
        for line in plane.lines
        for event in line.events
        # A loop's span covers those of its body.
        if "hlo_op" in dict(event.stats) and not event.name.startswith("while")
    ]


def profile(case: cases.Case) -> dict[str, dict[str, float]]:
    """Trace some steps; return milliseconds of a step by kind and direction."""
    from vireid_jax.models.build import create_model

    job = case.job("train")
    config = config_of(job)
    model = create_model(config, job["classes"])
    batch = batch_of(job, job["images"] // 2)
    step, state, key, numbers = jitted_step(config, model, variables_of(model))
    step = step.lower(state, batch, key, *numbers).compile()
    for _ in range(2):
        state, _ = jax.block_until_ready(step(state, batch, key, *numbers))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, _ = jax.block_until_ready(step(state, batch, key, *numbers))
        spent = share_out(spans_of(Path(folder)))
    known = operations(step.as_text())
    found: dict[str, dict[str, float]] = {}
    for name, milliseconds in spent.items():
        operation = known.get(name, Operation("", frozenset()))
        kind = WAITING if name == WAITING else operation.kind
        row = found.setdefault(kind, {"forward": 0.0, "backward": 0.0})
        row[operation.direction] += milliseconds / STEPS
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Profile our training step.")
    parser.add_argument("--quick", action="store_true", help="a small case")
    chosen = cases.QUICK if parser.parse_args().quick else cases.FULL
    set_up()
    # A cached program may have been traced under other names.
    jax.config.update("jax_enable_compilation_cache", False)
    print(json.dumps({str(case): profile(case) for case in chosen}, indent=2))


if __name__ == "__main__":
    main()
