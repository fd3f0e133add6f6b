"""Inputs of a denoiser beside the noisy signal: the step, and perhaps a class, towards which it can be guided.

Embedding: Ho, Jain & Abbeel, 2020 (arXiv:2006.11239), after Vaswani et al., 2017. Classes: Ho & Salimans,
Classifier-Free Diffusion Guidance, 2022 (arXiv:2207.12598). A classifier: Dhariwal & Nichol, Diffusion Models Beat GANs
on Image Synthesis, 2021 (arXiv:2105.05233).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cvjax.generative.diffusion.process import separate
from cvjax.generative.diffusion.samplers import Denoise

Labels = Int[Array, " batch"]
Signals = Float[Array, "batch ..."]
LogProbability = Callable[[Signals, Int[Array, ""]], Float[Array, " batch"]]  # (x_t, t) -> log p(y | x_t)


def timestep_embedding(steps: Int[Array, " batch"], width: int) -> Float[Array, "batch width"]:
    """Returns steps as sines, then cosines, of wavelengths from 2 pi to 20,000 pi; the width is even, at least 4."""
    half = width // 2
    frequencies = jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half))
    angles = steps[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def drop_labels(key: Key[Array, ""], labels: Labels, share: float, null: int) -> Labels:
    """Returns labels, a `share` of them replaced by the null label, to train without them too (algorithm 1)."""
    return jnp.where(jax.random.bernoulli(key, share, labels.shape), null, labels)


def guide(
    conditional: Float[Array, "*signals"], unconditional: Float[Array, "*signals"], weight: float | Float[Array, "..."]
) -> Float[Array, "*signals"]:
    """Returns a prediction moved further away from the one with the null label (equation 6).

    The weight is the paper's w; 0 is the conditional prediction. Other libraries' guidance scale is 1 + w.
    """
    return (1 + weight) * conditional - weight * unconditional


def with_classifier(
    denoise: Denoise,
    log_probability: LogProbability,
    alpha_bars: Float[np.ndarray, " steps"],
    weight: float | Float[Array, ""],
) -> Denoise:
    """Returns a denoiser that a classifier of noisy signals guides (Dhariwal & Nichol, equation 14 and algorithm 2).

    From the noise it takes `weight` sqrt(1 - alpha_bar) times the gradient of log p(y | x_t), and x_0 follows. With
    weight 1 and exact predictions it is the denoiser of p(x_0 | y). In ancestral sampling, this moves a step's mean as
    algorithm 1 does, with beta / sqrt(alpha) for the variance.
    """
    levels = jnp.asarray(alpha_bars, jnp.float32)

    def guided(noisy: Signals, step: Int[Array, ""]) -> tuple[Signals, ...]:
        _, noise, *share = denoise(noisy, step)
        gradient = jax.grad(lambda signals: log_probability(signals, step).sum())(noisy)
        noise -= weight * jnp.sqrt(1 - levels[step]) * gradient
        return *separate("noise", noise, noisy, levels[step]), *share

    return guided
