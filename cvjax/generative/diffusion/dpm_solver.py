"""DPM-Solver++(2M): Lu et al., DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022.

arXiv:2211.01095. The ODE of DDIM in the half log-ratio of signal and noise, lambda = log(alpha / sigma), where its
linear part is solved exactly. Of first order it is DDIM with eta = 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cvjax.generative.diffusion.process import clip_clean
from cvjax.generative.diffusion.samplers import AlphaBars, Chain, Denoise, Signals, Visited, previous_alpha_bars


def solver_steps(alpha_bars: AlphaBars, count: int) -> Visited:
    """Returns falling steps from the last to the first, evenly spaced in lambda (DPM-Solver, 2022, arXiv:2206.00927).

    Those that coincide, near the first, are visited once. Steps that are evenly spaced in t, as DDIM's are, are far
    apart in lambda at the end: extrapolation goes too far there, and a few of them are worse than DDIM's.
    """
    alpha_bars = np.asarray(alpha_bars, np.float64)
    ratios = np.log(alpha_bars / (1 - alpha_bars))
    wanted = np.linspace(ratios[-1], ratios[0], count)
    return np.unique(np.abs(wanted[:, None] - ratios).argmin(axis=1))[::-1]


def multistep_weights(alpha_bars: AlphaBars, visited: Visited) -> Float[np.ndarray, "visited 3"]:
    """Returns the weights of x_t and of the data prediction D in each step, and how far D is extrapolated, in float64.

    Algorithm 2: x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D, with h = lambda_s - lambda_t, and D is x_0(t) +
    (x_0(t) - x_0(before t)) / (2 r), with r the ratio of the last h to this one. The first step has nothing before it
    and the last one, to clean signals, an infinite h: both are of first order.
    """
    now = np.asarray(alpha_bars, np.float64)[visited]
    after = previous_alpha_bars(np.asarray(alpha_bars, np.float64), visited)
    lengths = np.diff(np.log(now / (1 - now)) / 2)  # of all steps but the last
    noisy = np.sqrt((1 - after) / (1 - now))
    clean = np.sqrt(after) - np.sqrt(now) * noisy  # alpha_s (1 - exp(-h))
    extrapolated = np.zeros(len(now))
    extrapolated[1:-1] = lengths[1:] / lengths[:-1] / 2
    return np.stack([noisy, clean, extrapolated], axis=1)


def sample(
    start: Signals, denoise: Denoise, alpha_bars: AlphaBars, visited: Visited, clip: float | None = None
) -> tuple[Signals, Chain]:
    """Returns (clean signals, the signals after each step), one evaluation per step (algorithm 2).

    Args:
      start: signals that are as noisy as the first of the `visited` steps, which fall.
      clip: limit of predicted values of x_0 on either side of 0.
    """

    def one_step(held, inputs):
        noisy, before = held
        step, alpha_bar, weights = inputs
        clean, _ = clip_clean(*denoise(noisy, step)[:2], noisy, alpha_bar, clip)
        after = weights[0] * noisy + weights[1] * (clean + weights[2] * (clean - before))
        return (after, clean), after

    levels = jnp.asarray(alpha_bars[visited], jnp.float32)
    weights = jnp.asarray(multistep_weights(alpha_bars, visited), jnp.float32)
    (clean, _), chain = jax.lax.scan(one_step, (start, jnp.zeros_like(start)), (jnp.asarray(visited), levels, weights))
    return clean, chain
