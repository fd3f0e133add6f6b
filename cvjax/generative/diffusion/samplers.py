"""Samplers: from noise to a signal, each as one compiled scan.

DDIM: Song, Meng & Ermon, Denoising Diffusion Implicit Models, 2021 (arXiv:2010.02502). With eta = 1 and all steps it is
the ancestral sampler of Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239), which
also draws with a larger or a learned variance. Inversion: Pan et al., Effective Real Image Editing with Accelerated
Iterative Diffusion Inversion, 2023 (arXiv:2309.04907). `dpm_solver`, `edm` and `flow` have others.

A sampler takes the shares `alpha_bars` of all steps, the `visited` steps, which fall and are any subset, and `start`,
signals that are as noisy as the first of them. The step after the last visited one is clean.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cvjax.generative.diffusion.process import clip_clean, learned_log_variance, posterior_mean, posteriors
from cvjax.signature import Count, Range, Share

Signals = Float[Array, "batch ..."]
Chain = Float[Array, "visited batch ..."]
AlphaBars = Float[np.ndarray, " steps"]
Visited = Int[np.ndarray, " visited"]
# (x_t, t) -> (x_0, noise); where the variance is learned, the share of `learned_log_variance` is a third
Denoise = Callable[[Signals, Int[Array, ""]], tuple[Signals, ...]]
Variance = Literal["small", "large"]
Sampler = Literal["ddpm", "ddim", "dpm_solver"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How samples are drawn, `config.recipe.sampling`.

    Attributes:
      steps: how many of the diffusion's steps are visited.
      eta: of "ddim"; 0: it is deterministic given its start; 1: as much fresh noise as the ancestral sampler.
      guidance: weight of classifier-free guidance, as in `conditioning.guide`; 0: none.
      sampler: "ddim"; "ddpm", the ancestral one; or "dpm_solver", DPM-Solver++(2M).
      variance: of a step of "ddpm": "large" is beta, "small" beta tilde.
    """

    steps: Count = 100
    eta: Share = 1.0
    guidance: Annotated[float, Range(0)] = 0.0
    sampler: Sampler = "ddim"
    variance: Variance = "small"


def previous_alpha_bars(alpha_bars: AlphaBars, visited: Visited) -> Float[np.ndarray, " visited"]:
    """Returns the signal's share of the variance after each step of a sampler: that of the next one, at last 1."""
    return np.append(alpha_bars[visited[1:]], np.ones(1, alpha_bars.dtype))


def ddim_step(
    key: Key[Array, ""],
    clean: Signals,
    noise: Signals,
    alpha_bar: Float[Array, ""],
    previous: Float[Array, ""],
    eta: float,
) -> Signals:
    """Returns the signals at an earlier step, from predicted x_0 and noise (Song et al., equations 12 and 16).

    `alpha_bar` and `previous` are the signal's share of the variance now and at that step; 1 before the first.
    """
    variance = eta**2 * (1 - previous) / (1 - alpha_bar) * (1 - alpha_bar / previous)
    towards = jnp.sqrt(jnp.maximum(1 - previous - variance, 0.0))
    fresh = jax.random.normal(key, clean.shape)
    return jnp.sqrt(previous) * clean + towards * noise + jnp.sqrt(variance) * fresh


def sample(
    key: Key[Array, ""],
    start: Signals,
    denoise: Denoise,
    alpha_bars: AlphaBars,
    visited: Visited,
    eta: float,
    clip: float | None = None,
) -> tuple[Signals, Chain]:
    """Returns (clean signals, the signals after each step) of signals that DDIM denoises step by step.

    Args:
      clip: limit of predicted values of x_0 on either side of 0; the noise is then what they leave of x_t.
    """

    def one_step(noisy, inputs):
        step, alpha_bar, previous, step_key = inputs
        clean, noise = clip_clean(*denoise(noisy, step)[:2], noisy, alpha_bar, clip)
        after = ddim_step(step_key, clean, noise, alpha_bar, previous, eta)
        return after, after

    levels = jnp.asarray(alpha_bars[visited], jnp.float32)
    previous = jnp.asarray(previous_alpha_bars(alpha_bars, visited), jnp.float32)
    inputs = jnp.asarray(visited), levels, previous, jax.random.split(key, len(visited))
    return jax.lax.scan(one_step, start, inputs)


def sample_ancestral(
    key: Key[Array, ""],
    start: Signals,
    denoise: Denoise,
    alpha_bars: AlphaBars,
    visited: Visited,
    variance: Variance = "small",
    clip: float | None = None,
) -> tuple[Signals, Chain]:
    """Returns (clean signals, the signals after each step) of ancestral sampling (Ho et al., algorithm 2).

    The last step adds no noise. Fewer steps than all are a coarser diffusion of its own (Nichol & Dhariwal, equation
    19).

    Args:
      variance: of a step if the denoiser does not give it: beta tilde or beta, "small" and "large".
      clip: limit of predicted values of x_0 on either side of 0.
    """
    previous = previous_alpha_bars(alpha_bars, visited)

    def one_step(noisy, inputs):
        step, posterior, last, step_key = inputs
        clean, _, *share = denoise(noisy, step)
        mean = posterior_mean(clean if clip is None else jnp.clip(clean, -clip, clip), noisy, posterior)
        log_variance = posterior.log_variance if variance == "small" else posterior.log_beta
        if share:
            log_variance = learned_log_variance(share[0], posterior)
        fresh = jnp.exp(log_variance / 2) * jax.random.normal(step_key, noisy.shape)
        after = jnp.where(last, mean, mean + fresh)
        return after, after

    table = jax.tree.map(lambda values: jnp.asarray(values, jnp.float32), posteriors(alpha_bars[visited], previous))
    inputs = jnp.asarray(visited), table, jnp.asarray(previous == 1), jax.random.split(key, len(visited))
    return jax.lax.scan(one_step, start, inputs)


def invert(
    clean: Signals, denoise: Denoise, alpha_bars: AlphaBars, visited: Visited, iterations: int = 1
) -> tuple[Signals, Chain]:
    """Returns (the start from which DDIM with eta = 0 comes to these signals, the signals before each of its steps).

    A step down, x_s = a x_t + b noise(x_t), is undone by iterating x_t <- (x_s - b noise(x_t)) / a from x_t = x_s (Pan
    et al.). One iteration is the ODE of Song et al., equation 14, integrated upwards by Euler's method:
    its error falls with the length of the steps. More converge to the exact inverse, up to rounding, where a step is
    short enough for the iteration to contract.

    Args:
      iterations: evaluations of the denoiser for each step.
    """
    now = np.asarray(alpha_bars, np.float64)[visited]
    before = previous_alpha_bars(np.asarray(alpha_bars, np.float64), visited)
    ratio = np.sqrt(now / before)
    noise_weight = np.sqrt(1 - now) - ratio * np.sqrt(1 - before)

    def one_step(signals, inputs):
        step, ratio, noise_weight = inputs

        def iterate(_, guess):
            return ratio * signals + noise_weight * denoise(guess, step)[1]

        found = jax.lax.fori_loop(0, iterations, iterate, signals)
        return found, found

    weights = (jnp.asarray(values, jnp.float32) for values in (ratio, noise_weight))
    start, chain = jax.lax.scan(one_step, clean, (jnp.asarray(visited), *weights), reverse=True)
    return start, chain
