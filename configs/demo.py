"""Demo: the whole method on thermal `walkers`, 2,100 people; 200 others to be found.

Paper: none; the data is synthetic and its numbers say nothing about real ones.
Result and time: README.md, written from the run itself.
Starts from `osnet_x0_25_walkers`: an OSNet x0.25 pretrained on the visible images of
3,000 other walkers (configs/pretrain.py). From random weights OSNet does not learn this
in minutes; on real data one starts from ImageNet weights for the same reason.

    make demo
    python -m vireid_jax.main --config demo --workdir runs/demo

Each part has one switch: `--config.model.students="()"` leaves self-distillation (SDM)
out, `--config.model.granularities="()"` the part relations (MGIM).
"""

from vireid_jax.config import default_config


def get_config():
    """Return the config."""
    c = default_config()

    c.data.name = "walkers"
    c.data.options.variant = "thermal"
    # Of 500 a network knows each by heart after four epochs; these are seen four times.
    c.data.options.train_ids = 2100
    c.data.options.test_ids = 200
    c.data.options.difficulty = "easy"
    c.data.dir = "data"
    c.data.size = (64, 32)
    c.data.cache = "host"
    c.data.validation_identities = 100

    c.batch.identities = 64
    c.batch.images = 1

    c.augment.pad = 3
    c.augment.erase = 0.0
    c.augment.third_view = False

    c.model.name = "osnet_x0_25"
    c.model.num_specific_stages = 2  # the best row of its study in docs/results.md
    c.model.neck_norm = "per_modality"
    c.model.students = ("conv2", "conv3", "conv4")
    c.model.granularities = (2, 4)  # the last map has four rows
    c.model.pretrained = "osnet_x0_25_walkers"

    c.loss.identity = 0.5
    c.loss.metric = 0.0
    c.loss.infonce = 1.0

    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.1
    c.optimizer.pretrained_factor = 1.0

    c.schedule.epochs = 4.0
    c.schedule.warmup = 0.05
    c.eval.every_epochs = 2.0
    return c
