"""The protocols of LLCM (Zhang and Wang, CVPR 2023).

All test images of one modality are queries; the gallery is one image of the other per
identity and camera, drawn by convention `agw`. A query ignores the gallery items of
its identity and camera. CMC counts distinct identities, mAP and mINP items. Metrics are
means over ten draws.

Published visible-to-infrared numbers come in a second reading, `swapped`: the test
script of the authors' repository (ZYK100/LLCM) makes the drawn infrared images the
queries and all visible images the gallery. That is an infrared-to-visible search, and
so is its label `direction`; only its name is the one of the published tables.
"""

from dataclasses import dataclass

import numpy as np

from vireid_jax.protocols.draws import AGW_TRIALS, by_identity_and_camera, seeded_draw
from vireid_jax.protocols.protocol import DIRECTIONS, Indices, Protocol, Rows


@dataclass(frozen=True)
class Llcm(Protocol):
    """Compare all images of one modality with a draw of the other."""

    distinct: bool = True
    trials: tuple[int, ...] = AGW_TRIALS
    shots: int = 1
    draws: str = "agw"
    ignore_same_camera: bool = True
    drawn: str = "gallery"  # or "queries" (`swapped`)

    def queries(self, records: Rows, trial: int) -> Indices:
        """Return rows of the query modality, by identity, camera and file name."""
        return self._rows(records, self.modalities[0], trial, self.drawn == "queries")

    def gallery(self, records: Rows, trial: int) -> Indices:
        """Return rows of the other modality, by identity, camera and file name."""
        return self._rows(records, self.modalities[1], trial, self.drawn == "gallery")

    def _rows(self, records: Rows, modality: str, trial: int, drawn: bool) -> Indices:
        groups = by_identity_and_camera(records, self.rows_of(records, modality))
        return seeded_draw(groups, 1, trial) if drawn else np.concatenate(groups)


def llcm_protocols(dataset: str) -> tuple[Protocol, ...]:
    """Return both directions."""
    return tuple(Llcm(f"llcm/{d}", dataset, d) for d in DIRECTIONS)


SWAPPED = Llcm(
    "llcm/visible-to-infrared/swapped", "llcm", "infrared-to-visible", drawn="queries"
)
