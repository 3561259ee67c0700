"""Read the record files of a prepared set; errors name the damaged file."""

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid_jax.run.errors import UserError


class RecordFiles:
    """Read the records of a split by position, from its array_record files.

    Opening reads the head and the tail of each file only: damage between them shows at
    the record that it hit. A pickled copy opens the files again.
    """

    def __init__(self, instructions: Sequence[Any], next_step: str):
        """Open the files of TFDS's file `instructions`; errors end with `next_step`.

        Raise UserError, with the name of the file, where one is missing, cut short, or
        does not hold as many records as dataset_info.json says.
        """
        from array_record.python.array_record_data_source import ArrayRecordDataSource
        from array_record.python.array_record_module import ArrayRecordReader

        self._next_step = next_step
        self._paths = [Path(file.filename) for file in instructions]
        self._ends = [*itertools.accumulate(file.take for file in instructions)]
        self.states = {}
        """Size and modification time (ns) of each file, by name."""
        for path, file in zip(self._paths, instructions, strict=True):
            if not path.is_file():
                raise UserError(f"{path} is missing; {next_step}")
            state = path.stat()
            self.states[path.name] = [state.st_size, state.st_mtime_ns]
            try:
                reader = ArrayRecordReader(str(path))
                count = reader.num_records()
                reader.close()
            except RuntimeError as error:
                raise self._damaged(path, error) from error
            if count != file.examples_in_shard:
                raise UserError(
                    f"{path} holds {count} records, dataset_info.json says "
                    f"{file.examples_in_shard}; {next_step}"
                )
        self._records = ArrayRecordDataSource(list(instructions))

    def __len__(self) -> int:
        """Return the number of records."""
        return self._ends[-1]

    def __getitem__(self, position: int) -> bytes:
        """Read one record; raise UserError, with the file's name, if it is damaged."""
        try:
            return self._records[position]
        except (IndexError, RuntimeError) as error:
            path = self._paths[bisect.bisect_right(self._ends, position)]
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, error: Exception) -> UserError:
        reason = str(error).partition("\n")[0]  # sometimes nothing
        reason = f" ({reason})" if reason else ""
        return UserError(f"{path} is damaged or cut short{reason}; {self._next_step}")
