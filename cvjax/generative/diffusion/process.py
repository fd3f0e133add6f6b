"""The forward process: signals under noise, and the targets that a network may predict.

Noise: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239). Velocity: Salimans & Ho,
Progressive Distillation for Fast Sampling of Diffusion Models, 2022 (arXiv:2202.00512).

Throughout, `clean` is x_0, `noise` standard normal, `noisy` x_t, and `alpha_bar` the share of the signal's variance
that is left at step t, which broadcasts against the signals.
"""

import dataclasses
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from cvjax.generative.diffusion.schedule import Schedule, alpha_bars
from cvjax.signature import Range

Prediction = Literal["noise", "velocity"]
Signals = Float[Array, "batch ..."]
AlphaBar = Float[ArrayLike, "..."]


@dataclasses.dataclass(frozen=True)
class Process:
    """How signals are noised and what the denoiser predicts, `config.recipe.process`.

    Attributes:
      schedule: "linear" or "cosine".
      steps: number of diffusion steps.
      prediction: "noise" or "velocity".
    """

    schedule: Schedule = "linear"
    steps: Annotated[int, Range(2)] = 1000
    prediction: Prediction = "noise"

    @property
    def alpha_bars(self) -> Float[np.ndarray, " steps"]:
        """The share of the signal's variance that is left after each step."""
        return alpha_bars(self.schedule, self.steps).astype(np.float32)


def diffuse(clean: Signals, noise: Signals, alpha_bar: AlphaBar) -> Signals:
    """Returns draws from q(x_t | x_0), all steps up to t at once (Ho et al., equation 4)."""
    return jnp.sqrt(alpha_bar) * clean + jnp.sqrt(1 - alpha_bar) * noise


def target(prediction: Prediction, clean: Signals, noise: Signals, alpha_bar: AlphaBar) -> Signals:
    """Returns the target of the network: the noise, or the derivative of x_t by its angle, arctan(noise / signal)."""
    if prediction == "noise":
        return noise
    return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * clean


def separate(prediction: Prediction, output: Signals, noisy: Signals, alpha_bar: AlphaBar) -> tuple[Signals, Signals]:
    """Returns (x_0, noise) of noisy signals, given the network's output, which is the `prediction` of them."""
    signal, sigma = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    if prediction == "noise":
        return (noisy - sigma * output) / signal, output
    return signal * noisy - sigma * output, sigma * noisy + signal * output
