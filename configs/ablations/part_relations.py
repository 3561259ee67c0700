"""Ablation: which parts the embedding has (MGIM), and how they are related.

Source: the study that Zhang & Zeng 2024 name; which rows is our choice. `stripes` are
parts without relations. The last map of the bench has four rows, so its granularities
are 2 and 4. Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config ablations/part_relations:attention \
        --workdir runs/attention
    python -m vireid_jax.ablate --config ablations/part_relations \
        --workdir runs/part_relations --seeds 3
"""

from vireid_jax.configs import walkers_bench

ELSEWHERE = walkers_bench.ELSEWHERE
ROWS = {
    "none": {"model.granularities": ()},
    "stripes": {"model.granularities": (), "model.num_stripes": 4},
    "2": {"model.granularities": (2,)},
    "4": {"model.granularities": (4,)},
    "2,4": {"model.granularities": (2, 4)},
    "attention": {"model.granularities": (2, 4), "model.relation": "attention"},
}
get_config = walkers_bench.study(ROWS)
