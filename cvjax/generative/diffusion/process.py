"""The forward process: signals under noise, its posterior, and the targets that a network may predict.

Noise: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239). Velocity: Salimans & Ho,
Progressive Distillation for Fast Sampling of Diffusion Models, 2022 (arXiv:2202.00512). Learned variance: Nichol &
Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021 (arXiv:2102.09672).

Throughout, `clean` is x_0, `noise` standard normal, `noisy` x_t, and `alpha_bar` the share of the signal's variance
that is left at step t, which broadcasts against the signals. `previous` is that share at an earlier step; it is 1
before the first, where the signal is clean.
"""

import dataclasses
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from cvjax.errors import UserError
from cvjax.generative.diffusion.schedule import LOG_SNR, Schedule, alpha_bars
from cvjax.signature import Range

Prediction = Literal["noise", "velocity", "clean"]
Signals = Float[Array, "batch ..."]
AlphaBar = Float[ArrayLike, "..."]


@dataclasses.dataclass(frozen=True)
class Process:
    """How signals are noised and what the denoiser predicts, `config.recipe.process`.

    Attributes:
      schedule: "linear", "cosine", "scaled_linear" or "log_linear".
      steps: number of diffusion steps.
      prediction: "noise", "velocity" or "clean".
      log_snr: of "log_linear", the log of the signal's variance over the noise's after the first and the last step.
    """

    schedule: Schedule = "linear"
    steps: Annotated[int, Range(2)] = 1000
    prediction: Prediction = "noise"
    log_snr: tuple[float, float] = LOG_SNR

    def __post_init__(self):
        """Raises a UserError unless `log_snr` is two finite numbers by which the signal fades."""
        if len(self.log_snr) != 2 or not (np.isfinite(self.log_snr).all() and self.log_snr[0] > self.log_snr[1]):
            raise UserError(
                f"config.recipe.process.log_snr={tuple(self.log_snr)}: expected two finite numbers; the signal fades, "
                f"so the first, of the first step, is larger than the last, such as {LOG_SNR}."
            )

    @property
    def shares(self) -> Float[np.ndarray, " steps"]:
        """The share of the signal's variance that is left after each step, in float64."""
        return alpha_bars(self.schedule, self.steps, self.log_snr)

    @property
    def alpha_bars(self) -> Float[np.ndarray, " steps"]:
        """The same in float32."""
        return self.shares.astype(np.float32)


class Posterior(NamedTuple):
    """Gaussians q(x_s | x_t, x_0) of earlier steps s: numbers per step t, or those of one step.

    Attributes:
      clean: weight of x_0 in the mean.
      noisy: weight of x_t in the mean.
      log_variance: log of the variance, beta tilde. Where that is 0, since s is clean, it is the least of the others.
      log_beta: log of the variance of the noise from s to t.
    """

    clean: Float[ArrayLike, "..."]
    noisy: Float[ArrayLike, "..."]
    log_variance: Float[ArrayLike, "..."]
    log_beta: Float[ArrayLike, "..."]


# --- the forward process and its posterior ------------------------------------------------------------------------


def diffuse(clean: Signals, noise: Signals, alpha_bar: AlphaBar) -> Signals:
    """Returns draws from q(x_t | x_0), all steps up to t at once (Ho et al., equation 4)."""
    return jnp.sqrt(alpha_bar) * clean + jnp.sqrt(1 - alpha_bar) * noise


def posteriors(
    alpha_bars: Float[np.ndarray, " steps"], previous: Float[np.ndarray, " steps"] | None = None
) -> Posterior:
    """Returns q(x_s | x_t, x_0) for each step t (Ho et al., equations 6 and 7), computed in float64 on the host.

    Args:
      alpha_bars: of the steps t; in float64 as `schedule.alpha_bars` has them, since 1 - alpha_bar / previous cancels.
      previous: of the steps s; by default each step's predecessor, the steps rising from the first.
    """
    now = np.asarray(alpha_bars, np.float64)
    before = np.append(1.0, now[:-1]) if previous is None else np.asarray(previous, np.float64)
    beta = 1 - now / before
    variance = beta * (1 - before) / (1 - now)
    least = variance[variance > 0].min() if (variance > 0).any() else beta.min()
    return Posterior(
        np.sqrt(before) * beta / (1 - now),
        np.sqrt(now / before) * (1 - before) / (1 - now),
        np.log(np.where(variance > 0, variance, least)),
        np.log(beta),
    )


def posterior_mean(clean: Signals, noisy: Signals, posterior: Posterior) -> Signals:
    """Returns the mean of q(x_s | x_t, x_0) (Ho et al., equation 7)."""
    return posterior.clean * clean + posterior.noisy * noisy


def learned_log_variance(share: Float[Array, "..."], posterior: Posterior) -> Float[Array, "..."]:
    """Returns the log-variance that is `share` of the way from beta tilde to beta (Nichol & Dhariwal, equation 15).

    The share is the paper's v, which a network may put outside of [0, 1]; networks of the authors' code give 2 v - 1.
    """
    return share * posterior.log_beta + (1 - share) * posterior.log_variance


def at_steps(
    table: Posterior | Float[np.ndarray, " steps"], steps: Int[Array, " batch"], dimensions: int
) -> Posterior | Float[Array, "batch ..."]:
    """Returns rows of a table in float32, shaped to broadcast against signals with that number of dimensions."""
    shape = (-1, *[1] * (dimensions - 1))
    return jax.tree.map(lambda values: jnp.asarray(values, jnp.float32)[steps].reshape(shape), table)


# --- predictions --------------------------------------------------------------------------------------------------


def target(prediction: Prediction, clean: Signals, noise: Signals, alpha_bar: AlphaBar) -> Signals:
    """Returns the network's target: x_0, the noise, or the derivative of x_t by its angle, arctan(noise / signal)."""
    if prediction == "noise":
        return noise
    if prediction == "clean":
        return clean
    return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * clean


def separate(prediction: Prediction, output: Signals, noisy: Signals, alpha_bar: AlphaBar) -> tuple[Signals, Signals]:
    """Returns (x_0, noise) of noisy signals, given the network's output, which is the `prediction` of them."""
    signal, sigma = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    if prediction == "noise":
        return (noisy - sigma * output) / signal, output
    if prediction == "clean":
        return output, (noisy - signal * output) / sigma
    return signal * noisy - sigma * output, sigma * noisy + signal * output


def convert(
    given: Prediction, wanted: Prediction, output: Signals, noisy: Signals, alpha_bar: AlphaBar
) -> Float[Array, "batch ..."]:
    """Returns a network's output as another prediction (Salimans & Ho, section 4 and appendix D)."""
    return target(wanted, *separate(given, output, noisy, alpha_bar), alpha_bar)


def clip_clean(
    clean: Signals, noise: Signals, noisy: Signals, alpha_bar: AlphaBar, limit: float | None
) -> tuple[Signals, Signals]:
    """Returns (x_0, noise), x_0 clipped to [-limit, limit] and the noise what is then left of x_t; None: as given."""
    if limit is None:
        return clean, noise
    return separate("clean", jnp.clip(clean, -limit, limit), noisy, alpha_bar)
