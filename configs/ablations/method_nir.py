"""Ablation: the rows of `method`, on near-infrared walkers in place of thermal ones.

Source: our choice. RegDB is thermal with two cameras; SYSU-MM01 is near-infrared with
six, four of them visible, as these walkers are. Everything else is as in
configs/ablations/method.py.

    python -m vireid_jax.main --config configs/ablations/method_nir.py:both \
        --workdir runs/both-nir
    python -m vireid_jax.ablate --config configs/ablations/method_nir.py \
        --workdir runs/method_nir --seeds 3
"""

import runpy
from pathlib import Path

from vireid_jax.config import with_row

METHOD = runpy.run_path(str(Path(__file__).parent / "method.py"))
ELSEWHERE = METHOD["ELSEWHERE"]
ROWS = {
    name: {"data.options.variant": "nir", **changes}
    for name, changes in METHOD["ROWS"].items()
}


def get_config(row="baseline", base=METHOD["BENCH"]["get_config"]):
    """Returns the config of a row, upon that of `base`."""
    return with_row(base(), ROWS, row)
