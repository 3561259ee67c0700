"""Wider types for what a narrow one is not exact enough: norms, softmaxes, losses."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# For matrix products of widened arrays: a TPU would otherwise multiply in bfloat16.
EXACT = lax.Precision.HIGHEST


def widen(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Cast bfloat16 and float16 to float32; keep float32 and float64."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
