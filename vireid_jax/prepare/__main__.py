"""Prepare or check a data set.

`--source DIR` is the release as its authors publish it; `--check` compares it with the
published numbers, and writes nothing. For a set that exists the command reads and
verifies every record.

    python -m vireid_jax.prepare --dataset regdb --source RegDB --check
    python -m vireid_jax.prepare --dataset regdb --source RegDB --data_dir data
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.errors import UserError


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("prepare", __doc__, "datasets.md")
    add = parser.add_argument
    add("--dataset", required=True, help="sysu_mm01, regdb, llcm, custom or walkers")
    add("--source", type=Path, help="the release; for custom a CSV file, or its folder")
    add("--data_dir", "--data-dir", type=Path, help="where prepared sets are kept")
    add("--config", help="one config, as trial_3 of regdb; all of regdb's if left out")
    add(
        "--skip-unreadable",
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be decoded, instead of refusing them",
    )
    add("--check", action="store_true", help="compare the release with the published")
    add(
        "--partial",
        action="store_true",
        help="with --check: a smaller release is meant, so do not judge counts",
    )
    return parser


def find_configs(name: str, config: str | None) -> list[Any]:
    """Return the configs to prepare: `config`, or those that belong together.

    Raise UserError for an unknown data set.
    """
    from vireid_jax.data.builders import find_builder

    if name == "custom":
        return [{"name": config} if config else None]
    if name == "regdb" and config is None:
        builder = find_builder(name, None, os.devnull)
        return list(type(builder).builder_configs)
    return [config]


def prepare_all(options: argparse.Namespace, console: Console) -> None:
    """Prepare every config that was asked for; verify those that exist; print both."""
    from vireid_jax.data.builders import find_builder, prepare
    from vireid_jax.data.source import open_records
    from vireid_jax.prepare.release_check import check_same_release

    table = Table("set", "split", "images", "identities", "")
    start, made = time.monotonic(), 0
    for config in find_configs(options.dataset, options.config):
        builder = find_builder(options.dataset, config, options.data_dir)
        folder = Path(builder.data_path)
        was_there = folder.exists()
        if not was_there:
            prepare(builder, options.source, options.skip_unreadable)
            builder = find_builder(options.dataset, config, options.data_dir)
        for split in builder.info.splits:
            records = open_records(builder, split, verify=True)
            if was_there and options.source is not None:
                check_same_release(builder, options.source, split, records)
            made += 0 if was_there else len(records)
            numbers = f"{len(records):,}", f"{records.num_identities:,}"
            state = "was there" if was_there else "new"
            table.add_row(builder.info.full_name, split, *numbers, state)
        unreadable = folder / "unreadable.txt"
        if unreadable.exists():
            number = len(unreadable.read_text().splitlines())
            text = f"{number:,} unreadable images were left out, see {unreadable}"
            console.print(text, soft_wrap=True)
    console.print(table)
    if made:
        rate = made / (time.monotonic() - start)
        console.print(f"{made:,} records, {rate:,.0f} a second")
    console.print(f"In {builder.data_dir_root}", soft_wrap=True)


def check(options: argparse.Namespace, console: Console) -> None:
    """Print what was found beside what was published.

    Raise UserError for a finding that would change results.
    """
    from vireid_jax.data.builders import find_builder
    from vireid_jax.prepare.release_check import check_release

    configs = find_configs(options.dataset, options.config)
    builder = type(find_builder(options.dataset, configs[0], os.devnull))
    if not hasattr(builder, "PUBLISHED"):
        raise UserError(f"{options.dataset} is made from no release to --check")
    if options.source is None:
        raise UserError("--check needs the release: --source DIR")
    root = builder.root(options.source.expanduser())
    names = [config if isinstance(config, str) else "" for config in configs]
    rows = check_release(builder, root, names)
    table = Table("", "found", "published", title=f"{builder.TITLE} at {root}")
    table.add_column("", no_wrap=True)
    styles = {"wrong": "bold red", "differs": "bold red", "ok": "green"}
    for what, found, expected, verdict in rows:
        if options.partial and verdict == "differs":
            verdict = "differs, not judged"
        texts = map(escape, (what, found, expected, verdict))  # names may hold [...]
        table.add_row(*texts, style=styles.get(verdict, ""))
    console.print(table)
    differing = [row for row in rows if row.verdict == "differs"]
    wrong = [row for row in rows if row.verdict == "wrong"]
    if not options.partial:
        wrong = differing + wrong
    if wrong:
        hint = " (--partial if a smaller release is meant)" if differing else ""
        first = ": ".join(filter(None, [wrong[0].what, wrong[0].found]))
        raise UserError(
            f"{root}: {len(wrong)} findings would change results, the first being "
            f"{first!r}{hint}; unpack the release again, or ask its authors"
        )
    console.print("Nothing here would change results.")


def run(options: argparse.Namespace) -> None:
    """Prepare the data set, or check it."""
    if options.partial and not options.check:
        raise UserError("--partial needs --check")
    from vireid_jax.run.runtime import only_errors, silence_opencv

    silence_opencv()
    command = check if options.check else prepare_all
    try:
        with only_errors():
            command(options, Console())
    except UserError as error:  # name this command's flags instead of those of others
        text = str(error).replace("--config.data.dir=DIR", "--data_dir DIR")
        raise UserError(text.replace("manual_dir=", "--source DIR")) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
