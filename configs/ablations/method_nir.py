"""Ablation: the rows of `method`, on near-infrared walkers in place of thermal ones.

Source: our choice. RegDB is thermal with two cameras; SYSU-MM01 is near-infrared with
six, four of them visible, as these walkers are. Everything else is as in
configs/ablations/method.py.

    python -m vireid_jax.main --config ablations/method_nir:both \
        --workdir runs/both-nir
    python -m vireid_jax.ablate --config ablations/method_nir \
        --workdir runs/method_nir --seeds 3
"""

from vireid_jax.configs.ablations import method
from vireid_jax.configs.walkers_bench import study

ELSEWHERE = method.ELSEWHERE
ROWS = {
    name: {"data.options.variant": "nir", **changes}
    for name, changes in method.ROWS.items()
}
get_config = study(ROWS)
