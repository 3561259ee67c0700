"""The yardstick of the studies: a plain two-stream network on thermal `walkers`.

Paper: none; the data is synthetic and its numbers say nothing about real ones.
One stage a modality, one global embedding, identity loss and a metric loss across
modalities; none of the paper's parts, which `configs/ablations/` add one at a time.
Everything here was fixed, on held-out training identities and with other seeds, before
the first row of a study was trained: docs/results.md.

    python -m vireid_jax.main --config walkers_bench --workdir runs/bench
"""

from vireid_jax.config import with_row
from vireid_jax.configs import demo

# A second test set: people seen from further round, in other light and other weather.
ELSEWHERE = {
    "shifted": {
        "data.options.train_ids": 1,
        "data.options.first_identity": 5000,
        "data.options.heading_range": 110.0,
        "data.options.camera_spread": 1.0,
        "data.options.light_spread": 1.0,
    }
}


def get_config():
    """Return the config."""
    c = demo.get_config()

    c.data.options.train_ids = 2000
    c.data.options.first_identity = 0
    c.data.validation_identities = 100

    c.model.num_specific_stages = 1
    c.model.students = ()
    c.model.granularities = ()

    c.schedule.epochs = 3.0
    c.eval.every_epochs = 3.0
    return c


def study(rows, baseline=None):
    """Return `get_config(row, base)` of a study: a config changed as a row says.

    `row` is `baseline` (None: the first row) and `base` is the bench if left out.
    """
    baseline = baseline or next(iter(rows))

    def get_row(row=baseline, base=get_config):
        return with_row(base(), rows, row)

    return get_row
