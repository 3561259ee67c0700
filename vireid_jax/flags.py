"""Commands with a config: `--config NAME|FILE.py[:ARGUMENT] --config.KEY=VALUE`."""

import re
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags

from vireid_jax.config import explain_unknown_key
from vireid_jax.configs import find_config
from vireid_jax.run.command import called_as, split_doc
from vireid_jax.run.errors import UserError, one_line_errors
from vireid_jax.run.stopping import Stopped


def run_flags(
    values: flags.FlagValues,
    run: Callable[[], None],
    arguments: Sequence[str] | None,
    *,
    name: str,
    doc: str | None,
    page: str,
) -> None:
    """Parse `arguments` (None: the command line) and run the command `name`.

    The counterpart of `run.command.run_command` for absl's flags.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    prog = called_as(name)
    with one_line_errors():
        if {"-h", "-help", "--help"} & {*arguments}:
            head, rest = split_doc(doc, page)
            listed = values.get_help(include_special_flags=False).partition(":\n")[2]
            text = f"usage: {prog} [flags]\n\n{head}\n\nflags:\n{listed}\n\n{rest}\n"
            sys.stdout.write(text)
            return
        parse(values, arguments, prog)
        try:
            app.run(lambda _: run(), sys.argv[:1])
        except Stopped as stopped:
            sys.stderr.write(f"{stopped}\n")
            sys.exit(stopped.code)


def parse(values: flags.FlagValues, arguments: list[str], prog: str) -> None:
    """Set `values` from the command line; this loads the config file.

    Raise UserError for a mistake in it, or in the config file.
    """
    path = ""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("-config", "--config"):
            index += not equals
            value = find_config(value or "".join(arguments[index : index + 1]))
            arguments[index] = f"{flag}={value}" if equals else value
            path = value.partition(":")[0]
            break
    else:
        raise UserError(f"give --config NAME or FILE.py; for all flags: {prog} --help")
    try:
        rest = values([prog, *arguments])
        if len(rest) > 1:
            raise flags.Error(f"{rest[1]!r} is not a flag")
    except Exception as error:  # a config file may raise anything
        raise UserError(_explain(error, arguments, path, prog)) from error


def _explain(error: Exception, arguments: list[str], path: str, prog: str) -> str:
    """Return what is wrong with the arguments, or with the config file at `path`."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    # ml_collections raises the config file's error again, with a traceback in its text.
    if own := [cause for cause in causes if isinstance(cause, UserError)]:
        return f"{path}: {own[-1]}"
    for cause in causes:
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if frame.filename == path:
                where = f"{path}, line {frame.lineno}, `{frame.line}`"
                return f"{where}: {_one_line(cause)}"
    text = _one_line(error)
    if "get_config() takes 0" in text:
        return f"{path}: this config has no arguments; remove what follows the colon"
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if name.startswith("config.") and name.rpartition(".")[2] in text:
            return explain_unknown_key(name) or f"{name}: {text}"
    return f"{text}; for all flags: {prog} --help"


def _one_line(error: BaseException) -> str:
    """Return the message in one line, without ml_collections' list of all keys."""
    text = str(error.args[0]) if error.args else str(error)
    text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split())
    text = re.sub(r" Other fields present: .*}\"", "", text)
    return re.sub(r"^'(.*)'$", r"\1", text)
