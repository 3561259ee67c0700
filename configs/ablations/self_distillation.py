"""Ablation: what the students of self-distillation (SDM) learn from, if there are any.

Source: the study that Zhang & Zeng 2024 name; which rows is our choice. `labels` has
students without a teacher (deep supervision), `soft` adds the teacher's soft targets,
`features` its features, `all` is the method; `half` and `double` weigh it otherwise.
Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config configs/ablations/self_distillation.py:all \
        --workdir runs/students
    python -m vireid_jax.ablate --config configs/ablations/self_distillation.py \
        --workdir runs/self_distillation --seeds 3
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "walkers_bench.py"))
ELSEWHERE = {"shifted": BENCH["SHIFTED"]}
ROWS = {
    "none": {"model.distillation": False},
    "labels": {
        "model.distillation": True,
        "loss.soft_target": 0.0,
        "loss.imitation": 0.0,
    },
    "soft": {"model.distillation": True, "loss.imitation": 0.0},
    "features": {"model.distillation": True, "loss.soft_target": 0.0},
    "all": {"model.distillation": True},
    "half": {"model.distillation": True, "loss.distillation": 0.25},
    "double": {"model.distillation": True, "loss.distillation": 1.0},
}


def get_config(row="none", base=BENCH["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
