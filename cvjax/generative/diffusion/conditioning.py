"""Inputs of a denoiser beside the noisy signal: the step, and perhaps a class.

Embedding: Ho, Jain & Abbeel, 2020 (arXiv:2006.11239), after Vaswani et al., 2017. Classes: Ho & Salimans,
Classifier-Free Diffusion Guidance, 2022 (arXiv:2207.12598).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Labels = Int[Array, " batch"]


def timestep_embedding(steps: Int[Array, " batch"], width: int) -> Float[Array, "batch width"]:
    """Returns steps as sines, then cosines, of wavelengths from 2 pi to 20,000 pi; the width is even, at least 4."""
    half = width // 2
    frequencies = jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half))
    angles = steps[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def drop_labels(key: Key[Array, ""], labels: Labels, share: float, null: int) -> Labels:
    """Returns labels, a `share` of them replaced by the null label, to train without them too (algorithm 1)."""
    return jnp.where(jax.random.bernoulli(key, share, labels.shape), null, labels)


def guide(conditional: Float[Array, "..."], unconditional: Float[Array, "..."], weight: float) -> Float[Array, "..."]:
    """Returns a prediction moved further away from the one with the null label (equation 6).

    The weight is the paper's w; 0 is the conditional prediction. Other libraries' guidance scale is 1 + w.
    """
    return (1 + weight) * conditional - weight * unconditional
