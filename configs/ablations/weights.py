"""Ablation: do the method's parts lack weight, or time?

Source: our choice, after a look at the curves of `method`: the classifiers of the parts
learn a tenth of what the whole image's does, since each has a sixth of the gradient
(the loss is a mean over parts). `parts_x6` makes it a sum; the `long` rows train twice
as long. It explains; no default was chosen by it. Everything else is as in
configs/walkers_bench.py.

    python -m vireid_jax.main --config ablations/weights:parts_x6 \
        --workdir runs/parts-x6
    python -m vireid_jax.ablate --config ablations/weights \
        --workdir runs/weights --seeds 3
"""

from vireid_jax.configs import walkers_bench

ELSEWHERE = walkers_bench.ELSEWHERE
PARTS = {"model.granularities": (2, 4)}
LONG = {"schedule.epochs": 6.0, "eval.every_epochs": 6.0}
ROWS = {
    "baseline": {},
    "parts": PARTS,
    "parts_x3": {**PARTS, "loss.parts": 3.0},
    "parts_x6": {**PARTS, "loss.parts": 6.0},
    "long": LONG,
    "long_both": {**LONG, **PARTS, "model.students": ("conv2", "conv3", "conv4")},
}
get_config = walkers_bench.study(ROWS)
