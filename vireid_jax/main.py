"""Train a network and evaluate it.

Any value of the config can be changed on the command line. The same command resumes a
run that was stopped. Scripts that start it on many machines are in launch/.

    python -m vireid_jax.main --config demo --workdir runs/demo
    python -m vireid_jax.main --config regdb:trial=3 --workdir runs/regdb-3 \\
        --config.schedule.epochs=30
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from vireid_jax.flags import run_flags
from vireid_jax.run.errors import UserError, one_line_errors

FLAGS = flags.FlagValues()
_OWN: dict[str, Any] = {"flag_values": FLAGS}
config_flags.DEFINE_config_file("config", None, "NAME or FILE.py, then [:ARG].", **_OWN)
flags.DEFINE_string("workdir", None, "Folder of checkpoints, logs and results.", **_OWN)
flags.DEFINE_float("max_minutes", None, "Save and exit with 75 after this.", **_OWN)
flags.DEFINE_string("profile_steps", None, "FIRST:LAST: trace to the workdir.", **_OWN)
flags.DEFINE_boolean("dry_run", False, "Compile the step, print its cost.", **_OWN)
flags.DEFINE_list("topology", [], "For a dry run: chips, such as v5e-8.", **_OWN)
flags.DEFINE_string("json", None, "For a dry run: file of its numbers.", **_OWN)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if several.", **_OWN)
flags.DEFINE_integer("num_processes", None, "Total number of processes.", **_OWN)
flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", **_OWN)


def run() -> None:
    """Train, or compile the step for a dry run."""
    if not (FLAGS.workdir or FLAGS.dry_run):
        raise UserError("--workdir is missing; give --workdir DIR for the results")
    if (FLAGS.topology or FLAGS.json) and not FLAGS.dry_run:
        raise UserError("--topology and --json need --dry_run")
    from vireid_jax.run.runtime import set_up

    set_up()
    if FLAGS.dry_run:
        from rich.console import Console

        from vireid_jax.planning.dry_run import dry_run

        console = Console(emoji=False)
        report = dry_run(FLAGS.config, topologies=FLAGS.topology, console=console)
        if FLAGS.json:
            Path(FLAGS.json).write_text(json.dumps(report, indent=2) + "\n")
        return
    from vireid_jax.run.processes import abort_all_on_error, connect
    from vireid_jax.run.stopping import Stop
    from vireid_jax.train import train_run

    with abort_all_on_error(), one_line_errors(), Stop(FLAGS.max_minutes) as stop:
        train_run(
            FLAGS.config,
            FLAGS.workdir,
            stop,
            profile_steps=FLAGS.profile_steps,
            started_as=connect(
                FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id
            ),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_flags(FLAGS, run, arguments, name="main", doc=__doc__, page="reliability.md")


if __name__ == "__main__":
    main()
