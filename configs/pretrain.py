"""Pretrain OSNet x0.25 on visible walkers only: our stand-in for ImageNet weights.

Source of the recipe: our choice (the real sets start from ImageNet weights). One
stream; each pair is two colour images of a person, the second one seen through a
random response to colour (`augment.pseudo_infrared`). No infrared image is read, and
the 3,000 identities (100,000 and up) are in no other set.

    python -m vireid_jax.main --config pretrain --workdir runs/pretrain
    python -m vireid_jax.convert runs/pretrain weights/

Stop it and type the same again: it goes on where it was. The shipped weights are the
result; their metadata (`weights.pretrained.read_weights`) names config, seed and
commit.
"""

from vireid_jax.config import default_config


def get_config():
    """Return the config."""
    c = default_config()

    c.data.name = "walkers"
    c.data.options.variant = "thermal"  # its infrared half stays unread
    c.data.options.first_identity = 100_000
    c.data.options.train_ids = 3000
    c.data.options.test_ids = 1
    c.data.dir = "data"
    c.data.size = (64, 32)
    c.data.second_side = "visible"
    c.data.cache = "host"

    c.batch.identities = 64
    c.batch.images = 1

    c.augment.pad = 3
    c.augment.erase = 0.0
    c.augment.third_view = False

    c.model.name = "osnet_x0_25"
    c.model.num_specific_stages = 0
    c.model.neck_norm = "per_modality"
    c.model.num_stripes = 4

    # From scratch a classifier of 3,000 learns nothing before the pairs have.
    c.loss.identity = 0.0
    c.loss.metric = 0.0
    c.loss.infonce = 1.0

    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.3

    c.schedule.epochs = 10.0
    c.schedule.warmup = 0.02
    c.eval.every_epochs = 0.5
    return c
