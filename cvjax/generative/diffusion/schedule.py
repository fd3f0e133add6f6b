"""Noise schedules: how much of the signal each step of a diffusion leaves.

Linear: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239). Cosine: Nichol & Dhariwal,
Improved Denoising Diffusion Probabilistic Models, 2021 (arXiv:2102.09672). Scaled linear: Rombach et al.,
High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752). Log-linear: Kingma et al.,
Variational Diffusion Models, 2021 (arXiv:2107.00630). They are in float64, on the host.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from cvjax.errors import UserError, number_of

Schedule = Literal["linear", "cosine", "scaled_linear", "log_linear"]

LOG_SNR = (13.3, -5.0)  # Kingma et al., for 256 levels: its first value is far below the step between two levels
MAX_BETA = 0.999  # Nichol & Dhariwal, section 3.2: no step removes the signal altogether


def betas(schedule: Schedule, steps: int, log_snr: tuple[float, float] = LOG_SNR) -> Float[np.ndarray, " steps"]:
    """Returns the variance of the noise that each step adds, rising.

    The linear schedule goes from 1e-4 to 0.02 in 1,000 steps; with fewer or more steps it is scaled by 1000 / steps, so
    that the last step leaves the same share. The cosine is equation 17 of Nichol & Dhariwal. The scaled linear
    schedule, of Rombach et al.'s code, has square roots that rise linearly, to betas from 0.00085 to 0.012 as in Stable
    Diffusion, where the models of CelebA-HQ have 0.0015 to 0.0195; it is scaled as well. In the log-linear schedule,
    the logarithm of the signal's variance over the noise's falls by the same amount in each step, from the first to the
    second number of `log_snr`; only there are these read. Errors of the predicted noise then count the same at all
    steps of the likelihood's bound.
    """
    if schedule == "linear":
        values = np.linspace(1e-4, 0.02, steps) * (1000 / steps)
    elif schedule == "scaled_linear":
        values = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), steps) ** 2 * (1000 / steps)
    elif schedule == "log_linear":
        left = np.append(1.0, expit(np.linspace(*log_snr, steps)))
        values = 1 - left[1:] / left[:-1]
    else:
        angles = (np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2
        values = 1 - (np.cos(angles[1:]) / np.cos(angles[:-1])) ** 2
    return np.minimum(values, MAX_BETA)


def alpha_bars(schedule: Schedule, steps: int, log_snr: tuple[float, float] = LOG_SNR) -> Float[np.ndarray, " steps"]:
    """Returns the share of the signal's variance that is left after each step: the cumulative products of 1 - beta."""
    return np.cumprod(1 - betas(schedule, steps, log_snr))


def sampling_steps(steps: int, count: int) -> Int[np.ndarray, " count"]:
    """Returns the steps that a short sampler visits: evenly spaced, falling, the last one 0; UserError for too many."""
    if count > steps:
        raise UserError(f"config.recipe.sampling.steps={count}: the diffusion has only {number_of(steps, 'step')}.")
    return (np.arange(count) * steps // count)[::-1]


def last_share(visited: Int[np.ndarray, " visited"], share: float) -> Int[np.ndarray, " last"]:
    """Returns the last `share` of the steps that a sampler visits, rounded to whole steps: none for 0, all for 1."""
    return visited[len(visited) - round(share * len(visited)) :]
