"""The contract of a protocol: who is compared with whom, and how CMC counts.

A protocol chooses rows of one split; it sees identities, cameras and modalities, never
images or embeddings. So a direction cannot change which stream an image goes through:
each image is embedded once, by the stream of its own modality, and every protocol
and direction reads the same features.
"""

from dataclasses import dataclass
from typing import Protocol as Interface
from typing import runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Int32


@runtime_checkable
class Rows(Interface):
    """What a protocol reads of a split (`data.source.Records` has it)."""

    identity: Int32[np.ndarray, "rows"]
    camera: Int32[np.ndarray, "rows"]
    modality: Int32[np.ndarray, "rows"]  # index into MODALITIES


@dataclass(frozen=True)
class Protocol:
    """Describe an evaluation; subclasses choose the rows.

    Counts of queries, valid queries and gallery items must be the same in each trial.
    """

    name: str  # "walkers/visible-to-infrared": ends with the direction
    dataset: str  # "walkers/thermal"
    direction: str  # "visible-to-infrared": query modality first
    distinct: bool  # CMC over distinct identities (True) or gallery items (False)
    trials: tuple[int, ...] = (0,)  # the metrics are the mean over these
    mode: str | None = None  # "all" or "indoor", where the data set knows it
    shots: int | None = None  # images drawn per identity and camera; None: no draw
    draws: str = "none"  # how the gallery is drawn: the name of a convention

    def queries(self, records: Rows, trial: int) -> Int[np.ndarray, "query"]:
        """Return the rows that are queries in `trial`."""
        raise NotImplementedError

    def gallery(self, records: Rows, trial: int) -> Int[np.ndarray, "gallery"]:
        """Return the rows that are gallery in `trial`; their order settles ties."""
        raise NotImplementedError

    def ignored(
        self,
        records: Rows,
        queries: Int[np.ndarray, "query"],
        gallery: Int[np.ndarray, "gallery"],
    ) -> Bool[np.ndarray, "query gallery"] | None:
        """Return True where a query drops a gallery row; None: nothing is dropped."""
        return None
