"""Ablation: how many stages have a copy per modality, and whether norms have one.

Source: the study that Zhang & Zeng 2024 name, over the range of Liu et al. (arXiv
2008.06223) and the norms of CM-NAS. With three copied stages or more, norms have not
been tried apart: few are left. Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config ablations/sharing:2,separate_norm \
        --workdir runs/k2-separate
    python -m vireid_jax.ablate --config ablations/sharing \
        --workdir runs/sharing --seeds 3
"""

from vireid_jax.configs import walkers_bench

ELSEWHERE = walkers_bench.ELSEWHERE
ROWS = {
    f"{k}{',separate_norm' * separate}": {
        "model.num_specific_stages": k,
        "model.separate_norm": separate,
    }
    for k in range(6)
    for separate in (False, True)
    if k < 3 or not separate
}
get_config = walkers_bench.study(ROWS, "1")
