"""Stopping a run before its end: Ctrl-C, SIGTERM, or the clock.

The first signal asks: the loop ends its step, saves once and raises Stopped. A second
one ends the process at once; the last checkpoint is complete. Before and after the
loop, where there is nothing to save, the first one does that.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from vireid_jax.run.errors import UserError

BY_PERSON = 128 + signal.SIGINT  # Ctrl-C: what a shell reports of a command so ended
BY_MACHINE = 75  # SIGTERM or the clock: "try again later", sysexits.h's EX_TEMPFAIL


class Stopped(Exception):  # noqa: N818 (not an error: the same command resumes)
    """A run stopped and kept all its work; `code` is `BY_PERSON` or `BY_MACHINE`."""

    def __init__(self, message: str, code: int):
        """Take the message and the exit code."""
        super().__init__(message)
        self.code = code


class Stop:
    """Decide whether a loop should stop; as a context, listen to signals.

    While `deferring` is set the loop is trusted to ask for the reason; else a signal
    ends the process at once, which is safe: every file is complete or absent.
    """

    def __init__(self, max_minutes: float | None = None):
        """Start the clock: `max_minutes` from now, or none.

        Raise UserError unless `max_minutes` is larger than 0.
        """
        if max_minutes is not None and not max_minutes > 0:
            raise UserError(
                f"--max_minutes is {max_minutes}; give minutes larger than 0, or leave"
                " the flag out to train to the end"
            )
        self._start, self._max_minutes = time.monotonic(), max_minutes
        self._signal: int | None = None
        self.deferring = False
        self.note: Callable[[str], None] = lambda _: None

    def reason(self) -> str:
        """Return why to stop now; "" to continue."""
        if self._signal is not None:
            return "Ctrl-C" if self._signal == signal.SIGINT else "SIGTERM"
        minutes = (time.monotonic() - self._start) / 60
        if self._max_minutes is not None and minutes >= self._max_minutes:
            return f"--max_minutes={self._max_minutes:g}"
        return ""

    def stopped(self, outcome: str) -> Stopped:
        """Create the exception that ends the run; `outcome` says what is saved."""
        code = BY_PERSON if self._signal == signal.SIGINT else BY_MACHINE
        reason = self.reason() or "another process"
        return Stopped(
            f"stopped by {reason}: {outcome}; the same command resumes", code
        )

    def __enter__(self) -> "Stop":
        """Listen to SIGINT and SIGTERM, in the main thread only."""
        # Python runs a handler between two bytecodes, so not while XLA compiles, and
        # what it raises there a library may swallow. The wake-up descriptor is written
        # to at once, and a thread waits for that.
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write)
        self._before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the signals' handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._write)
        self._watcher.join()
        os.close(self._read)

    def _watch(self) -> None:
        while numbers := os.read(self._read, 1):
            if numbers[0] not in self._before:
                continue
            second, self._signal = self._signal is not None, numbers[0]
            if second or not self.deferring:
                self._exit("ended at once" if second else "there was nothing to save")
            sys.stderr.write(
                "\nStopping after this step and one save. Press again: at once.\n"
            )

    def _exit(self, outcome: str) -> None:
        stopped = self.stopped(outcome)
        self.note(f"Stopped: {stopped}")
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # a progress bar hides the cursor
        sys.stderr.write(f"{stopped}\n")
        os._exit(stopped.code)
