"""The protocols of SYSU-MM01 (Wu et al., ICCV 2017).

All infrared test images are queries, 3,803 in every mode. The gallery is drawn from the
visible ones: one image ("single" shot) or ten ("multi") of each identity and camera,
in cameras 1, 2, 4 and 5 (mode "all") or 1 and 2 ("indoor"). Cameras 2 and 3 are in one
room: a query of camera 3 ignores every gallery item of camera 2. CMC counts distinct
identities, mAP and mINP items. Metrics are means over ten draws.

Two conventions of drawing are published, both as "ten trials": `agw` and `official`
(draws.py). Their numbers differ by sampling noise.
"""

from dataclasses import dataclass, field

import numpy as np

from vireid_jax.modality import MODALITIES
from vireid_jax.protocols import draws
from vireid_jax.protocols.protocol import Indices, Pairs, Protocol, Rows
from vireid_jax.run.errors import UserError

CAMERAS = {"visible": (1, 2, 4, 5), "infrared": (3, 6)}
GALLERY_CAMERAS = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
SHOTS = {"single": 1, "multi": 10}
QUERIES, SINGLE_SHOT_GALLERY = 3803, {"all": 301, "indoor": 112}  # published counts


@dataclass(frozen=True)
class SysuMM01(Protocol):
    """Compare all infrared images with a drawn visible gallery."""

    distinct: bool = True
    mode: str = "all"
    shots: int = 1
    permutations: draws.Permutations | None = field(
        default=None, repr=False, compare=False
    )

    def queries(self, records: Rows, trial: int) -> Indices:
        """Return all infrared rows, by identity, camera and file name.

        Raise UserError for a camera of the other modality.
        """
        for modality, cameras in CAMERAS.items():
            rows = records.modality == MODALITIES.index(modality)
            wrong = np.flatnonzero(rows & ~np.isin(records.camera, cameras))
            if len(wrong):
                raise UserError(
                    f"row {wrong[0]} ({records.filename[wrong[0]]}) is {modality}, of"
                    f" camera {records.camera[wrong[0]]}; SYSU-MM01's {modality}"
                    f" cameras are {list(cameras)}"
                )
        rows = self.rows_of(records, "infrared")
        return np.concatenate(draws.by_identity_and_camera(records, rows))

    def gallery(self, records: Rows, trial: int) -> Indices:
        """Return the drawn rows: by identity and camera (`agw`), or camera first.

        An identity with too few images in a camera gives all it has there.
        """
        rows = self.rows_of(records, "visible", GALLERY_CAMERAS[self.mode])
        groups = draws.by_identity_and_camera(records, rows)
        if self.permutations is None:
            return draws.seeded_draw(groups, self.shots, seed=trial)
        return draws.official_draw(
            self.permutations, records, groups, self.shots, trial
        )

    def ignored(self, records: Rows, queries: Indices, gallery: Indices) -> Pairs:
        """Return True where the query is of camera 3 and the item of camera 2."""
        return (records.camera[queries] == 3)[:, None] & (records.camera[gallery] == 2)


def sysu_mm01_protocols(
    dataset: str, permutations: draws.Permutations | None = None
) -> tuple[Protocol, ...]:
    """Return four: all and indoor search, each with a single and a multi shot gallery.

    Drawn by convention `official` where `permutations` are given, else `agw`.
    """
    official = permutations is not None
    return tuple(
        SysuMM01(
            f"sysu_mm01/{mode}/{word}" + ("/official" if official else ""),
            dataset,
            "infrared-to-visible",
            trials=tuple(range(1, 11)) if official else draws.AGW_TRIALS,
            mode=mode,
            shots=shots,
            draws="official" if official else "agw",
            published=(QUERIES, SINGLE_SHOT_GALLERY[mode] * shots),
            permutations=permutations,
        )
        for mode in GALLERY_CAMERAS
        for word, shots in SHOTS.items()
    )
