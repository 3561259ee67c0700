"""Results as tables: for a terminal, and as Markdown."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

Results = dict[str, Any]

BUSY = 0.1  # share of the processors that others may use before times are unreliable


class Table(NamedTuple):
    """A table with its title."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


TITLES = {
    "train": "Training step",
    "eval": "Embedding",
    "search": "Search",
}


def tables(results: Results) -> Iterator[Table]:
    """Yield a table of each measured part."""
    for task, title in TITLES.items():
        rows = results.get(task)
        if rows:
            header = ("", "allocator", "against", "ours, ms", "rival, ms")
            header += ("rival / ours", "peak MiB, ours / rival")
            yield Table(title, header, [_duel(row) for row in rows])
    if "compile" in results:
        yield _compile(results["compile"])
    for case, kinds in results.get("profile", {}).items():
        yield _profile(case, kinds)
    if "ranking" in results:
        header = ("", "ours, s", "argsort a query, s", "loop / ours")
        rows = [
            (_plain(case), f"{r['seconds']}", f"{r['loop_seconds']}", f"{r['ratio']}")
            for case, r in results["ranking"].items()
        ]
        yield Table("Ranking", header, rows)
    if "input" in results:
        rates = results["input"]["images_per_s"]
        rows = [(setting, f"{rate}") for setting, rate in rates.items()]
        yield Table("Input, 128x64", ("", "images/s"), rows)


def _duel(row: dict[str, Any]) -> tuple[str, ...]:
    about = (row["case"], row["allocator"], row["rival_name"] or "-")
    if "failure" in row:
        return (*about, "", f"failed: {row['failure']}", "", "")
    cells = [_milliseconds(row["ours"]), "", "", f"{row['ours_mib']:.0f}"]
    if "rival" in row:
        ratio = row["ratio"]
        cells[1] = _milliseconds(row["rival"])
        cells[2] = f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        cells[3] += f" / {row['rival_mib']:.0f}"
    return (*about, *cells)


def _milliseconds(x: dict[str, float]) -> str:
    low, middle, high = (1000 * x[name] for name in ("low", "median", "high"))
    digits = 0 if low >= 100 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _compile(row: dict[str, Any]) -> Table:
    header = ("", "in all, s", "importing, s", "making the state, s")
    header += ("compiling and taking a step, s", "peak MiB")
    rows = [
        (
            f"{row['case']}, {state}",
            f"{found['seconds']:.1f}",
            f"{found['import_seconds']:.1f}",
            f"{found['prepare_seconds']:.1f}",
            f"{found['first_run_seconds']:.1f}",
            f"{found['peak_mib']:.0f}",
        )
        for state in ("cold", "cached")
        for found in [row[state]]
    ]
    return Table("Process start to first step, whole method", header, rows)


def _profile(case: str, kinds: dict[str, dict[str, float]]) -> Table:
    step = sum(sum(row.values()) for row in kinds.values())
    rows = [
        (kind, *(f"{row[d]:.1f}" for d in ("forward", "backward")), f"{share:.0%}")
        for share, kind, row in sorted(
            ((sum(row.values()) / step, kind, row) for kind, row in kinds.items()),
            reverse=True,
        )
    ]
    header = ("", "forward, ms", "backward, ms", "of the step")
    return Table(f"Where our training step's time goes: {case}", header, rows)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def about(results: Results) -> str:
    """Return a sentence with the machine and the versions."""
    machine = results["machine"]
    versions = (f"{name} {number}" for name, number in results["versions"].items())
    text = (
        f"{machine['processor']}, {machine['cpus']} processors, {machine['threads']}"
        f" of them for each worker, {machine['memory_gib']:.0f} GiB; Python"
        f" {machine['python']}, {', '.join(versions)}; commit {machine['commit']},"
        f" {machine['date']}; {results['rounds']} rounds."
    )
    return f"{text} {busy(results)}".strip()


def busy(results: Results) -> str:
    """Return a warning if other processes ran during the duels, else ""."""
    duels = [row for task in TITLES for row in results.get(task, ())]
    shares = [row["others"] for row in duels if row.get("others") is not None]
    if not shares or max(shares) < BUSY:
        return ""
    return (
        f"Other processes took up to {100 * max(shares):.0f}% of the processors"
        " meanwhile: these numbers are unreliable, most of all PyTorch's, whose threads"
        " wait for each other at every operation."
    )


def show(results: Results, console: Console) -> None:
    """Print all tables."""
    for table in tables(results):
        rich = RichTable(*table.header, title=table.title, title_justify="left")
        for row in table.rows:
            rich.add_row(*row)
        console.print(rich)
    console.print(about(results))


def markdown(results: Results) -> str:
    """Write all tables and the machine as Markdown."""
    lines = []
    for table in tables(results):
        rule = "|".join(["---", *["---:"] * (len(table.header) - 1)])
        lines += [f"### {table.title}", "", _row(table.header), f"|{rule}|"]
        lines += [*map(_row, table.rows), ""]
    return "\n".join([*lines, about(results)])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
