"""Ablation: do the method's parts lack weight, or time?

Source: our choice, after a look at the curves of `method`: the classifiers of the parts
learn a tenth of what the whole image's does, since each has a sixth of the gradient
(the loss is a mean over parts). `parts_x6` makes it a sum; the `long` rows train twice
as long. It explains; no default was chosen by it. Everything else is as in
configs/walkers_bench.py.

    python -m vireid_jax.main --config configs/ablations/weights.py:parts_x6 \
        --workdir runs/parts-x6
    python -m vireid_jax.ablate --config configs/ablations/weights.py \
        --workdir runs/weights --seeds 3
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "walkers_bench.py"))
ELSEWHERE = {"shifted": BENCH["SHIFTED"]}
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


def get_config(row="baseline", base=BENCH["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
