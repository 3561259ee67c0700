"""Ablation: what else the recipe consists of, one piece at a time.

Source: our choice. `third_view` (CAJ) and `erase` are augmentations, `shared_neck`
gives the embedding's norm one set of statistics, the others change the losses.
Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config ablations/recipe:erase \
        --workdir runs/erase
    python -m vireid_jax.ablate --config ablations/recipe \
        --workdir runs/recipe --seeds 3
"""

from vireid_jax.configs import walkers_bench

ELSEWHERE = walkers_bench.ELSEWHERE
ROWS = {
    "baseline": {},
    "third_view": {"augment.third_view": True},
    "erase": {"augment.erase": 0.5},
    "shared_neck": {"model.neck_norm": "shared"},
    "identity_alone": {"loss.infonce": 0.0},
    "infonce_alone": {"loss.identity": 0.0},
    "hetero_center": {
        "loss.infonce": 0.0,
        "loss.metric": 1.0,
        "batch.identities": 16,
        "batch.images": 4,
    },
}
get_config = walkers_bench.study(ROWS)
