"""A user's mistake ends in one line; a bug ends in a traceback."""

import contextlib
import difflib
import errno
import importlib.util
import os
import signal
from collections.abc import Iterable, Iterator

REPORT = (
    "This is a bug; please report it at https://github.com/vireid-jax/vireid_jax/issues"
)


class UserError(ValueError):
    """A mistake that the user can correct: the message has the valid values."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with `error: ...` and exit code 1 on a user's mistake.

    Anything else is a bug: its traceback is shown, with a line on how to report it.
    With VIREID_TRACEBACK=1 in the environment every error shows its traceback.
    """
    try:
        yield
    except KeyboardInterrupt as error:  # training has its own way (stopping.py)
        raise SystemExit(128 + signal.SIGINT) from error
    except Exception as error:
        message = _explain(error)
        if not message and REPORT not in getattr(error, "__notes__", ()):
            error.add_note(REPORT)
        if not message or os.environ.get("VIREID_TRACEBACK") == "1":
            raise
        raise SystemExit(f"error: {message}") from error


def _explain(error: Exception) -> str:
    """Return the message for the user; "" if the error is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return explain_os_error(error)
    if str(error).startswith("RESOURCE_EXHAUSTED"):  # jax's, without importing it
        return explain_out_of_memory(error)
    return ""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return `did you mean ...? ` with a similar valid value; "" if there is none."""
    close = difflib.get_close_matches(name, valid, 1)
    return f"did you mean {close[0]}? " if close else ""


def check_installed(what: str, extra: str, *modules: str) -> None:
    """Raise UserError where a module that `what` needs is missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{what} needs {' and '.join(missing)}: pip install 'vireid-jax[{extra}]'"
        )


def explain_os_error(error: OSError) -> str:
    """Return which file cannot be read or written, and what to do."""
    path = f"{error.filename}: " if error.filename else ""
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some quota",
        errno.EACCES: "give a folder that you own",
        errno.EROFS: "give a writable folder",
    }.get(error.errno or 0, "fix this")
    return f"{path}{error.strerror or error}; {remedy}, then run the same command again"


def explain_out_of_memory(error: Exception) -> str:
    """Return what to lower when the device, or the machine, is out of memory."""
    first = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
    return (
        f"the device is out of memory ({first}). Lower config.batch.identities,"
        " config.batch.images or config.data.size (training), or"
        " config.eval.batch_size (evaluation); config.model.dtype=bfloat16 halves the"
        " memory of the feature maps"
    )
