"""Ablation: how many stages have a copy per modality, and whether norms have one.

Source: the study that Zhang & Zeng 2024 name, over the range of Liu et al. (arXiv
2008.06223) and the norms of CM-NAS. Everything else is as in configs/demo.py.

    python -m vireid_jax.main --config configs/ablations/sharing.py:2 --workdir runs/k2
    python -m vireid_jax.main --config configs/ablations/sharing.py:2,separate_norm \
        --workdir runs/k2-separate
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

DEMO = Path(__file__).parents[1] / "demo.py"
ROWS = {
    f"{k}{',separate_norm' * separate}": {
        "model.num_specific_stages": k,
        "model.separate_norm": separate,
    }
    for k in range(6)
    for separate in (False, True)
    if k < 5 or not separate  # with five, no norm is shared
}


def get_config(row="1"):
    return with_row(runpy.run_path(str(DEMO))["get_config"](), ROWS, row)
