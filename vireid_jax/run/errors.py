"""From an exception to the one line that a command ends with."""

import contextlib
import errno
import signal
from collections.abc import Iterator


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
