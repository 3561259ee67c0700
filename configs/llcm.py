"""LLCM: the complete method, OSNet x1.0 at 288x144, from ImageNet weights.

Paper: Zhang & Zeng 2024 (its numbers and hyper-parameters are not known here; the
recipe is that of vireid_jax/config.py). Measured: nothing, since the data set was not
at hand. Tests both directions, ten draws each.

    python -m vireid_jax.prepare --dataset llcm --source LLCM --data_dir data
    python -m vireid_jax.convert osnet_x1_0_imagenet.pth weights/
    python -m vireid_jax.main --config llcm --workdir runs/llcm

`llcm:smoke` is a rehearsal in minutes on any CPU, from weights that
come with the package; docs/datasets.md says how to make a release to rehearse with.
"""

from vireid_jax.configs._real import real_config


def get_config(argument=""):
    return real_config("llcm", argument)
