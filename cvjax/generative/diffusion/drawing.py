"""Signals drawn by the sampler that a config names, and the arithmetic that a sample takes.

The samplers: Ho et al., 2020, Song et al., 2021 (`samplers`), and Lu et al., 2022 (`dpm_solver`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax.generative.diffusion import dpm_solver, samplers
from cvjax.generative.diffusion.samplers import AlphaBars, Denoise, Sampler, Signals, Variance, Visited
from cvjax.ops import flops


def draw(
    key: Key[Array, ""],
    start: Signals,
    denoise: Denoise,
    alpha_bars: AlphaBars,
    visited: Visited,
    sampler: Sampler,
    eta: float,
    variance: Variance,
    clip: float | None = None,
) -> tuple[Signals, Float[Array, "drawn batch ..."]]:
    """Returns (signals, what they were after each step) by a sampler, from pure noise.

    Args:
      visited: the steps; "dpm_solver" takes the same number of its own.
      eta: of "ddim".
      variance: of "ddpm".
      clip: limit of predicted values of x_0 on either side of 0.
    """
    if sampler == "ddpm":
        return samplers.sample_ancestral(key, start, denoise, alpha_bars, visited, variance, clip)
    if sampler == "ddim":
        return samplers.sample(key, start, denoise, alpha_bars, visited, eta, clip)
    return dpm_solver.sample(start, denoise, alpha_bars, dpm_solver.solver_steps(alpha_bars, len(visited)), clip)


@functools.lru_cache(maxsize=8)
def sample_gflops(system: Any, shape: tuple[int, int, int]) -> float:
    """Returns the floating-point operations of one sample, of a class if there are classes, in billions.

    They are counted from the traced program as by `cvjax.ops.flops`, each step of the sampler and what decodes codes.

    Args:
      system: has the `init`, `sample` and `sample_inputs` of a recipe; hashable.
      shape: height, width, channels of its images.
    """
    key = jax.random.key(0)
    state = jax.eval_shape(system.init, key, {"image": jax.ShapeDtypeStruct((1, *shape), jnp.float32)})
    inputs = {"label": jnp.zeros(1, int)} if "label" in system.sample_inputs else {}
    program = jax.make_jaxpr(lambda state: system.sample(state, key, {"count": 1, **inputs}))(state)
    return flops.count(program).total() / 1e9
