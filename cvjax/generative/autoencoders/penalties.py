"""Penalties of autoencoders: contraction (Rifai et al., 2011) and sparsity (Ng, Sparse Autoencoder, 2011)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Images = Float[Array, "batch height width channels"]
Codes = Float[Array, "batch codes"]


def jacobian_norm(encode: Callable[[Images], Codes], images: Images) -> Float[Array, " batch"]:
    """Returns |dh / dx|_F^2 of each image, the norm of the encoder's Jacobian (Rifai et al., equation 1)."""

    def of_one(image):
        return jnp.square(jax.jacrev(lambda x: encode(x[None])[0])(image)).sum()

    return jax.vmap(of_one)(images)


def sigmoid_jacobian_norm(codes: Codes, kernel: Float[Array, "inputs codes"]) -> Float[Array, " batch"]:
    """Returns `jacobian_norm` of a dense layer with sigmoid codes in closed form (Rifai et al., equation 2)."""
    return jnp.square(codes * (1 - codes)) @ jnp.square(kernel).sum(axis=0)


def kl_sparsity(codes: Codes, target: float) -> Float[Array, " codes"]:
    """Returns KL(target || mean activation) of each unit in nats, as Bernoulli distributions (Ng, section 3).

    The mean over the batch of the codes, which are in [0, 1], is clipped to [1e-6, 1 - 1e-6]: the divergence is finite.
    """
    mean = jnp.clip(codes.mean(axis=0), 1e-6, 1 - 1e-6)
    return jax.scipy.special.rel_entr(target, mean) + jax.scipy.special.rel_entr(1 - target, 1 - mean)
