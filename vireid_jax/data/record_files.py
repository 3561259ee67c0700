"""Read the record files of a prepared set, and name the file that is at fault."""

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from vireid_jax.run.errors import UserError

INFO_FILES = ("dataset_info.json", "features.json")


def check_info_files(folder: Path, next_step: str) -> None:
    """Raise UserError where a prepared set lacks one of TFDS's own files."""
    for path in (folder / name for name in INFO_FILES):
        if not path.is_file() or path.stat().st_size == 0:
            raise UserError(f"{path} is missing or empty; {next_step}.")


class RecordFiles:
    """Read the records of a split by position, from its array_record files.

    Opening reads the head and the tail of each file only: damage between them shows at
    the record it hit. A pickled copy opens the files where it is.
    """

    def __init__(self, instructions: Sequence[Any], next_step: str):
        """Open the files of TFDS's file `instructions`; errors end with `next_step`.

        Raises UserError, naming the file, where one is missing, is cut short, or does
        not hold as many records as dataset_info.json says.
        """
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._next_step = next_step
        self._paths = [str(file.filename) for file in instructions]
        self._ends = [*itertools.accumulate(file.take for file in instructions)]
        for path, file in zip(self._paths, instructions, strict=True):
            self._check(path, file.examples_in_shard)
        self._records = ArrayRecordDataSource(list(instructions))

    def __len__(self) -> int:
        """Count the records."""
        return self._ends[-1]

    def __getitem__(self, position: int) -> bytes:
        """Read one record; raises UserError, naming the file, where it is damaged."""
        try:
            return self._records[position]
        except (IndexError, RuntimeError) as error:
            path = self._paths[bisect.bisect_right(self._ends, position)]
            self._refuse(path, error)

    def _check(self, path: str, promised: int) -> None:
        from array_record.python.array_record_module import ArrayRecordReader

        if not Path(path).is_file():
            raise UserError(f"{path} is missing; {self._next_step}.")
        try:
            reader = ArrayRecordReader(path)
            found = reader.num_records()
            reader.close()
        except RuntimeError as error:
            self._refuse(path, error)
        if found != promised:
            raise UserError(
                f"{path} holds {found} records, dataset_info.json says {promised}; "
                f"{self._next_step}."
            )

    def _refuse(self, path: str, error: Exception) -> NoReturn:
        said = str(error).partition("\n")[0]  # at times nothing
        reason = f" ({said})" if said else ""
        raise UserError(
            f"{path} is damaged or cut short{reason}; {self._next_step}."
        ) from error
