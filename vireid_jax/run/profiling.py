"""A trace of some steps, for TensorBoard's profiler or Perfetto: `--profile_steps`."""

from pathlib import Path
from typing import Any

import jax

from vireid_jax.run.errors import UserError


class Profile:
    """Writes what the devices do from the first to the last of some steps."""

    def __init__(self, steps: str | None, folder: Path, num_steps: int):
        """Reads "FIRST:LAST", both counted from 1; None never begins.

        Raises UserError unless 1 <= FIRST <= LAST <= `num_steps`.
        """
        self._first = self._last = 0
        self._folder, self._begun = folder, False
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
        """Begins the trace where `step` is the first."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._begun = True

    def after(self, step: int, results: Any) -> None:
        """Ends the trace where `step` is the last, when its `results` are there."""
        if self._begun and step == self._last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends a trace that is still being written."""
        if self._begun:
            jax.profiler.stop_trace()
            self._begun = False
