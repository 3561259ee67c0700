"""Prints what a dry run found."""

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from vireid_jax.planning.needs import Needs, TrainingSet

if TYPE_CHECKING:
    from vireid_jax.planning.roofline import Machine

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(number: float, unit: str = "B") -> str:
    """Writes a number with three digits: `1.48 GB`."""
    for size, prefix in _UNITS:
        if abs(number) >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:.0f} {unit}"


def milliseconds(seconds: float) -> str:
    """Writes a time: `27.9`; a dash for none."""
    return f"{1000 * seconds:.3g}" if seconds else "-"


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def show_needs(needs: Needs, data: TrainingSet, console: Console) -> None:
    """Prints what does not depend on the chips."""
    table = _table("a step of the run", "")
    table.show_header = False
    table.add_row("identities", f"{data.identities} ({data.known})")
    table.add_row("images, visible + infrared", f"{data.visible} + {data.infrared}")
    table.add_row("parameters", f"{needs.parameters:,}")
    table.add_row("  their bytes", amount(needs.parameter_bytes))
    table.add_row("running statistics", amount(needs.statistics_bytes))
    table.add_row("optimizer", amount(needs.optimizer_bytes))
    table.add_row("images read each step", str(needs.images_per_step))
    table.add_row("views through the network", str(needs.views_per_step))
    table.add_row("batch, from the hosts", amount(needs.batch_bytes))
    if needs.cached_bytes:
        place = f"training set, on each {needs.cache}"
        table.add_row(place, amount(needs.cached_bytes))
    console.print(table)


def show_facts(machine: "Machine", console: Console) -> None:
    """Prints what the compiler says, for one device and for all."""
    facts = machine.facts
    title = machine.name
    if machine.slice and machine.slice.is_paper:
        title += f", on paper: the program of {machine.slice.topology}"
    table = _table(title, "a device", f"all {facts.devices}")
    both = lambda name, number, unit="B": table.add_row(
        name, amount(number, unit), amount(number * facts.devices, unit)
    )
    both("arguments", facts.argument_bytes)
    both("outputs", facts.output_bytes)
    both("  in the arguments' place", facts.aliased_bytes)
    both("activations, temporaries", facts.temporary_bytes)
    both("code", facts.code_bytes)
    both("memory in all", facts.memory)
    both("arithmetic", facts.flops, "FLOP")
    both("bytes accessed, XLA says", facts.bytes_accessed)
    if facts.hbm_bytes:
        both(f"  in main memory, {facts.passes} passes", facts.hbm_bytes)
    for kind, found in facts.collectives.items():
        both(f"{kind}, {found.count}", found.bytes)
    console.print(table)
    if not facts.collectives:
        console.print("No collectives.")


def show_estimates(machines: "list[Machine]", console: Console) -> None:
    """Prints the roofline of each slice, if there is one."""
    estimated = [machine for machine in machines if machine.estimate]
    if not estimated:
        return
    table = _table(
        "the least time of a step, ms (an estimate; nothing was run)",
        *(machine.name for machine in estimated),
    )
    for term in estimated[0].estimate.terms:
        times = (milliseconds(m.estimate.terms[term]) for m in estimated)
        table.add_row(term, *times)
    table.add_section()
    table.add_row("step", *(milliseconds(m.estimate.seconds) for m in estimated))
    table.add_row("bound by", *(m.estimate.bound for m in estimated))
    rates = (f"{m.estimate.images_per_second:,.0f}" for m in estimated)
    table.add_row("images/s", *rates)
    table.add_row("memory", *(_memory(m) for m in estimated))
    console.print(table)


def _memory(machine: "Machine") -> str:
    share = machine.facts.memory / machine.slice.chip.memory
    return f"{share:.0%}" if machine.fits else f"{share:.0%}, does not fit"
