"""Weights and errors of the training of denoisers.

Simple: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239). Min-SNR: Hang et al.,
Efficient Diffusion Training via Min-SNR Weighting Strategy, 2023 (arXiv:2303.09556). Hybrid: Nichol & Dhariwal,
Improved Denoising Diffusion Probabilistic Models, 2021 (arXiv:2102.09672). Errors keep the batch axis.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from cvjax.generative.diffusion.bound import bound_at_steps
from cvjax.generative.diffusion.process import (
    Prediction,
    at_steps,
    diffuse,
    learned_log_variance,
    posteriors,
    separate,
    target,
)
from cvjax.ops.precision import at_least_float32

Signals = Float[Array, "batch ..."]


def squared_error(output: Signals, wanted: Signals) -> Float[Array, " batch"]:
    """Returns the mean squared error of each signal (Ho et al., equation 14), in float32 at least."""
    return jnp.square(at_least_float32(output) - at_least_float32(wanted)).mean(axis=tuple(range(1, output.ndim)))


def min_snr_weight(
    prediction: Prediction, alpha_bar: Float[ArrayLike, "..."], gamma: float = 5.0
) -> Float[Array, "..."]:
    """Returns the weight of a step's squared error that caps x_0's at gamma (Hang et al., section 3.4).

    With the ratio r = alpha_bar / (1 - alpha_bar) of signal and noise, it is min(r, gamma) for x_0, the same over r for
    the noise, and over r + 1 for the velocity.
    """
    ratio = alpha_bar / (1 - alpha_bar)
    scale = {"clean": 1.0, "noise": ratio, "velocity": ratio + 1}[prediction]
    return jnp.minimum(ratio, gamma) / scale


def hybrid_error(
    prediction: Prediction,
    output: Signals,
    share: Signals,
    clean: Signals,
    noise: Signals,
    steps: Int[Array, " batch"],
    alpha_bars: Float[np.ndarray, " steps"],
    levels: int,
    weight: float = 1e-3,
) -> Float[Array, " batch"]:
    """Returns the simple error plus that share of the variational bound (Nichol & Dhariwal, equation 16).

    The bound is estimated from its term at each signal's step, in bits per dimension, times the number of steps. It
    trains only the variance: no gradient goes through its mean.

    Args:
      output: of the network for `diffuse(clean, noise, alpha_bar)`, the `prediction` of it.
      share: of the network as well, the v of `learned_log_variance`.
      clean: signals in [-1, 1] of `levels` values; 0 to 1 as images have them become -1 to 1.
    """
    output, share = at_least_float32(output), at_least_float32(share)
    alpha_bar = at_steps(alpha_bars, steps, clean.ndim)
    posterior = at_steps(posteriors(alpha_bars), steps, clean.ndim)
    noisy = diffuse(clean, noise, alpha_bar)
    predicted, _ = separate(prediction, jax.lax.stop_gradient(output), noisy, alpha_bar)
    term = bound_at_steps(clean, noisy, predicted, learned_log_variance(share, posterior), posterior, steps, levels)
    simple = squared_error(output, target(prediction, clean, noise, alpha_bar))
    return simple + weight * len(alpha_bars) * term
