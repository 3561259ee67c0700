"""The protocols of the synthetic `walkers` set (our choice, RegDB's manner).

All test images of one modality are queries, all of the other are the gallery: no draw,
one trial, CMC over gallery items. Nothing is ignored: a query would only have to drop
items of its own camera, and no camera takes both modalities (in `nir` as in
`thermal`).
"""

from vireid_jax.protocols.all_against_all import AllAgainstAll
from vireid_jax.protocols.protocol import DIRECTIONS, Protocol


def walkers_protocols(dataset: str = "walkers") -> tuple[Protocol, ...]:
    """Return both directions; `dataset` is the full name, as "walkers/thermal"."""
    return tuple(
        AllAgainstAll(f"walkers/{direction}", dataset, direction, distinct=False)
        for direction in DIRECTIONS
    )
