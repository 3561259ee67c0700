"""Ablation: the whole method against the baseline, and each of its two halves.

Source: Zhang & Zeng 2024. `both` has self-distillation (SDM) and part relations (MGIM);
with one seed more is learned of chance than of the method, so this pair has five.
Everything else is as in configs/walkers_bench.py.

    python -m vireid_jax.main --config ablations/method:both \
        --workdir runs/both
    python -m vireid_jax.ablate --config ablations/method \
        --workdir runs/method --seeds 3
"""

from vireid_jax.configs import walkers_bench

ELSEWHERE = walkers_bench.ELSEWHERE
STUDENTS = ("conv2", "conv3", "conv4")  # Zhang & Zeng: three
ROWS = {
    "baseline": {"model.students": (), "model.granularities": ()},
    "both": {"model.students": STUDENTS, "model.granularities": (2, 4)},
    "sdm": {"model.students": STUDENTS, "model.granularities": ()},
    "mgim": {"model.students": (), "model.granularities": (2, 4)},
}
get_config = walkers_bench.study(ROWS)
