"""Where compute in a narrow type must widen: norms, softmaxes, distances, losses."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# For matrix products of widened arrays: a TPU would otherwise multiply in bfloat16.
EXACT = lax.Precision.HIGHEST


def widen(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Casts bfloat16 and float16 to float32, and leaves float32 and float64 alone."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
