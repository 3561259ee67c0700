"""A user's mistake ends in one line; a bug ends in a traceback."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator

REPORT_A_BUG = "https://github.com/vireid-jax/vireid_jax/issues"


class UserError(ValueError):
    """What the user can correct: the message has the value and the valid values."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the command with `error: ...` and exit code 1 on a user's mistake.

    Anything else is a bug: its traceback is shown, with a line on how to report it.
    With VIREID_TRACEBACK=1 in the environment every error shows its traceback.
    """
    try:
        yield
    except KeyboardInterrupt as error:  # training has its own way (stopping.py)
        raise SystemExit(128 + signal.SIGINT) from error
    except Exception as error:
        message = _explain(error)
        if message is None:
            sys.stderr.write(f"This is a bug; please report it at {REPORT_A_BUG}\n")
            raise
        if os.environ.get("VIREID_TRACEBACK") == "1":
            raise
        raise SystemExit(f"error: {message}") from error


def _explain(error: Exception) -> str | None:
    """Returns the message for the user; None if the error is a bug."""
    import jax

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return explain_os_error(error)
    is_jax = isinstance(error, jax.errors.JaxRuntimeError)
    if is_jax and str(error).startswith("RESOURCE_EXHAUSTED"):
        return explain_out_of_memory(error)
    return None


def explain_os_error(error: OSError) -> str:
    """Say which file could not be read or written, and what to do."""
    path = f"{error.filename}: " if error.filename else ""
    advice = {
        errno.ENOSPC: "free some space, then run the same command again to resume",
        errno.EDQUOT: "free some quota, then run the same command again to resume",
        errno.EACCES: "give a folder that you own",
        errno.EROFS: "give a writable folder",
    }.get(error.errno or 0, "fix this, then run the same command again to resume")
    return f"{path}{error.strerror or error}; {advice}"


def explain_out_of_memory(error: Exception) -> str:
    """Say what to lower when the device, or the machine, is out of memory."""
    first = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
    return (
        f"the device is out of memory ({first}). Lower"
        " config.batch.identities, config.batch.images or config.data.size (training),"
        " or config.eval.batch_size (evaluation); config.model.dtype=bfloat16 halves"
        " the network's maps"
    )
