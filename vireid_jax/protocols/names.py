"""Protocols by name: the defaults of a data set, or one of all by its full name.

RegDB, the synthetic `walkers` and data of your own need no class: all test images of
one modality are queries, all of the other are the gallery; one trial, CMC over items.

RegDB (Nguyen et al., Sensors 2017) has 2,060 images on each side. One camera takes the
visible, another the infrared images, so nothing is ignored. Its ten trials split the
identities in ten ways; each is a data set and has a model of its own, and published
numbers are means over them. MPANet counts CMC over identities instead: its Rank-5 to
Rank-20 compare with no other's, Rank-1 and mAP do.

`walkers` and custom data follow RegDB (our choice). No camera of `walkers` takes both
modalities. A camera of custom data may: there a query ignores the gallery items of its
identity and camera, as in Market-1501.
"""

from pathlib import Path
from typing import Any

from vireid_jax.protocols.draws import read_permutations
from vireid_jax.protocols.llcm import SWAPPED, llcm_protocols
from vireid_jax.protocols.protocol import DIRECTIONS, Protocol
from vireid_jax.protocols.sysu_mm01 import sysu_mm01_protocols
from vireid_jax.run.errors import UserError, did_you_mean

_NAMES = (
    "sysu_mm01/<all|indoor>/<single|multi>[/official], "
    "regdb/<direction>[/trial_<1 to 10>], llcm/<direction>, "
    "llcm/visible-to-infrared/swapped, walkers/<direction> and custom/<direction>, "
    f"where <direction> is {' or '.join(DIRECTIONS)}"
)


def get_protocols(dataset: str) -> tuple[Protocol, ...]:
    """Return the protocols of a data set that its metrics are reported in by default.

    `dataset` is a TFDS name with or without its variant, as "walkers/nir": all and
    indoor, single and multi shot for "sysu_mm01", both directions for the others.
    "regdb/trial_3" names the trial, "regdb" is trial 1.
    Raise UserError for an unknown data set or trial.
    """
    name = dataset.partition("/")[0]
    if name not in _DEFAULTS:
        raise UserError(
            f"no protocol for data set {dataset!r}; {did_you_mean(name, _DEFAULTS)}"
            f"valid values: {', '.join(_DEFAULTS)}, each with or without a /variant"
        )
    return _DEFAULTS[name](dataset)


def validation_protocols(dataset: str) -> tuple[Protocol, ...]:
    """Return the first default protocol of each direction: its gallery is smallest."""
    protocols = get_protocols(dataset)
    first = {protocol.direction: protocol for protocol in reversed(protocols)}
    return tuple(protocol for protocol in protocols if protocol in first.values())


def find_protocol(name: str, *, permutations: str | Path | None = None) -> Protocol:
    """Return one protocol by its full name, as "sysu_mm01/indoor/multi/official".

    `permutations` is the path of rand_perm_cam.mat, which names with /official need
    and no other reads. "regdb/<direction>" is trial 1, and so is the name returned.
    Raise UserError for an unknown name, and for that file if missing or damaged.
    """
    official = [f"{protocol.name}/official" for protocol in get_protocols("sysu_mm01")]
    if name in official:
        drawn = sysu_mm01_protocols("sysu_mm01", read_permutations(permutations))
        return drawn[official.index(name)]
    datasets = [*_DEFAULTS, *(f"regdb/trial_{trial}" for trial in range(2, 11))]
    protocols = [p for dataset in datasets for p in get_protocols(dataset)]
    known = {protocol.name: protocol for protocol in [*protocols, SWAPPED]}
    known |= {f"regdb/{d}": known[f"regdb/{d}/trial_1"] for d in DIRECTIONS}
    if name not in known:
        meant = did_you_mean(name, [*known, *official])
        raise UserError(f"no protocol {name!r}; {meant}valid values: {_NAMES}")
    return known[name]


def _regdb(dataset: str) -> tuple[Protocol, ...]:
    """Return both directions of one trial: "regdb/trial_1" to "regdb/trial_10"."""
    variant = dataset.partition("/")[2] or "trial_1"
    trials = {f"trial_{trial}": trial for trial in range(1, 11)}
    if variant not in trials:
        raise UserError(f"RegDB has no {variant!r}; valid values: {', '.join(trials)}")
    fields = {"trials": (trials[variant],), "published": (2060, 2060)}
    return _directions(f"regdb/{{}}/{variant}", f"regdb/{variant}", **fields)


def _directions(name: str, dataset: str, **fields: Any) -> tuple[Protocol, ...]:
    return tuple(Protocol(name.format(d), dataset, d, **fields) for d in DIRECTIONS)


_DEFAULTS = {
    "custom": lambda name: _directions("custom/{}", name, ignore_same_camera=True),
    "llcm": llcm_protocols,
    "regdb": _regdb,
    "sysu_mm01": sysu_mm01_protocols,
    "walkers": lambda name: _directions("walkers/{}", name),
}
