"""Progress and tables on a terminal: one look for every command."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Item = TypeVar("Item")


def progress_bar(
    title: str, console: Console | None = None, numbers: str = ""
) -> Progress:
    """Create a progress bar: `title`, bar, count, time left; `numbers` names a field.

    Without a console it writes to stderr. The bar is transient there, and absent in a
    pipe or file.
    """
    where = console or Console(stderr=True)
    columns = [
        TextColumn(f"[bold]{title}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    ]
    if numbers:
        columns.append(TextColumn(f"{{task.fields[{numbers}]}}"))
    return Progress(
        *columns, console=where, transient=not console, disable=not where.is_terminal
    )


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Yield the items, and show on stderr how many of `total` are done."""
    with progress_bar(title) as bar:
        yield from bar.track(items, total=total)


def plain_table(title: str, *columns: str, no_wrap: bool = False) -> Table:
    """Create a table: a column of names without a head, then columns of numbers."""
    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=no_wrap)
    return table
