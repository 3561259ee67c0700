"""Your own data: the complete method, OSNet x1.0 at 288x144, from ImageNet weights.

Paper: none. The recipe is that of vireid_jax/config.py. Measured: nothing. Tests both
directions; an item of the query's identity and camera is ignored.

    python -m vireid_jax.prepare --dataset custom --source mine.csv --config mine \
        --data_dir data
    python -m vireid_jax.convert osnet_x1_0_imagenet.pth weights/
    python -m vireid_jax.main --config custom --workdir runs/mine \
        --config.data.options.name=mine

`custom:smoke` is a rehearsal in minutes on any CPU, from weights that come
with the package.
"""

from vireid_jax.configs._real import real_config


def get_config(argument=""):
    c = real_config("custom", argument)
    c.data.options.name = "default"
    return c
