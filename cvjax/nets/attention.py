"""Attention among the places of an image: Zhang et al., Self-Attention GANs, 2019 (arXiv:1805.08318), section 3."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.nets.layers import Conv
from cvjax.nets.normalisation import spectral


class SelfAttention(nn.Module):
    """Adds to every place a weighted mean over all places.

    Parameters: 1 x 1 convolutions `f`, `g`, `h` to `channels / reduction` and `v` back, without bias, and `gamma`, the
    weight of the mean, initially 0.

    Attributes:
      reduction: how many times fewer channels than the input `f`, `g` and `h` have.
      spectral_norm: divide the kernels by their spectral norms.
    """

    reduction: int = 8
    spectral_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        """Returns gamma times the attended features (equation 2) plus x (equation 3)."""
        batch, height, width, channels = x.shape
        narrow = max(channels // self.reduction, 1)

        def project(name: str, features: int, inputs: Array) -> Array:
            layer = Conv(features, 1, use_bias=False, kernel_init=nn.initializers.glorot_uniform(), name=name)
            return spectral(layer, train)(inputs) if self.spectral_norm else layer(inputs)

        f, g, h = (project(name, narrow, x).reshape(batch, height * width, narrow) for name in "fgh")
        scores = jnp.einsum("bjc,bic->bji", g, f, preferred_element_type=jnp.float32)
        shares = jax.nn.softmax(scores, axis=2).astype(h.dtype)  # beta of equation 1: of place i for place j
        attended = jnp.einsum("bji,bic->bjc", shares, h).reshape(batch, height, width, narrow)
        gamma = self.param("gamma", nn.initializers.zeros, ())
        return jnp.asarray(gamma, x.dtype) * project("v", channels, attended) + x
