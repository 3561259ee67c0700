"""RegDB: the complete method, OSNet x1.0 at 288x144, from ImageNet weights.

Paper: Zhang & Zeng 2024 (its numbers and hyper-parameters are not known here; the
recipe is that of vireid_jax/config.py). Measured: nothing, since the data set was not
at hand. A network is trained for each of the ten trials, and tested in both directions
on its own trial only: others' test identities are among those it learned.

    python -m vireid_jax.prepare --dataset regdb --source RegDB --data_dir data
    python -m vireid_jax.convert osnet_x1_0_imagenet.pth weights/
    python -m vireid_jax.main --config regdb:trial=3 --workdir runs/regdb-3
    python -m vireid_jax.evaluate --runs runs/regdb-*

The last line gives mean and deviation over the trials. `regdb:smoke` is a
rehearsal in minutes on any CPU, from weights that come with the package;
docs/datasets.md says how to make a release to rehearse with.
"""

from vireid_jax.configs._real import real_config

from vireid_jax.run.errors import UserError


def get_config(argument=""):
    trial, smoke = 1, ""
    for part in filter(None, argument.split(",")):
        name, _, value = part.partition("=")
        if name == "trial" and value.isdigit():
            trial = int(value)
        elif part == "smoke":
            smoke = part
        else:
            raise UserError(
                f"{part!r} is not an argument of regdb; valid values: smoke and"
                " trial=1 to trial=10, as in regdb:trial=3,smoke"
            )
    c = real_config("regdb", smoke)
    c.data.variant = f"trial_{trial}"
    if not smoke:
        c.schedule.epochs = 150.0
    return c
