"""Ablation: which parts the embedding has (MGIM), and how they are related.

Source: the study that Zhang & Zeng 2024 name; which rows is our choice. Each of the
first rows has one set of granularities, the others change the relation of `2,4`: the
demo's. Everything else is as in configs/demo.py.

    python -m vireid_jax.main --config configs/ablations/part_relations.py:none \
        --workdir runs/no-parts
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

DEMO = Path(__file__).parents[1] / "demo.py"
ROWS = {
    "none": {"model.granularities": ()},
    "2": {"model.granularities": (2,)},
    "4": {"model.granularities": (4,)},
    "2,4": {},
    "attention": {"model.relation": "attention"},
    "contrastive": {"model.contrastive": True},
    "full": {"model.part_width": "full"},
}


def get_config(row="2,4"):
    return with_row(runpy.run_path(str(DEMO))["get_config"](), ROWS, row)
