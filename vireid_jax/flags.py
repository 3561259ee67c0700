"""Errors of command lines that name a config: `--config FILE.py --config.KEY=...`."""

import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from vireid_jax.config import explain_unknown_key
from vireid_jax.run.errors import UserError


def check_config_path(argv: Sequence[str]) -> None:
    """Raises UserError where `--config` names no file, or only its keys are given."""
    path = _config_path(argv)
    if not path and any(argument.startswith("--config.") for argument in argv):
        raise UserError("give --config FILE.py, which the --config.KEY=VALUE change")
    if path and not path.is_file():
        there = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py")))
        raise UserError(
            f"there is no config file {path}; in ./configs: {there or 'none'}"
        )


def explain_flags_error(error: Exception, argv: Sequence[str], command: str) -> str:
    """Says what is wrong with the line of `command`, or with the config it names."""
    path, text = _config_path(argv), _one_line(error)
    for cause in _causes(error):
        frames = traceback.extract_tb(cause.__traceback__)
        mine = [frame for frame in frames if path and Path(frame.filename) == path]
        if mine:
            where = f"{path}, line {mine[-1].lineno}, `{mine[-1].line}`"
            return f"{where}: {_one_line(cause)}"
    names = [argument.lstrip("-").partition("=")[0] for argument in argv]
    for name in names:
        if name.startswith("config.") and name.rpartition(".")[2] in text:
            return explain_unknown_key(name) or f"{name}: {text}"
    return f"{text}; for all flags: python -m {command} --help"


def _config_path(argv: Sequence[str]) -> Path | None:
    """Finds FILE.py in `--config FILE.py[:ARG]`."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            return Path((value if equals else following).partition(":")[0])
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(error: BaseException) -> str:
    """Writes the message in one line, without ml_collections' list of all keys."""
    text = str(error.args[0]) if error.args else str(error)
    text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split())
    text = re.sub(r" Other fields present: .*}\"", "", text)
    return re.sub(r"^'(.*)'$", r"\1", text)
