"""Check error messages against the tables of docs/reliability.md.

A test marked `mistakes(TABLE)` uses the fixture `refuses` of conftest.py; each message
must be in that table. `make docs` runs these tests and writes the tables.
"""

import contextlib
import os
import re
from pathlib import Path

import pytest
from python_process import run_python

from benchmarks.demo import write_block
from vireid_jax.run.errors import one_line_errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "reliability.md"
HEAD = ["| Mistake | Message after `error: ` |", "|---|---|"]
TABLES = ("training", "checkpoints", "evaluation", "images", "export")
MESSAGES: dict[str, dict[str, str]] = {table: {} for table in TABLES}
"""By table: mistake -> message, of the tests that have run."""


def check(table, folder, title, action, *words):
    """Return the message of an action that must fail with one line with all `words`.

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
    assert MESSAGES[table].setdefault(title, text) == text
    if not writes() and row(title, text) not in rows(table):
        pytest.fail(f"{DOCS.name} is not up to date (make docs): {row(title, text)}")
    return text


def normalise(text, folder):
    """Replace the parts of a message that differ between machines."""
    text = text.replace(f"{ROOT}/", "")
    text = re.sub(rf"{re.escape(str(folder))}/[\w-]+", "DIR", text)
    text = re.sub(r"[\d,.]+ (Mi?B)\b", r"N \1", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "HASH", text)
    text = re.sub(r"process \d+ on \S+", "process N on HOST", text)
    # Offsets in record files differ between processes, because protobuf writes the
    # features of an example in a different order.
    text = re.sub(r"\b[1-9]\d{4}\b", "N", text)
    text = re.sub(r"thermal_[\w+]+", "VARIANT", text)
    # Some versions of Python quote choices.
    text = re.sub(r"\(choose from .*\)", lambda match: match[0].replace("'", ""), text)
    return text.replace("|", "\\|")  # inside a table


def row(title, text):
    """Return a row of a table."""
    return f"| {title} | {text} |"


def rows(table):
    """Read the rows of a table in the docs."""
    pattern = rf"<!-- said: {table} -->\n(.*?)<!-- /said: {table} -->"
    return re.search(pattern, DOCS.read_text(), re.DOTALL)[1].splitlines()[len(HEAD) :]


def writes():
    """Return whether to write the tables."""
    return bool(os.environ.get("WRITE_DOCS"))


def write():
    """Write all tables from the messages of the tests."""
    for table, messages in MESSAGES.items():
        lines = [*HEAD, *(row(*pair) for pair in messages.items())]
        write_block(DOCS, f"said: {table}", "\n".join(lines))


def command(*arguments, module="vireid_jax.main"):
    """Run a command in its own process, and exit with its error message."""
    done = run_python("-m", module, *arguments, cwd=ROOT)
    assert done.returncode == 1, done
    assert done.stdout == ""
    raise SystemExit(done.stderr.strip())


@contextlib.contextmanager
def unchanged(folder):
    """Check that no file of `folder` is added, changed or removed."""
    files = lambda: {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "log.txt"  # which records the error
    }
    before = files()
    yield
    assert files() == before
