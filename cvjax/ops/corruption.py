"""Corruption of images at random: Gaussian noise, masking, salt and pepper."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Corruption = Literal["none", "gaussian", "masking", "salt_and_pepper"]


def corrupt(
    key: Key[Array, ""], images: Float[Array, "batch height width channels"], corruption: Corruption, level: float
) -> Float[Array, "batch height width channels"]:
    """Returns images corrupted as Vincent et al., Stacked Denoising Autoencoders, JMLR 2010, section 3.3, do.

    Args:
      corruption: "gaussian" adds noise, so that values leave [0, 1]; "masking" blackens elements; "salt_and_pepper"
        makes each element black or white with equal probability.
      level: standard deviation of the Gaussian, else the exact share of each image's elements that is replaced.
    """
    if corruption == "none":
        return images
    noise_key, coin_key = jax.random.split(key)
    if corruption == "gaussian":
        return images + level * jax.random.normal(noise_key, images.shape)
    size = math.prod(images.shape[1:])
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(noise_key, (len(images), size))))
    replaced = (rank < round(level * size)).reshape(images.shape)
    salted = jax.random.bernoulli(coin_key, 0.5, images.shape).astype(images.dtype)
    return jnp.where(replaced, salted if corruption == "salt_and_pepper" else 0.0, images)
