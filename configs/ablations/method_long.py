"""Ablation: the whole method against the baseline, in twice the time.

Source: our choice, after `method` and `weights`: parts and students are more to learn.
Both rows train six epochs where configs/walkers_bench.py has three, and are the runs
`long` and `long_both` of `weights`.

    python -m vireid_jax.main --config ablations/method_long:both \
        --workdir runs/both-long
    python -m vireid_jax.ablate --config ablations/method_long \
        --workdir runs/method_long --seeds 3 --reuse runs/weights
"""

from vireid_jax.configs.ablations import method
from vireid_jax.configs.walkers_bench import study

ELSEWHERE = method.ELSEWHERE
LONG = {"schedule.epochs": 6.0, "eval.every_epochs": 6.0}
ROWS = {name: {**method.ROWS[name], **LONG} for name in ("baseline", "both")}
get_config = study(ROWS)
