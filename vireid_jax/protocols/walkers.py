"""The protocols of the synthetic `walkers` set (our choice, RegDB's manner).

All test images of one modality are queries, all of the other are the gallery: no draw,
one trial, CMC over gallery items. Nothing is ignored: a query would only have to drop
items of its own camera, and no camera takes both modalities (in `nir` as in
`thermal`).
"""

from dataclasses import dataclass

import numpy as np

from vireid_jax.modality import MODALITIES
from vireid_jax.protocols.protocol import Protocol


@dataclass(frozen=True)
class AllAgainstAll(Protocol):
    """Compare all rows of the query modality with all of the other."""

    def queries(self, records, trial):
        """Return all rows of the modality that `direction` starts with."""
        return self._rows(records, self.direction.split("-to-")[0])

    def gallery(self, records, trial):
        """Return all rows of the modality that `direction` ends with."""
        return self._rows(records, self.direction.split("-to-")[1])

    def _rows(self, records, modality):
        rows = np.flatnonzero(records.modality == MODALITIES.index(modality))
        if not len(rows):
            raise ValueError(
                f"the split has no {modality} image, and {self.name} needs both of "
                f"{', '.join(MODALITIES)}. Evaluate the split `test` of {self.dataset}."
            )
        return rows


def walkers_protocols(dataset: str) -> tuple[AllAgainstAll, ...]:
    """Return both directions; `dataset` is the full name, as "walkers/thermal"."""
    return tuple(
        AllAgainstAll(f"walkers/{direction}", dataset, direction, distinct=False)
        for direction in ("visible-to-infrared", "infrared-to-visible")
    )
