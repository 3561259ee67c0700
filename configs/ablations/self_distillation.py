"""Ablation: what the students of self-distillation (SDM) learn from, if there are any.

Source: the study that Zhang & Zeng 2024 name; which rows is our choice. `labels` has
students without a teacher (deep supervision), `soft` adds the teacher's soft targets,
`features` its features, `all` is the method; `one` has the deepest student alone,
`half` and `double` weigh the loss otherwise. Everything else is as in
configs/walkers_bench.py.

    python -m vireid_jax.main --config ablations/self_distillation:all \
        --workdir runs/students
    python -m vireid_jax.ablate --config ablations/self_distillation \
        --workdir runs/self_distillation --seeds 3
"""

from vireid_jax.configs import walkers_bench

ELSEWHERE = walkers_bench.ELSEWHERE
STUDENTS = ("conv2", "conv3", "conv4")  # Zhang & Zeng: three
ROWS = {
    "none": {"model.students": ()},
    "labels": {
        "model.students": STUDENTS,
        "loss.soft_target": 0.0,
        "loss.imitation": 0.0,
    },
    "soft": {"model.students": STUDENTS, "loss.imitation": 0.0},
    "features": {"model.students": STUDENTS, "loss.soft_target": 0.0},
    "all": {"model.students": STUDENTS},
    "one": {"model.students": ("conv4",)},
    "half": {"model.students": STUDENTS, "loss.distillation": 0.25},
    "double": {"model.students": STUDENTS, "loss.distillation": 1.0},
}
get_config = walkers_bench.study(ROWS)
