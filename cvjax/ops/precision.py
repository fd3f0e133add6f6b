"""Sums, products of sizes and counts in float32 at least: in bfloat16 256 + 1 is 256, in float16 256 * 256 infinite."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped


def at_least_float32(x: Shaped[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Returns numbers as they are in float32 or wider, else in float32."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
