"""Ablation: how many stages have a copy per modality, and whether norms have one.

Source: the study that Zhang & Zeng 2024 name, over the range of Liu et al. (arXiv
2008.06223) and the norms of CM-NAS. With three copied stages or more, norms have not
been tried apart: few are left. Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config configs/ablations/sharing.py:2,separate_norm \
        --workdir runs/k2-separate
    python -m vireid_jax.ablate --config configs/ablations/sharing.py \
        --workdir runs/sharing --seeds 3
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

BENCH = runpy.run_path(str(Path(__file__).parents[1] / "walkers_bench.py"))
ELSEWHERE = {"shifted": BENCH["SHIFTED"]}
ROWS = {
    f"{k}{',separate_norm' * separate}": {
        "model.num_specific_stages": k,
        "model.separate_norm": separate,
    }
    for k in range(6)
    for separate in (False, True)
    if k < 3 or not separate
}


def get_config(row="1", base=BENCH["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
