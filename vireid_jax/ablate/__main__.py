"""Train every row of a study with several seeds, and test which rows differ.

The config file has a table `ROWS` and a `get_config(row, base)`; a table `ELSEWHERE`
names further sets that each run is tested on, as changes to its config. Each run is an
ordinary one in WORKDIR/ROW/seed_N, and WORKDIR/results.jsonl has a line of each that is
done. The same command resumes, inside a run too. Flags such as `--config.data.dir=DIR`
hold for every row, `--base regdb:trial=2` makes the same changes to another config, and
`--reuse runs/method` takes the results of another study's runs that had the very same
settings, such as its baseline's.

    python -m vireid_jax.ablate --config ablations/sharing --workdir runs/sharing
    python -m vireid_jax.ablate --config ablations/method --workdir runs/method \\
        --rows both --seeds 5
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from vireid_jax.flags import run_flags
from vireid_jax.run.errors import UserError

TABLE, FIGURE = "table.md", "figure.svg"

FLAGS = flags.FlagValues()
_OWN: dict[str, Any] = {"flag_values": FLAGS}
config_flags.DEFINE_config_file("config", None, "The study.", **_OWN)
flags.DEFINE_string("workdir", None, "Folder of the runs and the results.", **_OWN)
flags.DEFINE_integer("seeds", 3, "Runs of each row.", 1, **_OWN)
flags.DEFINE_list("rows", [], "These rows alone; none: all.", **_OWN)
flags.DEFINE_string("baseline", None, "The row that the others are compared with; None:"
                    " the one that the file's name alone means.", **_OWN)  # fmt: skip
flags.DEFINE_list("reuse", [], "Other studies' --workdir.", **_OWN)
flags.DEFINE_string("base", None, "NAME or FILE.py, then [:ARGUMENT], of another config"
                    " to change, such as regdb:trial=2.", **_OWN)  # fmt: skip


def run() -> None:
    """Train what is missing, then write the table and the figure."""
    if not FLAGS.workdir:
        raise UserError("--workdir is missing; give --workdir DIR for the results")
    from vireid_jax.run.runtime import set_up

    set_up()
    from vireid_jax.ablate.study import read_study, run_study
    from vireid_jax.ablate.table import find, markdown, svg
    from vireid_jax.run.files import replace_text
    from vireid_jax.run.stopping import Stop

    holder, workdir = FLAGS["config"], Path(FLAGS.workdir).expanduser().resolve()
    with Stop() as stop:
        study = read_study(
            Path(config_flags.get_config_filename(holder)),
            dict(config_flags.get_override_values(holder)),
            FLAGS.rows,
            FLAGS.baseline,
            FLAGS.base,
        )
        workdir.mkdir(parents=True, exist_ok=True)
        reuse = [Path(x).expanduser().resolve() for x in FLAGS.reuse]
        run_study(study, FLAGS.seeds, workdir, stop, reuse)
        text = markdown(workdir, study.baseline)
        replace_text(workdir / TABLE, text)
        drawn = svg(find(workdir, study.baseline), study.baseline)
        replace_text(workdir / FIGURE, drawn)
        sys.stdout.write(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_flags(FLAGS, run, arguments, name="ablate", doc=__doc__, page="results.md")


if __name__ == "__main__":
    main()
