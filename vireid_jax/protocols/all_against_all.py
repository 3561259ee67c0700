"""All images of one modality against all of the other: no draw, one trial.

RegDB's manner, and that of the synthetic `walkers` and of custom data (our choice).
"""

from dataclasses import dataclass

from vireid_jax.protocols.protocol import Protocol, same_identity_and_camera


@dataclass(frozen=True)
class AllAgainstAll(Protocol):
    """Compare all rows of the query modality with all of the other.

    Where a camera may take both modalities, `ignore_same_camera` makes a query ignore
    the items of its identity that its own camera took.
    """

    ignore_same_camera: bool = False

    def queries(self, records, trial):
        """Return all rows of the modality that `direction` starts with."""
        return self.rows_of(records, self.modalities[0])

    def gallery(self, records, trial):
        """Return all rows of the modality that `direction` ends with."""
        return self.rows_of(records, self.modalities[1])

    def ignored(self, records, queries, gallery):
        """Return the pairs of one identity and one camera, where they are ignored."""
        if not self.ignore_same_camera:
            return None
        return same_identity_and_camera(records, queries, gallery)
