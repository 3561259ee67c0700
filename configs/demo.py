"""Demo (draft)."""

from vireid_jax.config import default_config


def get_config():
    c = default_config()
    c.data.name = "walkers"
    c.data.options.variant = "thermal"
    c.data.options.train_ids = 500
    c.data.options.test_ids = 200
    c.data.dir = "data"
    c.data.size = (128, 64)
    c.data.cache = "host"
    c.data.validation_identities = 50
    c.batch.identities = 32
    c.batch.images = 1
    c.augment.pad = 5
    c.augment.third_view = False
    c.augment.erase = 0.0
    c.model.name = "osnet_x0_25"
    c.model.neck_norm = "per_modality"
    c.loss.hetero_center = 0.0
    c.loss.infonce = 1.0
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.1
    c.schedule.epochs = 20.0
    c.eval.every_epochs = 5.0
    return c
