"""Ablation: the whole method against the baseline, in twice the time.

Source: our choice, after `method` and `weights`: parts and students are more to learn.
Both rows train six epochs where configs/walkers_bench.py has three, and are the runs
`long` and `long_both` of `weights`.

    python -m vireid_jax.main --config configs/ablations/method_long.py:both \
        --workdir runs/both-long
    python -m vireid_jax.ablate --config configs/ablations/method_long.py \
        --workdir runs/method_long --seeds 3 --reuse runs/weights
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

METHOD = runpy.run_path(str(Path(__file__).parent / "method.py"))
ELSEWHERE = METHOD["ELSEWHERE"]
LONG = {"schedule.epochs": 6.0, "eval.every_epochs": 6.0}
ROWS = {name: {**METHOD["ROWS"][name], **LONG} for name in ("baseline", "both")}


def get_config(row="baseline", base=METHOD["BENCH"]["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
