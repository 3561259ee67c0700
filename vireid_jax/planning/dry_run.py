"""What a training run would take, here and on chips that are not here.

`python -m vireid_jax.main --config FILE.py --dry_run` compiles the step and trains
nothing; it needs no data set. docs/scaling.md explains the numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from vireid_jax.config import validate
from vireid_jax.planning import ahead, tables
from vireid_jax.planning.hardware import Slice, find_slice
from vireid_jax.planning.needs import (
    Needs,
    TrainingSet,
    cached_rows,
    needs_of,
    training_set,
)
from vireid_jax.planning.roofline import Load, Machine, estimate
from vireid_jax.run.errors import UserError
from vireid_jax.training import sharding
from vireid_jax.training.program import make_program, pairs_per_step, step_arguments


@dataclass(frozen=True)
class Report:
    """All that a dry run found."""

    data: TrainingSet
    needs: Needs
    machines: list[Machine] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)  # chips, and by how much

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON holds it."""
        return {
            "data": asdict(self.data),
            "needs": asdict(self.needs),
            "machines": [_describe(machine) for machine in self.machines],
            "too_small": self.too_small,
        }


def dry_run(
    config: ConfigDict, *, topologies: Sequence[str] = (), console: Console
) -> Report:
    """Compiles the step here and for each topology; prints tables, returns the numbers.

    `topologies` are names such as "v5e-8", or "h100" on paper. Raises UserError for an
    unknown one, a missing libtpu, a batch that does not divide over the chips, and what
    is wrong with the config.
    """
    config = validate(config)
    slices = [find_slice(name) for name in topologies]
    for where in slices:
        _check_divides(config, where)
    if slices:
        ahead.check_libtpu()
    data = training_set(config)
    mesh = sharding.make_mesh(config.mesh.model)
    shapes = make_program(config, data.identities, mesh).shapes
    rows = cached_rows(config, data)
    needs = needs_of(config, data, step_arguments(config, shapes, rows))
    report = Report(data, needs)
    tables.show_needs(needs, data, console)
    with console.status("compiling for this machine"):
        facts = ahead.compile_step(mesh, config, data.identities, rows)
    report.machines.append(Machine(_title(), facts))
    tables.show_facts(report.machines[-1], console)
    for where in slices:
        try:
            report.machines.append(_machine(where, config, data, needs, console))
        except ahead.DoesNotFitError as error:
            report.too_small.append(str(error))
            console.print(f"Does not fit: {error}")
        else:
            tables.show_facts(report.machines[-1], console)
    tables.show_estimates(report.machines, console)
    return report


def _machine(
    where: Slice,
    config: FrozenConfigDict,
    data: TrainingSet,
    needs: Needs,
    console: Console,
) -> Machine:
    """Compiles for a slice, and estimates."""
    with console.status(f"compiling for {where.name}; minutes for a whole network"):
        facts = ahead.compile_for(
            where, config, data.identities, cached_rows(config, data)
        )
    load = Load(needs.images_per_step, needs.batch_bytes, needs.cache)
    return Machine(where.name, facts, where, estimate(facts, where, load))


def _check_divides(config: FrozenConfigDict, where: Slice) -> None:
    model = config.mesh.model
    if where.chips % model:
        raise UserError(
            f"config.mesh.model is {model}, which does not divide the {where.chips}"
            f" chips of {where.name}"
        )
    mesh = AbstractMesh((where.chips // model, model), ("data", "model"))
    sharding.check_divides(pairs_per_step(config), mesh, "a batch's P x K")


def _title() -> str:
    count, kind = jax.device_count(), jax.devices()[0].device_kind
    return f"this machine ({count} x {kind})"


def _describe(machine: Machine) -> dict[str, Any]:
    found = {"name": machine.name, "devices": machine.facts.devices}
    found["facts"] = machine.facts.to_json() | {"memory": machine.facts.memory}
    if machine.estimate:
        found["program_of"] = machine.slice.topology
        found["fits"] = machine.fits
        found["estimate"] = {
            "seconds": machine.estimate.seconds,
            "bound": machine.estimate.bound,
            "images_per_second": machine.estimate.images_per_second,
            "terms": machine.estimate.terms,
        }
    return found
