"""Protocols without a draw: RegDB, the synthetic `walkers`, data of your own.

All test images of one modality are queries, all of the other are the gallery: one
trial, CMC over gallery items.

RegDB (Nguyen et al., Sensors 2017) has 2,060 images on each side. One camera takes the
visible, another the infrared images, so nothing is ignored. Its ten trials split the
identities in ten ways; each is a data set and has a model of its own, and published
numbers are means over them. MPANet counts CMC over identities instead: its Rank-5 to
Rank-20 compare with no other's, Rank-1 and mAP do.

`walkers` and custom data follow RegDB (our choice). No camera of `walkers` takes both
modalities. A camera of custom data may: there a query ignores the gallery items of its
identity and camera, as in Market-1501.
"""

from typing import Any

from vireid_jax.protocols.protocol import DIRECTIONS, Protocol
from vireid_jax.run.errors import UserError


def regdb_protocols(dataset: str = "regdb") -> tuple[Protocol, ...]:
    """Return both directions of one trial: "regdb/trial_1" to "regdb/trial_10".

    "regdb" alone is trial 1. Raise UserError for another trial.
    """
    variant = dataset.partition("/")[2] or "trial_1"
    trials = {f"trial_{trial}": trial for trial in range(1, 11)}
    if variant not in trials:
        raise UserError(
            f"RegDB has no {variant!r}; valid values: {', '.join(trials)}. Name one,"
            " as regdb/trial_1"
        )
    return _both_directions(
        f"regdb/{{}}/{variant}",
        f"regdb/{variant}",
        trials=(trials[variant],),
        published=(2060, 2060),
    )


def walkers_protocols(dataset: str = "walkers") -> tuple[Protocol, ...]:
    """Return both directions; `dataset` is the full name, as "walkers/thermal"."""
    return _both_directions("walkers/{}", dataset)


def custom_protocols(dataset: str = "custom") -> tuple[Protocol, ...]:
    """Return both directions; `dataset` is the name that reports show."""
    return _both_directions("custom/{}", dataset, ignore_same_camera=True)


def _both_directions(name: str, dataset: str, **fields: Any) -> tuple[Protocol, ...]:
    return tuple(
        Protocol(name.format(direction), dataset, direction, **fields)
        for direction in DIRECTIONS
    )
