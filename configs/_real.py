"""What the configs of real data share: the complete method, from ImageNet weights."""

from vireid_jax.config import default_config
from vireid_jax.run.errors import UserError


def real_config(name, argument):
    """Return the config of the data set `name`.

    `argument` is "", or "smoke" for a run of minutes on a CPU, which shows that all
    works and nothing else.
    """
    if argument not in ("", "smoke"):
        raise UserError(f"{argument!r} is not an argument of {name}; give {name}:smoke")
    c = default_config()
    c.data.name = name
    c.data.dir = "data"
    c.model.name = "osnet_x1_0"
    c.model.students = ("conv2", "conv3", "conv4")
    c.model.granularities = (2, 3, 6)
    c.model.pretrained = "weights/osnet_x1_0.safetensors"

    if argument == "smoke":
        c.data.size = (64, 32)
        c.data.validation_identities = 2
        c.data.cache = "host"
        c.batch.identities = 4
        c.batch.images = 2
        c.augment.pad = 3
        c.model.name = "osnet_x0_25"
        c.model.granularities = (2, 4)
        c.model.pretrained = "osnet_x0_25_walkers"
        c.schedule.epochs = 0.5
        c.eval.every_epochs = 0.5
    return c
