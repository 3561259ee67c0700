"""Ablation: which parts the embedding has (MGIM), and how they are related.

Source: the study that Zhang & Zeng 2024 name; which rows is our choice. `stripes` are
parts without relations. The last map of the bench has four rows, so its granularities
are 2 and 4. Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config configs/ablations/part_relations.py:attention \
        --workdir runs/attention
    python -m vireid_jax.ablate --config configs/ablations/part_relations.py \
        --workdir runs/part_relations --seeds 3
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "walkers_bench.py"))
ELSEWHERE = {"shifted": BENCH["SHIFTED"]}
ROWS = {
    "none": {"model.granularities": ()},
    "stripes": {"model.granularities": (), "model.num_stripes": 4},
    "2": {"model.granularities": (2,)},
    "4": {"model.granularities": (4,)},
    "2,4": {"model.granularities": (2, 4)},
    "attention": {"model.granularities": (2, 4), "model.relation": "attention"},
}


def get_config(row="none", base=BENCH["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
