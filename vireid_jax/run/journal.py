"""The story of a run, in `log.txt`: every start, what it found, how it ended."""

import contextlib
import logging
import sys
import time
from pathlib import Path

from rich.console import Console


class Once(logging.Filter):
    """Lets each message through the first time only."""

    def __init__(self):
        """Starts with none seen."""
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tells whether the message is new."""
        text = record.getMessage()
        new = text not in self._seen
        self._seen.add(text)
        return new


class Journal(logging.Handler):
    """Appends dated lines to a file; warnings of any library among them, each once."""

    def __init__(self, path: Path, console: Console):
        """Opens `path` for appending; `console` shows what a person is to read."""
        super().__init__(logging.WARNING)
        self.console = console
        self._file = path.open("a")
        self.addFilter(Once())

    def say(self, text: str) -> None:
        """Shows a line, and notes it."""
        self.console.print(text)
        self.note(text)

    def note(self, text: str) -> None:
        """Writes a line, with its time; a full disk must not stop a run here."""
        with contextlib.suppress(OSError):
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._file.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Notes the first line of a warning or an error that a library logged."""
        first = record.getMessage().strip().partition("\n")[0]
        self.note(f"{record.levelname.lower()}: {first}")

    def __enter__(self) -> "Journal":
        """Begins with what was typed, and listens to what libraries log."""
        logging.getLogger().addHandler(self)
        self.note(f"--- {' '.join(sys.argv)}")
        return self

    def __exit__(self, _, error: BaseException | None, __) -> None:
        """Ends with how it ended."""
        self.note("done" if error is None else f"{type(error).__name__}: {error}")
        logging.getLogger().removeHandler(self)
        with contextlib.suppress(OSError):
            self._file.close()
