"""Train and evaluate: `python -m vireid_jax.main --config FILE.py --workdir DIR`.

Any value of the config can be changed on the command line, for instance
`--config.schedule.epochs=30`. The same command goes on where it stopped.
"""

from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "Path of the config, FILE.py[:ARG].")
flags.DEFINE_string("workdir", None, "Where checkpoints, logs and results go.")


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    if len(argv) > 1 or FLAGS.config is None or not FLAGS.workdir:
        raise app.UsageError("give --config FILE.py and --workdir DIR")
    from vireid_jax.runtime import set_up

    set_up()
    from vireid_jax.train import train

    try:
        train(FLAGS.config, FLAGS.workdir)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    app.run(main)
