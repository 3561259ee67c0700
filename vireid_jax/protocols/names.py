"""Protocols by name: the defaults of a data set, or one of all by its full name."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from vireid_jax.protocols.all_against_all import (
    custom_protocols,
    regdb_protocols,
    walkers_protocols,
)
from vireid_jax.protocols.draws import read_permutations
from vireid_jax.protocols.llcm import SWAPPED, llcm_protocols
from vireid_jax.protocols.protocol import DIRECTIONS, Protocol
from vireid_jax.protocols.sysu_mm01 import sysu_mm01_protocols
from vireid_jax.run.errors import UserError

_DEFAULTS = {
    "custom": custom_protocols,
    "llcm": llcm_protocols,
    "regdb": regdb_protocols,
    "sysu_mm01": sysu_mm01_protocols,
    "walkers": walkers_protocols,
}
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
            f"no protocol for data set {dataset!r}{_close_match(name, _DEFAULTS)};"
            f" valid values: {', '.join(_DEFAULTS)}, each with or without a /variant."
            " Put one of these names in the config"
        )
    return _DEFAULTS[name](dataset)


def validation_protocols(dataset: str) -> tuple[Protocol, ...]:
    """Return the first default protocol of each direction: its gallery is smallest."""
    by_direction: dict[str, Protocol] = {}
    for protocol in get_protocols(dataset):
        by_direction.setdefault(protocol.direction, protocol)
    return tuple(by_direction.values())


def find_protocol(name: str, *, permutations: str | Path | None = None) -> Protocol:
    """Return one protocol by its full name, as "sysu_mm01/indoor/multi/official".

    `permutations` is the path of rand_perm_cam.mat, which names with /official need
    and no other reads. "regdb/<direction>" is trial 1, and so is the name returned.
    Raise UserError for an unknown name, and for that file if missing or damaged.
    """
    protocols = [protocol for make in _DEFAULTS.values() for protocol in make()]
    for trial in range(2, 11):
        protocols += regdb_protocols(f"regdb/trial_{trial}")
    known = {protocol.name: protocol for protocol in [*protocols, SWAPPED]}
    known |= {f"regdb/{d}": known[f"regdb/{d}/trial_1"] for d in DIRECTIONS}
    official = [f"{protocol.name}/official" for protocol in sysu_mm01_protocols()]
    if name in official:
        drawn = sysu_mm01_protocols(permutations=read_permutations(permutations))
        return drawn[official.index(name)]
    if name not in known:
        guess = _close_match(name, [*known, *official])
        raise UserError(f"no protocol {name!r}{guess}; valid values: {_NAMES}")
    return known[name]


def _close_match(name: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
