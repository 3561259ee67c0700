"""The contract of a protocol: who is compared with whom, and how CMC counts.

A protocol chooses rows of one split; it sees identities, cameras and modalities, never
images or embeddings. So a direction cannot change which stream an image goes through:
each image is embedded once, by the stream of its own modality, and every protocol
and direction reads the same features.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol as Interface
from typing import runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Int32

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError

DIRECTIONS = ("visible-to-infrared", "infrared-to-visible")  # query modality first

Indices = Int[np.ndarray, "_"]  # rows of a split
Pairs = Bool[np.ndarray, "query gallery"]


@runtime_checkable
class Rows(Interface):
    """What a protocol reads of a split (`data.source.Records` has it)."""

    @property
    def identity(self) -> Int32[np.ndarray, "rows"]:
        """Return the identity of each row."""

    @property
    def camera(self) -> Int32[np.ndarray, "rows"]:
        """Return the camera of each row."""

    @property
    def modality(self) -> Int32[np.ndarray, "rows"]:
        """Return the index into MODALITIES of each row."""

    @property
    def filename(self) -> list[str]:
        """Return the paths from the release's root, as "cam3/0006/0001.jpg"."""


@dataclass(frozen=True)
class Protocol:
    """Compare all images of one modality with all of the other, in one trial.

    Subclasses choose other rows. The numbers of queries, valid queries and gallery
    items must be the same in each trial.
    """

    name: str  # "walkers/visible-to-infrared": holds every choice, so it is unique
    dataset: str  # "walkers/thermal"
    direction: str  # one of DIRECTIONS
    distinct: bool = False  # CMC counts distinct identities, not gallery items
    trials: tuple[int, ...] = (0,)  # the metrics are the mean over these
    mode: str | None = None  # "all" or "indoor", where the data set has modes
    shots: int | None = None  # images drawn per identity and camera; None: no draw
    draws: str = "none"  # how they are drawn: the name of a convention
    published: tuple[int, int] | None = None  # queries and gallery of the full release
    ignore_same_camera: bool = False  # for pairs of one identity: Market-1501's rule

    def queries(self, records: Rows, trial: int) -> Indices:
        """Return the rows that are queries in `trial`."""
        return self.rows_of(records, self.modalities[0])

    def gallery(self, records: Rows, trial: int) -> Indices:
        """Return the rows that are gallery in `trial`; their order breaks ties."""
        return self.rows_of(records, self.modalities[1])

    def ignored(
        self, records: Rows, queries: Indices, gallery: Indices
    ) -> Pairs | None:
        """Return True where a query ignores a gallery row; None: nothing is ignored.

        `queries` may be any part of the trial's queries.
        """
        if not self.ignore_same_camera:
            return None
        identity, camera = records.identity, records.camera
        return (identity[queries][:, None] == identity[gallery]) & (
            camera[queries][:, None] == camera[gallery]
        )

    @property
    def modalities(self) -> tuple[str, str]:
        """Return the modality of the queries and that of the gallery."""
        query, gallery = self.direction.split("-to-")
        return query, gallery

    def rows_of(
        self, records: Rows, modality: str, cameras: Collection[int] | None = None
    ) -> Indices:
        """Return the rows of one modality, in the split's order; of `cameras` only.

        Raise UserError where there is none.
        """
        chosen = records.modality == MODALITIES.index(modality)
        if cameras is not None:
            chosen &= np.isin(records.camera, list(cameras))
        if not chosen.any():
            where = f" of cameras {', '.join(map(str, cameras))}" if cameras else ""
            raise UserError(
                f"the split has no {modality} image{where}, and {self.name} needs both"
                f" of {', '.join(MODALITIES)}. Evaluate the split `test` of"
                f" {self.dataset}"
            )
        return np.flatnonzero(chosen)
