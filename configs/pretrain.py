"""Pretrain (draft)."""

from vireid_jax.config import default_config


def get_config():
    c = default_config()
    c.data.name = "walkers"
    c.data.options.variant = "thermal"
    c.data.options.first_identity = 100_000
    c.data.options.train_ids = 3000
    c.data.options.test_ids = 1
    c.data.dir = "data"
    c.data.size = (96, 48)
    c.data.second_side = "visible"
    c.data.cache = "host"
    c.batch.identities = 48
    c.batch.images = 1
    c.augment.pad = 4
    c.augment.third_view = False
    c.augment.erase = 0.0
    c.model.name = "osnet_x0_25"
    c.model.num_specific_stages = 0
    c.model.neck_norm = "per_modality"
    c.loss.identity = 0.5
    c.loss.hetero_center = 0.0
    c.loss.infonce = 1.0
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.2
    c.schedule.epochs = 20.0
    c.schedule.warmup = 0.05
    c.eval.every_epochs = 1.0
    return c
