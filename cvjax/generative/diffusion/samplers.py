"""Samplers: from noise to a signal, as one compiled scan.

DDIM: Song, Meng & Ermon, Denoising Diffusion Implicit Models, 2021 (arXiv:2010.02502). With eta = 1 and all steps it is
the ancestral sampler of Ho, Jain & Abbeel, 2020 (arXiv:2006.11239).
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cvjax.signature import Count, Range, Share

Signals = Float[Array, "batch ..."]
Denoise = Callable[[Signals, Int[Array, ""]], tuple[Signals, Signals]]  # (x_t, t) -> (x_0, noise)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How samples are drawn, `config.recipe.sampling`.

    Attributes:
      steps: how many of the diffusion's steps are visited.
      eta: 0: DDIM, which is deterministic given its start; 1: as much fresh noise as the ancestral sampler.
      guidance: weight of classifier-free guidance, as in `conditioning.guide`; 0: none.
    """

    steps: Count = 100
    eta: Share = 1.0
    guidance: Annotated[float, Range(0)] = 0.0


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
    alpha_bars: Float[np.ndarray, " steps"],
    visited: Int[np.ndarray, " visited"],
    eta: float,
) -> tuple[Signals, Float[Array, "visited batch ..."]]:
    """Returns (clean signals, the signals after each step) of signals that are denoised step by step.

    `start` is as noisy as the first of the `visited` steps, which fall; `denoise`: (x_t, t) -> predicted (x_0, noise).
    """
    levels = alpha_bars[visited]

    def one_step(noisy, inputs):
        step, alpha_bar, previous, step_key = inputs
        after = ddim_step(step_key, *denoise(noisy, step), alpha_bar, previous, eta)
        return after, after

    inputs = jnp.asarray(visited), jnp.asarray(levels), jnp.asarray(np.append(levels[1:], np.float32(1)))
    return jax.lax.scan(one_step, start, (*inputs, jax.random.split(key, len(visited))))
