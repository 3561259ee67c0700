"""Lightweight visible-infrared person re-identification in JAX/Flax."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vireid_jax.embed.embedder import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str):
    """Imports `load`, and jax with it, when it is first asked for."""
    if name == "load":
        from vireid_jax.embed.embedder import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
