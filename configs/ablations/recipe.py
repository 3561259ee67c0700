"""Ablation: what else the recipe consists of, one piece at a time.

Source: our choice. `third_view` (CAJ) and `erase` are augmentations, `shared_neck`
gives the embedding's norm one set of statistics, the others change the losses.
Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config configs/ablations/recipe.py:erase \
        --workdir runs/erase
    python -m vireid_jax.ablate --config configs/ablations/recipe.py \
        --workdir runs/recipe --seeds 3
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "walkers_bench.py"))
ELSEWHERE = {"shifted": BENCH["SHIFTED"]}
ROWS = {
    "baseline": {},
    "third_view": {"augment.third_view": True},
    "erase": {"augment.erase": 0.5},
    "shared_neck": {"model.neck_norm": "shared"},
    "identity_alone": {"loss.infonce": 0.0},
    "infonce_alone": {"loss.identity": 0.0},
    "hetero_center": {
        "loss.infonce": 0.0,
        "loss.metric": 1.0,
        "batch.identities": 16,
        "batch.images": 4,
    },
}


def get_config(row="baseline", base=BENCH["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
