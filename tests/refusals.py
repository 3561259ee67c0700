"""What is said to mistakes: checked, and written into docs/reliability.md.

A test that is marked `mistakes(TABLE)` does some with the fixture `refuses` of
conftest.py, and what it gets must stand in that table. `make docs` runs these tests and
writes the tables anew.
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.demo import write_block
from vireid_jax.run.errors import one_line_errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "reliability.md"
HEAD = ["| What was done | What is said, after `error: ` |", "|---|---|"]
TABLES = ("training", "checkpoints", "evaluation", "images", "export")
SAID: dict[str, dict[str, str]] = {table: {} for table in TABLES}
"""By table: what was done wrong -> what was said, by the tests that have run."""


def check(table, folder, title, action, *words):
    """Call an action that must end with one line that holds all `words`; return it.

    Each test has its own folder in `folder`.
    """
    with pytest.raises(SystemExit) as caught, one_line_errors():
        action()
    message = caught.value.code
    assert message.startswith("error: ")
    text = normalise(message.removeprefix("error: "), folder)
    assert "\n" not in text
    for word in words:
        assert word in text, (word, text)
    assert SAID[table].setdefault(title, text) == text
    if not writes() and row(title, text) not in rows(table):
        pytest.fail(f"{DOCS.name} is not up to date (make docs): {row(title, text)}")
    return text


def normalise(text, folder):
    """Take out of a message what is another on each machine."""
    text = text.replace(f"{ROOT}/", "")
    text = re.sub(rf"{re.escape(str(folder))}/[\w-]+", "DIR", text)
    text = re.sub(r"[\d,.]+ (Mi?B)\b", r"N \1", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "HASH", text)
    text = re.sub(r"process \d+ on \S+", "process N on HOST", text)
    # Where a chunk of records begins changes from process to process: so does the order
    # in which protobuf writes the features of an example.
    text = re.sub(r"\b[1-9]\d{4}\b", "N", text)
    text = re.sub(r"thermal_[\w+]+", "VARIANT", text)
    # Not every Python puts choices into quotes.
    text = re.sub(r"\(choose from .*\)", lambda found: found[0].replace("'", ""), text)
    return text.replace("|", "\\|")  # it will stand in a table


def row(title, text):
    """Write a row of a table."""
    return f"| {title} | {text} |"


def rows(table):
    """Read the rows of a table in the docs."""
    pattern = rf"<!-- said: {table} -->\n(.*?)<!-- /said: {table} -->"
    return re.search(pattern, DOCS.read_text(), re.DOTALL)[1].splitlines()[len(HEAD) :]


def writes():
    """Tells whether the tables are to be written."""
    return bool(os.environ.get("WRITE_DOCS"))


def write():
    """Write all tables, of what the tests got."""
    for table, said in SAID.items():
        lines = [*HEAD, *(row(*pair) for pair in said.items())]
        write_block(DOCS, f"said: {table}", "\n".join(lines))


def command(*arguments, module="vireid_jax.main"):
    """Run a command in its own process, and ends as it did."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    raise SystemExit(done.stderr.strip())


@contextlib.contextmanager
def unchanged(folder):
    """Check that no file of `folder` changes, comes or goes."""
    files = lambda: {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log.txt"  # which tells of the refusal
    }
    before = files()
    yield
    assert files() == before
