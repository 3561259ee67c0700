"""LLCM: the whole method, OSNet x1.0 at 288x144, from ImageNet weights.

Paper: Zhang & Zeng 2024 (its numbers and hyper-parameters are not known here; the
recipe is that of vireid_jax/config.py). Measured: nothing, since the data set was not
at hand. Tests both directions, ten draws each.

    python -m vireid_jax.prepare --dataset llcm --source LLCM --data_dir data
    python -m vireid_jax.convert osnet_x1_0_imagenet.pth weights/
    python -m vireid_jax.main --config configs/llcm.py --workdir runs/llcm

`configs/llcm.py:smoke` is a rehearsal in minutes on any CPU, from weights that
come with the package; docs/datasets.md says how to make a release to rehearse with.
"""

from vireid_jax.config import default_config, read_argument, shrink_for_a_rehearsal


def get_config(argument=""):
    argument = read_argument(argument, smoke=False)
    c = default_config()

    c.data.name = "llcm"
    c.data.dir = "data"

    c.model.name = "osnet_x1_0"
    c.model.students = ("conv2", "conv3", "conv4")
    c.model.granularities = (2, 3, 6)
    c.model.pretrained = "weights/osnet_x1_0.safetensors"

    if argument["smoke"]:
        shrink_for_a_rehearsal(c)
    return c
