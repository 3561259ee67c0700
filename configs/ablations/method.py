"""Ablation: the whole method against the baseline, and each of its two halves.

Source: Zhang & Zeng 2024. `both` has self-distillation (SDM) and part relations (MGIM);
with one seed more is learned of chance than of the method, so this pair has five.
Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config configs/ablations/method.py:both \
        --workdir runs/both
    python -m vireid_jax.ablate --config configs/ablations/method.py \
        --workdir runs/method --seeds 3
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "walkers_bench.py"))
ELSEWHERE = {"shifted": BENCH["SHIFTED"]}
STUDENTS = ("conv2", "conv3", "conv4")  # Zhang & Zeng: three
ROWS = {
    "baseline": {"model.students": (), "model.granularities": ()},
    "both": {"model.students": STUDENTS, "model.granularities": (2, 4)},
    "sdm": {"model.students": STUDENTS, "model.granularities": ()},
    "mgim": {"model.students": (), "model.granularities": (2, 4)},
}


def get_config(row="baseline", base=BENCH["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
