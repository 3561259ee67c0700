"""Evaluation protocols, the ranking behind them, and results that carry their labels.

for protocol in get_protocols("walkers/thermal"):
    result = evaluate(protocol, records, features, epoch=12, selection="last")
"""

from vireid_jax.protocols.protocol import Protocol
from vireid_jax.protocols.ranking import Metrics, cosine_distances, cosine_rows, rank
from vireid_jax.protocols.result import Labels, Result, evaluate, results_table
from vireid_jax.protocols.walkers import walkers_protocols

__all__ = [
    "Labels",
    "Metrics",
    "Protocol",
    "Result",
    "cosine_distances",
    "cosine_rows",
    "evaluate",
    "get_protocols",
    "rank",
    "results_table",
]

_PROTOCOLS = {"walkers": walkers_protocols}


def get_protocols(dataset: str) -> tuple[Protocol, ...]:
    """Return the protocols of a data set, one for each direction.

    `dataset` is a TFDS name with or without its variant, as "walkers/nir"; the
    protocols are the same for all variants. Raises ValueError for an unknown data set.
    """
    name = dataset.partition("/")[0]
    if name not in _PROTOCOLS:
        raise ValueError(
            f"no protocol for data set {dataset!r}; legal are "
            f"{', '.join(sorted(_PROTOCOLS))}, each with or without a /variant. "
            "Put one of these names in the config."
        )
    return _PROTOCOLS[name](dataset)
