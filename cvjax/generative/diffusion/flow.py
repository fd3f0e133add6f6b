"""Flow matching along straight paths, from noise at time 0 to signals at time 1.

Lipman et al., Flow Matching for Generative Modeling, 2023 (arXiv:2210.02747). Liu, Gong & Liu, Flow Straight and Fast:
Learning to Generate and Transfer Data with Rectified Flow, 2023 (arXiv:2209.03003).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from cvjax.generative.diffusion.losses import squared_error

Signals = Float[Array, "batch ..."]
Times = Float[Array, " batch"]
Velocity = Callable[[Signals, Float[Array, ""]], Signals]  # (x_t, t) -> dx / dt


def between(clean: Signals, noise: Signals, time: Float[ArrayLike, "..."], smallest: float = 0.0) -> Signals:
    """Returns the signals at times on straight lines from the noise (Lipman et al., equation 22; Liu et al., 1).

    The times broadcast against the signals; `smallest` is the deviation of the noise that is left at time 1.
    """
    return time * clean + (1 - (1 - smallest) * time) * noise


def velocity_error(
    key: Key[Array, ""],
    clean: Signals,
    velocity: Callable[[Signals, Times], Signals],
    smallest: float = 0.0,
) -> Float[Array, " batch"]:
    """Returns the mean squared error of each signal's velocity at a uniform time (Lipman et al., equation 23)."""
    time_key, noise_key = jax.random.split(key)
    times, noise = jax.random.uniform(time_key, (len(clean),)), jax.random.normal(noise_key, clean.shape)
    noisy = between(clean, noise, times.reshape(-1, *[1] * (clean.ndim - 1)), smallest)
    return squared_error(velocity(noisy, times), clean - (1 - smallest) * noise)


def sample(
    start: Signals, velocity: Velocity, steps: int, second_order: bool = False
) -> tuple[Signals, Float[Array, "steps batch ..."]]:
    """Returns (signals at time 1, the signals after each step) of noise that flows along the velocity.

    By Euler's method, one evaluation per step, or if `second_order` by Heun's, two evaluations.
    """
    times = np.linspace(0, 1, steps + 1)

    def one_step(signals, times):
        time, after = times
        slope = velocity(signals, time)
        found = signals + (after - time) * slope
        if second_order:
            found = signals + (after - time) * (slope + velocity(found, after)) / 2
        return found, found

    return jax.lax.scan(one_step, start, (jnp.asarray(times[:-1], jnp.float32), jnp.asarray(times[1:], jnp.float32)))
