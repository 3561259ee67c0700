"""Ablation: what the students of self-distillation (SDM) learn from, if there are any.

Source: the study that Zhang & Zeng 2024 name; which rows is our choice. `labels` has
students without a teacher (deep supervision), `soft` adds the teacher's soft targets,
`features` its features, `all` is the method. Everything else is as in configs/demo.py.

    python -m vireid_jax.main --config configs/ablations/self_distillation.py:none \
        --workdir runs/no-students
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

DEMO = Path(__file__).parents[1] / "demo.py"
ROWS = {
    "none": {"model.distillation": False},
    "labels": {"loss.soft_target": 0.0, "loss.imitation": 0.0},
    "soft": {"loss.imitation": 0.0},
    "features": {"loss.soft_target": 0.0},
    "all": {},
}


def get_config(row="all"):
    return with_row(runpy.run_path(str(DEMO))["get_config"](), ROWS, row)
