"""The protocols of a data set of your own (our choice).

All test images of one modality are queries, all of the other are the gallery: no draw,
one trial, CMC over gallery items. One camera may take both modalities, so a query
ignores the gallery items of its identity and camera, as in Market-1501.
"""

from vireid_jax.protocols.all_against_all import AllAgainstAll
from vireid_jax.protocols.protocol import DIRECTIONS, Protocol


def custom_protocols(dataset: str = "custom") -> tuple[Protocol, ...]:
    """Return both directions; `dataset` is the name that reports show."""
    return tuple(
        AllAgainstAll(
            f"custom/{direction}",
            dataset,
            direction,
            distinct=False,
            ignore_same_camera=True,
        )
        for direction in DIRECTIONS
    )
