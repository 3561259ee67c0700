"""One main for every command: arguments, help, errors and exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vireid_jax.run.errors import UserError, one_line_errors

DOCS = "https://github.com/vireid-jax/vireid_jax/blob/main/docs"


class Parser(argparse.ArgumentParser):
    """Parse the arguments of a command; a mistake is a UserError.

    `--help` shows the module's docstring `doc` around the options: its first line
    above, the rest with its examples below, then a link to the docs `page`.
    """

    def __init__(self, name: str, doc: str | None, page: str):
        """Create a parser of `python -m vireid_jax.NAME` without options."""
        head, rest = split_doc(doc, page)
        super().__init__(prog=called_as(name), description=head, epilog=rest)
        self.formatter_class = argparse.RawDescriptionHelpFormatter

    def error(self, message: str) -> NoReturn:
        """Raise UserError in place of exit code 2 below a page of usage."""
        raise UserError(f"{message}; for all flags: {self.prog} --help")


def split_doc(doc: str | None, page: str) -> tuple[str, str]:
    """Return a docstring's first line, and the rest with a link to a docs page."""
    head, _, rest = (doc or "").partition("\n\n")
    return head, f"{rest.rstrip()}\n\n{DOCS}/{page}"


def called_as(name: str) -> str:
    """Return how a command was started: `vireid NAME` or `python -m ...`."""
    named = sys.argv[0].startswith(("vireid ", "python -m vireid_jax "))
    return sys.argv[0] if named else f"python -m vireid_jax.{name}"


def run_command(
    parser: Parser,
    run: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse `arguments` (None: the command line) and run the command.

    Exit with code 1 and one line on a user's mistake, of the arguments too.
    """
    with one_line_errors():
        run(parser.parse_args(arguments))
