"""Trace some steps, for TensorBoard's profiler or Perfetto: `--profile_steps`."""

from pathlib import Path
from typing import Any

import jax

from vireid_jax.run.errors import UserError


class Profile:
    """Write what the devices do from the first to the last of some steps."""

    def __init__(self, steps: str | None, folder: Path, num_steps: int):
        """Read "FIRST:LAST", both counted from 1; None: never.

        Raise UserError unless 1 <= FIRST <= LAST <= `num_steps`.
        """
        self._first = self._last = 0
        self._folder, self._active = folder, False
        if steps is None:
            return
        first, _, last = steps.partition(":")
        if first.isdigit() and last.isdigit():
            self._first, self._last = int(first), int(last)
        if not 1 <= self._first <= self._last <= num_steps:
            raise UserError(
                f"--profile_steps is {steps!r}; give FIRST:LAST, steps of this run from"
                f" 1 to {num_steps}, such as 10:12"
            )

    def before(self, step: int) -> None:
        """Begin the trace where `step` is the first."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._active = True

    def after(self, step: int, results: Any) -> None:
        """End the trace where `step` is the last, once its `results` are computed."""
        if self._active and step == self._last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """End a trace that is still being written."""
        if self._active:
            jax.profiler.stop_trace()
            self._active = False
