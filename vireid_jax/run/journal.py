"""The log of a run, in `log.txt`: every start, what it found, how it ended."""

import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console


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

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """End with how the run ended."""
        self.note("done" if error is None else f"{type(error).__name__}: {error}")
        logging.getLogger().removeHandler(self)
        with contextlib.suppress(OSError):
            self._file.close()
