"""From an exception to the one line that a command ends with."""

import contextlib
import errno
import re
import signal
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the command with `error: ...` and 1 on what the user can mend."""
    import jax

    try:
        yield
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    except OSError as error:
        raise SystemExit(f"error: {explain_os_error(error)}") from error
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise SystemExit(f"error: {explain_out_of_memory(error)}") from error
    except KeyboardInterrupt as error:  # training has its own way (stopping.py)
        raise SystemExit(128 + signal.SIGINT) from error


def explain_os_error(error: OSError) -> str:
    """Says which file could not be read or written, and what to do."""
    place = f"{error.filename}: " if error.filename else ""
    advice = {
        errno.ENOSPC: "free some space; the same command goes on",
        errno.EDQUOT: "free some of your quota; the same command goes on",
        errno.EACCES: "give a folder that is yours",
        errno.EROFS: "give a folder that can be written to",
    }.get(error.errno, "mend that; the same command goes on")
    return f"{place}{error.strerror or error}; {advice}"


def explain_out_of_memory(error: Exception) -> str:
    """Says what to lower when the device, or the machine, has no more memory."""
    first = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
    return (
        f"the device's memory does not suffice ({first}). Lower"
        " config.batch.identities, config.batch.images or config.data.size (training),"
        " or config.eval.batch_size (evaluation); config.model.dtype=bfloat16 halves"
        " the network's maps"
    )


def check_config_path(argv: Sequence[str]) -> None:
    """Raises ValueError where `--config` names no file, or only its keys are given."""
    path = _config_path(argv)
    if not path and any(argument.startswith("--config.") for argument in argv):
        raise ValueError("give --config FILE.py, which the --config.KEY=VALUE change")
    if path and not path.is_file():
        there = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py")))
        raise ValueError(
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
            from vireid_jax.config import explain_unknown_key

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
