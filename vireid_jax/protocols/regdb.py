"""The protocols of RegDB (Nguyen et al., Sensors 2017).

All 2,060 test images of one modality are queries, all of the other are the gallery: no
draw, CMC over gallery items. Nothing is ignored: one camera takes the visible, another
the infrared images. Ten trials split the identities anew; each is a data set and has a
model of its own, and published numbers are means over them. MPANet counts CMC over
identities instead: its Rank-5 to Rank-20 compare with no other's, Rank-1 and mAP do.
"""

from vireid_jax.protocols.all_against_all import AllAgainstAll
from vireid_jax.protocols.protocol import DIRECTIONS, Counts, Protocol
from vireid_jax.run.errors import UserError


def regdb_protocols(dataset: str = "regdb") -> tuple[Protocol, ...]:
    """Return both directions of one trial of RegDB.

    `dataset` is "regdb/trial_1" to "regdb/trial_10"; "regdb" alone is trial 1.
    Raises UserError for another trial.
    """
    variant = dataset.partition("/")[2] or "trial_1"
    trials = {f"trial_{trial}": trial for trial in range(1, 11)}
    if variant not in trials:
        raise UserError(
            f"RegDB has no {variant!r}; legal are {', '.join(trials)}. "
            "Name one, as regdb/trial_1."
        )
    return tuple(
        AllAgainstAll(
            f"regdb/{direction}/{variant}",
            f"regdb/{variant}",
            direction,
            distinct=False,
            trials=(trials[variant],),
            published=Counts(queries=2060, gallery=2060),
        )
        for direction in DIRECTIONS
    )
