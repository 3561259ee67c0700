"""Where numbers go in training: JSON lines, TensorBoard if wanted, a progress bar."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from vireid_jax.run.console import progress_bar
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_text


class JsonLines:
    """Append one JSON object a line; a resumed run first drops what it will repeat."""

    def __init__(self, path: Path, start_step: int):
        """Open `path`, keeping the rows up to `start_step` and no half-written one."""
        kept = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if row["step"] <= start_step:
                kept.append(line + "\n")
        replace_text(path, "".join(kept))
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
        try:
            import tensorboardX
        except ImportError as error:
            raise UserError(
                "config.log.tensorboard needs tensorboardX; type"
                " pip install 'vireid-jax[tensorboard]'"
            ) from error
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
