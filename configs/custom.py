"""Your own data: the whole method, OSNet x1.0 at 288x144, from ImageNet weights.

Paper: none. The recipe is that of vireid_jax/config.py. Measured: nothing. Tests both
directions; an item of the query's identity and camera is ignored.

    python -m vireid_jax.prepare --dataset custom --source mine.csv --config mine \
        --data_dir data
    python -m vireid_jax.convert osnet_x1_0_imagenet.pth weights/
    python -m vireid_jax.main --config configs/custom.py --workdir runs/mine \
        --config.data.options.name=mine

`configs/custom.py:smoke` is a rehearsal in minutes on any CPU, from weights that come
with the package.
"""

from vireid_jax.config import default_config, read_argument, shrink_for_a_rehearsal


def get_config(argument=""):
    argument = read_argument(argument, smoke=False)
    c = default_config()

    c.data.name = "custom"
    c.data.options.name = "default"
    c.data.dir = "data"

    c.model.name = "osnet_x1_0"
    c.model.students = ("conv2", "conv3", "conv4")
    c.model.granularities = (2, 3, 6)
    c.model.pretrained = "weights/osnet_x1_0.safetensors"

    if argument["smoke"]:
        shrink_for_a_rehearsal(c)
    return c
