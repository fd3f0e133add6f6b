"""Diffusion by noise levels: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022.

arXiv:2206.00364. Here noisy signals are x_0 + sigma times noise, without the shrinking of `process`, and a denoiser is
a function of them and their sigma.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from cvjax.generative.diffusion.losses import squared_error
from cvjax.generative.diffusion.samplers import Denoise

Signals = Float[Array, "batch ..."]
Sigmas = Float[Array, " batch"]
Clean = Callable[[Signals, Float[Array, ""]], Signals]  # (x, sigma) -> x_0


class Scalings(NamedTuple):
    """The paper's c_skip, c_out, c_in and c_noise."""

    skip: Float[Array, "..."]
    output: Float[Array, "..."]
    input: Float[Array, "..."]
    noise: Float[Array, "..."]


# --- training -----------------------------------------------------------------------------------------------------


def scalings(sigma: Float[ArrayLike, "..."], data_deviation: float = 0.5) -> Scalings:
    """Returns what keeps the network's inputs and targets at unit variance (table 1, column "Ours")."""
    total = jnp.square(sigma) + data_deviation**2
    return Scalings(
        data_deviation**2 / total,
        sigma * data_deviation / jnp.sqrt(total),
        1 / jnp.sqrt(total),
        jnp.log(sigma) / 4,
    )


def precondition(
    network: Callable[[Signals, Sigmas], Signals], noisy: Signals, sigma: Sigmas, data_deviation: float = 0.5
) -> Float[Array, "batch ..."]:
    """Returns x_0 by a network that gets (c_in x, c_noise): c_skip x + c_out times its output (equation 7)."""
    found = scalings(sigma, data_deviation)
    skip, output, scale = (_broad(values, noisy) for values in (found.skip, found.output, found.input))
    return skip * noisy + output * network(scale * noisy, found.noise)


def training_sigmas(key: Key[Array, ""], count: int, mean: float = -1.2, deviation: float = 1.2) -> Sigmas:
    """Returns noise levels whose logarithms are normal (table 1, "Training")."""
    return jnp.exp(mean + deviation * jax.random.normal(key, (count,)))


def loss_weight(sigma: Float[ArrayLike, "..."], data_deviation: float = 0.5) -> Float[Array, "..."]:
    """Returns the weight 1 / c_out^2 of a squared error of x_0, with which all levels start alike (appendix B.6)."""
    return (jnp.square(sigma) + data_deviation**2) / jnp.square(sigma * data_deviation)


def weighted_error(
    key: Key[Array, ""],
    clean: Signals,
    sigma: Sigmas,
    denoise: Callable[[Signals, Sigmas], Signals],
    data_deviation: float = 0.5,
) -> Float[Array, " batch"]:
    """Returns the weighted mean squared error of each signal at its noise level (equations 2 and 8)."""
    noisy = clean + _broad(sigma, clean) * jax.random.normal(key, clean.shape)
    return loss_weight(sigma, data_deviation) * squared_error(denoise(noisy, sigma), clean)


# --- sampling -----------------------------------------------------------------------------------------------------


def sampling_sigmas(
    count: int, smallest: float = 0.002, largest: float = 80.0, rho: float = 7.0
) -> Float[np.ndarray, " levels"]:
    """Returns count falling noise levels and a last 0: their 1 / rho-th powers are evenly spaced (equation 5)."""
    powers = np.linspace(largest ** (1 / rho), smallest ** (1 / rho), count)
    return np.append(powers**rho, 0.0)


def sample(
    key: Key[Array, ""],
    start: Signals,
    denoise: Clean,
    sigmas: Float[np.ndarray, " levels"],
    second_order: bool = True,
    churn: float = 0.0,
    churned: tuple[float, float] = (0.0, math.inf),
    inflation: float = 1.0,
) -> tuple[Signals, Float[Array, "steps batch ..."]]:
    """Returns (clean signals, the signals after each step) by Heun's method (algorithms 1 and 2).

    Two evaluations per step, except the last one, to sigma 0. Without churn it is deterministic and `key` is unused.

    Args:
      start: signals at the first of the levels: pure noise is `sigmas[0]` times standard normal.
      sigmas: falling to 0, as `sampling_sigmas` has them.
      second_order: False: Euler's method, one evaluation per step; without churn it is DDIM.
      churn: the paper's S_churn: before each step, noise is raised by the factor 1 + churn / number of steps, at most
        sqrt(2), and fresh noise makes up for it.
      churned: least and largest sigma at which that is done, S_tmin and S_tmax.
      inflation: deviation of that fresh noise, S_noise.
    """
    sigmas = np.asarray(sigmas, np.float64)
    steps = len(sigmas) - 1
    inside = (sigmas[:-1] >= churned[0]) & (sigmas[:-1] <= churned[1])
    raised = sigmas[:-1] * (1 + np.where(inside, min(churn / steps, math.sqrt(2) - 1), 0.0))
    fresh = inflation * np.sqrt(np.maximum(raised**2 - sigmas[:-1] ** 2, 0.0))

    def one_step(signals, inputs):
        sigma, after, fresh, step_key = inputs
        if churn:
            signals += fresh * jax.random.normal(step_key, signals.shape)
        slope = (signals - denoise(signals, sigma)) / sigma
        euler = signals + (after - sigma) * slope

        def correct():
            return signals + (after - sigma) * (slope + (euler - denoise(euler, after)) / after) / 2

        found = jax.lax.cond(after > 0, correct, lambda: euler) if second_order else euler
        return found, found

    levels = (jnp.asarray(values, jnp.float32) for values in (raised, sigmas[1:], fresh))
    return jax.lax.scan(one_step, start, (*levels, jax.random.split(key, steps)))


# --- denoisers by steps -------------------------------------------------------------------------------------------


def noise_levels(alpha_bars: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Returns the sigma of each step of a `Process`, whose signals are divided by sqrt(alpha_bar) here (section 2)."""
    alpha_bars = np.asarray(alpha_bars, np.float64)
    return np.sqrt((1 - alpha_bars) / alpha_bars)


def by_noise_level(denoise: Denoise, alpha_bars: Float[np.ndarray, " steps"]) -> Clean:
    """Returns a denoiser by noise level, made of one by steps: the step is the one nearest in log sigma.

    Sampling with `noise_levels(alpha_bars)[visited]` evaluates it exactly where it was trained (appendix C.3).
    """
    logs = jnp.asarray(np.log(noise_levels(alpha_bars)), jnp.float32)

    def clean(noisy: Signals, sigma: Float[Array, ""]) -> Signals:
        step = jnp.abs(logs - jnp.log(sigma)).argmin()
        return denoise(noisy / jnp.sqrt(1 + sigma**2), step)[0]

    return clean


def _broad(values: Sigmas, signals: Signals) -> Float[Array, "batch ..."]:
    """Shapes numbers of signals to broadcast against them."""
    return values.reshape(-1, *[1] * (signals.ndim - 1))
