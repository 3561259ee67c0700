"""Lightweight visible-infrared person re-identification in JAX/Flax.

The public names below are imported when they are first used; all others may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vireid_jax import losses
    from vireid_jax.configs import get_config
    from vireid_jax.data.source import load_records
    from vireid_jax.embed.embedder import Embedder, load
    from vireid_jax.evaluate.foreign_features import evaluate_features
    from vireid_jax.evaluate.test_split import evaluate_run
    from vireid_jax.models.build import create_model
    from vireid_jax.protocols import Result, get_protocols
    from vireid_jax.train import train_run

__version__ = "0.1.0"
__all__ = [
    "Embedder", "Result", "__version__", "create_model", "evaluate_features",
    "evaluate_run", "get_config", "get_protocols", "load", "load_records", "losses",
    "train_run",
]  # fmt: skip
_MODULES = {
    "Embedder": "embed.embedder",
    "Result": "protocols",
    "create_model": "models.build",
    "evaluate_features": "evaluate.foreign_features",
    "evaluate_run": "evaluate.test_split",
    "get_config": "configs",
    "get_protocols": "protocols",
    "load": "embed.embedder",
    "load_records": "data.source",
    "train_run": "train",
}


def __getattr__(name: str) -> Any:
    """Import a public name, and jax with it, when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, the imported ones or not."""
    return sorted({*globals(), *__all__})
