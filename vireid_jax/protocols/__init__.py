"""Evaluation protocols, the ranking behind them, and results that carry their labels.

for protocol in get_protocols("walkers/thermal"):
    result = evaluate(protocol, records, features, epoch=12, selection="last")
"""

from vireid_jax.protocols.names import (
    find_protocol,
    get_protocols,
    validation_protocols,
)
from vireid_jax.protocols.protocol import Protocol, Rows
from vireid_jax.protocols.ranking import Metrics, cosine_distances, cosine_rows, rank
from vireid_jax.protocols.reranking import KReciprocal
from vireid_jax.protocols.result import Labels, Result, evaluate
from vireid_jax.protocols.tables import print_results, results_table

__all__ = [
    "KReciprocal",
    "Labels",
    "Metrics",
    "Protocol",
    "Result",
    "Rows",
    "cosine_distances",
    "cosine_rows",
    "evaluate",
    "find_protocol",
    "get_protocols",
    "print_results",
    "rank",
    "results_table",
    "validation_protocols",
]
