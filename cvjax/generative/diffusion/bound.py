"""The variational bound on a diffusion's likelihood, in bits per dimension.

Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239), equations 5 and 13. Learned
variance: Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021 (arXiv:2102.09672).

Signals are in [-1, 1] and have a number of levels, evenly spaced from -1 to 1: 256 of a photograph's bytes.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, ArrayLike, Float, Int, Key

from cvjax.generative.diffusion.process import (
    Posterior,
    at_steps,
    clip_clean,
    diffuse,
    learned_log_variance,
    posterior_mean,
    posteriors,
)
from cvjax.generative.diffusion.samplers import AlphaBars, Denoise, Variance
from cvjax.ops.precision import at_least_float32

Signals = Float[Array, "batch ..."]
Numbers = Float[ArrayLike, "..."]
Bits = Float[Array, " batch"]


def gaussian_kl(mean: Numbers, log_variance: Numbers, other_mean: Numbers, other: Numbers) -> Float[Array, "..."]:
    """Returns KL(N(mean, variance) || N(other_mean, other's)) of each number, in nats; `other` is a log-variance."""
    excess = jnp.exp(log_variance - other) + (mean - other_mean) ** 2 * jnp.exp(-jnp.asarray(other))
    return 0.5 * (other - log_variance + excess - 1)


def discretised_log_likelihood(
    signals: Signals, mean: Signals, log_variance: Numbers, levels: int
) -> Float[Array, "batch ..."]:
    """Returns log p of each value in nats: the Gaussian's mass between halfway to its neighbours (equation 13).

    The outer bins, of -1 and 1, reach to infinity, so that the levels' masses sum to 1.
    """
    half, scale = 1 / (levels - 1), jnp.exp(-jnp.asarray(log_variance) / 2)
    centred = signals - mean
    # in the lower tail, where the normal distribution's logarithm is accurate
    upper, lower = (half - jnp.abs(centred)) * scale, (-half - jnp.abs(centred)) * scale
    gap = jnp.minimum(log_ndtr(lower) - log_ndtr(upper), -1e-12)  # a bin that rounds to nothing has a small mass
    between = log_ndtr(upper) + jnp.log(-jnp.expm1(gap))
    first, last = log_ndtr((centred + half) * scale), log_ndtr((half - centred) * scale)
    return jnp.where(signals < -1 + half, first, jnp.where(signals > 1 - half, last, between))


def bound_at_steps(
    clean: Signals,
    noisy: Signals,
    predicted: Signals,
    log_variance: Numbers,
    posterior: Posterior,
    steps: Int[Array, " batch"],
    levels: int,
) -> Bits:
    """Returns each signal's term of the bound at its step, in bits per dimension (equations 5 and 13).

    That is KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t)), and at step 0 -log p(x_0 | x_1) of discretised signals.

    Args:
      noisy: signals at the steps.
      predicted: x_0 by the denoiser; `clean` is the true one.
      log_variance: of p.
      posterior: rows of a table of all steps, by `process.at_steps`.
    """
    true, mean = posterior_mean(clean, noisy, posterior), posterior_mean(predicted, noisy, posterior)
    divergence = gaussian_kl(true, posterior.log_variance, mean, log_variance)
    surprise = -discretised_log_likelihood(clean, mean, log_variance, levels)
    first = (steps == 0).reshape(-1, *[1] * (clean.ndim - 1))
    return _bits(jnp.where(first, surprise, divergence))


def prior_term(clean: Signals, alpha_bar: float) -> Bits:
    """Returns L_T, KL(q(x_T | x_0) || N(0, I)) in bits per dimension; `alpha_bar` is the last step's."""
    return _bits(gaussian_kl(math.sqrt(alpha_bar) * clean, math.log1p(-alpha_bar), 0.0, 0.0))


def bound_terms(
    key: Key[Array, ""],
    clean: Signals,
    denoise: Denoise,
    alpha_bars: AlphaBars,
    levels: int,
    variance: Variance = "small",
    clip: float | None = None,
) -> Float[Array, "terms batch"]:
    """Returns the terms of the bound in bits per dimension: L_0, L_1, ..., and L_T, whose sum bounds -log p(x_0).

    Each expectation is estimated from one draw, as one compiled scan over all steps. Parameters are those of
    `samplers.sample_ancestral`, whose likelihood it is.
    """
    table = posteriors(alpha_bars)

    def one_step(_, inputs):
        step, alpha_bar, step_key = inputs
        steps = jnp.full(len(clean), step)
        noisy = diffuse(clean, jax.random.normal(step_key, clean.shape), alpha_bar)
        predicted, noise, *share = denoise(noisy, step)
        predicted, _ = clip_clean(predicted, noise, noisy, alpha_bar, clip)
        posterior = at_steps(table, steps, clean.ndim)
        log_variance = posterior.log_variance if variance == "small" else posterior.log_beta
        if share:
            log_variance = learned_log_variance(share[0], posterior)
        return None, bound_at_steps(clean, noisy, predicted, log_variance, posterior, steps, levels)

    count = len(alpha_bars)
    inputs = jnp.arange(count), jnp.asarray(alpha_bars, jnp.float32), jax.random.split(key, count)
    terms = jax.lax.scan(one_step, None, inputs)[1]
    return jnp.concatenate([terms, prior_term(clean, float(alpha_bars[-1]))[None]])


def _bits(nats: Float[Array, "batch ..."]) -> Bits:
    """Averages nats of all numbers of a signal, in bits."""
    return at_least_float32(nats).mean(axis=tuple(range(1, nats.ndim))) / math.log(2)
