"""Train and evaluate: `python -m vireid_jax.main --config FILE.py --workdir DIR`.

Any value of the config can be changed on the command line, for instance
`--config.schedule.epochs=30`. The same command goes on where it stopped. Scripts that
start it on many machines are in launch/.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from vireid_jax.flags import check_config_path, explain_flags_error
from vireid_jax.run.errors import one_line_errors

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "Path of the config, FILE.py[:ARG].")
flags.DEFINE_string("workdir", None, "Where checkpoints, logs and results go.")
flags.DEFINE_float("max_minutes", None, "Save and exit with 75 after this long.")
flags.DEFINE_string("profile_steps", None, "FIRST:LAST: trace them into the workdir.")
flags.DEFINE_boolean(
    "dry_run", False, "Compile the step and print its cost; do not train."
)
flags.DEFINE_list("topology", [], "For a dry run: chips to compile for, as v5e-8.")
flags.DEFINE_string("json", None, "For a dry run: where to write its numbers.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
flags.DEFINE_integer("num_processes", None, "Of this run, on all machines together.")
flags.DEFINE_integer("process_id", None, "This one's, counted from 0.")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags and loads the config file; ends with one line on a mistake."""
    try:
        check_config_path(argv)
        rest = FLAGS(argv)
        if len(rest) > 1 or not (FLAGS.config and (FLAGS.workdir or FLAGS.dry_run)):
            raise flags.Error("give --config FILE.py and --workdir DIR")
        if (FLAGS.topology or FLAGS.json) and not FLAGS.dry_run:
            raise flags.Error("--topology and --json belong to --dry_run")
    except Exception as error:  # a config file may raise anything
        what = explain_flags_error(error, argv, "vireid_jax.main")
        raise SystemExit(f"error: {what}") from error
    return rest


def main(_: Sequence[str]) -> None:
    """Runs the command."""
    from vireid_jax.run.runtime import set_up

    set_up()
    if FLAGS.dry_run:
        dry_run()
        return
    from vireid_jax.run.processes import abort_all_on_error, connect
    from vireid_jax.run.stopping import Stop, Stopped
    from vireid_jax.train import train_run

    try:
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
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        sys.exit(stopped.code)


def dry_run() -> None:
    """Compile the step here and for each `--topology`, and print its cost."""
    from rich.console import Console

    from vireid_jax.planning import dry_run

    with one_line_errors():
        report = dry_run.dry_run(
            FLAGS.config, topologies=FLAGS.topology, console=Console(emoji=False)
        )
        if FLAGS.json:
            Path(FLAGS.json).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
