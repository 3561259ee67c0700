"""What training writes: its numbers, a progress bar, and the log of a run, log.txt."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from vireid_jax.run.console import progress_bar
from vireid_jax.run.errors import check_installed
from vireid_jax.run.files import replace_text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of `metrics.jsonl`, up to one that is incomplete."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # the process was killed while it wrote the line
            break
    return rows


class JsonLines:
    """Append one JSON object a line; a resumed run first drops what it will repeat."""

    def __init__(self, path: Path, start_step: int):
        """Open `path`, keeping the rows up to `start_step` and no half-written one."""
        kept = [row for row in read_rows(path) if row["step"] <= start_step]
        replace_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = path

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Write a row of `kind` ("train", "validation", "test")."""
        row = {"step": step, "kind": kind, **values}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class TensorBoard:
    """Write scalars as event files (extra `tensorboard`)."""

    def __init__(self, folder: Path, start_step: int):
        """Open `folder`, dropping what an earlier process wrote after `start_step`.

        Raise UserError where tensorboardX is not installed.
        """
        check_installed("config.log.tensorboard", "tensorboard", "tensorboardX")
        import tensorboardX

        self._writer = tensorboardX.SummaryWriter(
            str(folder), purge_step=start_step + 1, filename_suffix=f".{start_step}"
        )

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Write the numbers among `values` under `kind/name`."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class Bar:
    """Show progress on a terminal: rates, losses, time left; elsewhere nothing."""

    def __init__(self, console: Console, num_steps: int, start_step: int):
        """Start at `start_step` of `num_steps`."""
        self._progress = progress_bar("train", console, numbers="numbers")
        self._task = self._progress.add_task(
            "train", total=num_steps, completed=start_step, numbers=""
        )
        self._progress.start()

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Move to `step`, and show the numbers of a training row."""
        if kind == "train":
            shown = (
                f"{values['steps_per_second']:.1f} steps/s"
                f" {values['images_per_second']:.0f} images/s"
                f" loss {values['loss']:.3f}"
                f" accuracy {values['accuracy']:.2f}"
                f" |gradient| {values['gradient_norm']:.2f}"
            )
            self._progress.update(self._task, completed=step, numbers=shown)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class Once(logging.Filter):
    """Let each message through the first time only."""

    def __init__(self):
        """Start with no message seen."""
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the message is new."""
        text = record.getMessage()
        is_new = text not in self._seen
        self._seen.add(text)
        return is_new


class Journal(logging.Handler):
    """Append dated lines to a file; warnings of any library among them, each once."""

    def __init__(self, path: Path, console: Console):
        """Open `path` for appending; `console` shows what a person should read."""
        super().__init__(logging.WARNING)
        self.console = console
        self._file = path.open("a")
        self.addFilter(Once())

    def print(self, text: str) -> None:
        """Print a line, and write it into the file."""
        self.console.print(text)
        self.note(text)

    def note(self, text: str) -> None:
        """Write a line with its time into the file; a full disk does not stop a run."""
        with contextlib.suppress(OSError):
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._file.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the first line of a warning or an error that a library logged."""
        first = record.getMessage().strip().partition("\n")[0]
        self.note(f"{record.levelname.lower()}: {first}")

    def __enter__(self) -> "Journal":
        """Begin with the command line, and listen to what libraries log."""
        logging.getLogger().addHandler(self)
        self.note(f"--- {' '.join(sys.argv)}")
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End with how the run ended."""
        self.note("done" if error is None else f"{type(error).__name__}: {error}")
        logging.getLogger().removeHandler(self)
        with contextlib.suppress(OSError):
            self._file.close()
