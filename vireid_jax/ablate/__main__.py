"""Train every row of a study with several seeds, and tell the rows apart.

    python -m vireid_jax.ablate --config configs/ablations/sharing.py \
        --workdir runs/sharing --seeds 3

The config file has a table `ROWS` and a `get_config(row, base)`; a table `ELSEWHERE`
names further sets that each run is tested on, as changes to its config. Each run is an
ordinary one in WORKDIR/ROW/seed_N, and WORKDIR/results.jsonl has a line of each that is
done. The same command goes on where it stopped, inside a run too. Flags such as
`--config.data.dir=DIR` hold for every row, `--base configs/regdb.py:trial=2` makes the
same changes to another config, and `--reuse runs/method` takes the results of another
study's runs that had the very same settings, such as its baseline's.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from vireid_jax.flags import check_config_path, explain_flags_error
from vireid_jax.run.errors import one_line_errors

TABLE, FIGURE = "table.md", "figure.svg"

# Its own, so that another command's flags may be loaded beside them.
FLAGS = flags.FlagValues()
config_flags.DEFINE_config_file("config", None, "The study.", flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "Where runs and results go.", flag_values=FLAGS)
flags.DEFINE_integer("seeds", 3, "Runs of each row.", 1, flag_values=FLAGS)
flags.DEFINE_list("rows", [], "These rows alone; none: all.", flag_values=FLAGS)
flags.DEFINE_string("baseline", None, "What the others are compared with; None: what"
                    " the file's name alone means.", flag_values=FLAGS)  # fmt: skip
flags.DEFINE_list("reuse", [], "Other studies' --workdir.", flag_values=FLAGS)
flags.DEFINE_string("base", None, "FILE.py[:ARGUMENT] of another config to change, such"
                    " as configs/regdb.py:trial=2.", flag_values=FLAGS)  # fmt: skip


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags; ends with one line on a mistake."""
    if {"-h", "-help", "--help"} & {*argv}:  # absl's own knows other flags
        sys.stdout.write(f"{__doc__}\n{FLAGS.get_help()}\n")
        sys.exit(0)
    try:
        check_config_path(argv)
        rest = FLAGS(argv)
        if len(rest) > 1 or not (FLAGS.config and FLAGS.workdir):
            raise flags.Error("give --config FILE.py and --workdir DIR")
    except Exception as error:  # a config file may raise anything
        what = explain_flags_error(error, argv, "vireid_jax.ablate")
        raise SystemExit(f"error: {what}") from error
    flags.FLAGS(argv[:1])  # absl's own, which app.run wants parsed too
    return rest


def main(_: Sequence[str]) -> None:
    """Runs the command."""
    from vireid_jax.run.runtime import set_up

    set_up()
    from vireid_jax.ablate.figure import svg
    from vireid_jax.ablate.study import read_study, run_study
    from vireid_jax.ablate.table import find, markdown
    from vireid_jax.run.files import replace_text
    from vireid_jax.run.stopping import Stop, Stopped

    holder, workdir = FLAGS["config"], Path(FLAGS.workdir).expanduser().resolve()
    try:
        with one_line_errors(), Stop() as stop:
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
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        sys.exit(stopped.code)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
