"""Compile the train step and print its cost; do not train.

`python -m vireid_jax.main --config FILE.py --dry_run` needs no data set.
docs/scaling.md explains the numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console
from rich.filesize import decimal

from vireid_jax.config import validate
from vireid_jax.data.builders import find_builder
from vireid_jax.data.source import load_records, split_identities
from vireid_jax.planning import topology
from vireid_jax.planning.cost import Cost, compile_step
from vireid_jax.run.console import plain_table
from vireid_jax.run.errors import UserError
from vireid_jax.run.runtime import only_errors
from vireid_jax.training import sharding
from vireid_jax.training.program import pairs_per_step


class TrainingSet(NamedTuple):
    """Counts of a training set, without held-out identities."""

    identities: int
    visible: int  # images
    infrared: int
    source: str  # of the counts: "prepared", "published" or "planned"


# docs/protocols.md has the papers and files that these counts are from.
PUBLISHED = {
    "sysu_mm01": TrainingSet(395, 22_258, 11_909, "published"),
    "regdb": TrainingSet(206, 2_060, 2_060, "published"),
    "llcm": TrainingSet(713, 16_946, 13_975, "published"),
}


def training_set(config: ConfigDict | FrozenConfigDict) -> TrainingSet:
    """Count the config's training set; read a prepared one, prepare nothing.

    Raise UserError for a set that is neither prepared nor of known size, and as its
    builder does.
    """
    c = config.data
    variant = c.options.to_dict() if c.options else c.variant or None
    with only_errors():
        builder = find_builder(c.name, variant, c.dir or None)
    if Path(builder.data_path).exists():
        records = load_records(c.name, "train", config=variant, data_dir=c.dir or None)
        if c.validation_identities:
            records, _ = split_identities(records, c.validation_identities, config.seed)
        visible, infrared = (len(records.of(m)) for m in ("visible", "infrared"))
        return TrainingSet(records.num_identities, visible, infrared, "prepared")
    if c.name == "walkers":
        made = builder.builder_config
        images = made.train_ids * made.images_per_modality
        full = TrainingSet(made.train_ids, images, images, "planned")
    elif c.name in PUBLISHED:
        full = PUBLISHED[c.name]
    else:
        raise UserError(
            f"config.data.name is {c.name!r}, whose size is unknown before it is"
            " prepared: python -m vireid_jax.prepare"
        )
    kept = full.identities - (held_out := c.validation_identities)
    if kept < 1:
        remedy = f"valid values: below {full.identities}, the number of identities"
        raise UserError(f"config.data.validation_identities is {held_out}; {remedy}")
    share = lambda images: round(images * kept / full.identities)
    return TrainingSet(kept, share(full.visible), share(full.infrared), full.source)


def dry_run(
    config: ConfigDict, *, topologies: Sequence[str] = (), console: Console
) -> dict[str, Any]:
    """Compile the step here and for each topology, such as `v5e-8`; print the cost.

    Return `data`, `machines` and `too_small`, the topologies whose chips have too
    little memory, as JSON holds them. Raise UserError for an unknown topology, a
    missing libtpu, a batch that does not divide over the chips, and an invalid config.
    """
    config = validate(config)
    for name in topologies:
        chips, model = topology.chips_of(name), config.mesh.model
        if chips % model:
            raise UserError(
                f"config.mesh.model is {model}, not a divisor of {name}'s {chips} chips"
            )
        mesh = AbstractMesh((chips // model, model), ("data", "model"))
        sharding.check_divides(pairs_per_step(config), mesh, "a batch's P x K")
    data = training_set(config)
    images = f"{data.visible:,} visible and {data.infrared:,} infrared images"
    people = f"{config.data.name}: {data.identities:,} identities"
    console.print(f"{people}, {images} ({data.source})")
    rows = (data.visible, data.infrared) if config.data.cache == "device" else (0, 0)
    mesh, device = sharding.make_mesh(config.mesh.model), jax.devices()[0]
    with console.status("compiling for this machine"):
        cost = compile_step(mesh, config, data.identities, rows)
    memory = (device.memory_stats() or {}).get("bytes_limit")  # a CPU has no limit
    here = f"this machine ({mesh.size} x {device.device_kind})"
    machines, too_small = [show_cost(here, cost, memory, console)], []
    for name in topologies:
        try:
            with console.status(f"compiling for {name}; minutes for an OSNet"):
                cost = topology.compile_for(name, config, data.identities, rows)
        except topology.DoesNotFitError as error:
            too_small.append(str(error))
            console.print(f"Does not fit: {error}")
        else:
            memory = topology.MEMORY[name.partition("-")[0]]
            machines.append(show_cost(name, cost, memory, console))
    return {"data": data._asdict(), "machines": machines, "too_small": too_small}


def show_cost(
    name: str, cost: Cost, memory: float | None, console: Console
) -> dict[str, Any]:
    """Print a step's cost, of one device with `memory` bytes and of all; return it."""
    sizes = {
        "arguments": cost.argument_bytes,
        "outputs": cost.output_bytes,
        "  in the arguments' memory": cost.aliased_bytes,
        "activations, temporaries": cost.temporary_bytes,
        "code": cost.code_bytes,
        "memory in total": cost.memory,
        "bytes accessed": int(cost.bytes_accessed),
    }
    for kind, of_kind in cost.collectives.items():
        sizes[f"{kind}, {of_kind['count']}"] = of_kind["bytes"]
    table = plain_table(name, "one device", f"all {cost.devices}")
    for words, size in sizes.items():
        table.add_row(words, decimal(size), decimal(size * cost.devices))
    billions = cost.flops / 1e9, cost.flops * cost.devices / 1e9
    table.add_row("arithmetic", *(f"{count:,.1f} GFLOP" for count in billions))
    console.print(table)
    if not cost.collectives:
        console.print("No collectives.")
    fits = cost.memory <= memory if memory else None
    if memory:
        share = f"{cost.memory / memory:.0%} of a device's {decimal(int(memory))}"
        console.print(f"{'Fits' if fits else 'Does not fit'}: {share}.")
    return {"name": name, "fits": fits, "memory": cost.memory, **asdict(cost)}
