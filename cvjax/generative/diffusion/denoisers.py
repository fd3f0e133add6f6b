"""Denoisers by a network, as samplers and figures call them, with classifier-free guidance.

Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239). Guidance: Ho & Salimans,
Classifier-Free Diffusion Guidance, 2022 (arXiv:2207.12598). Learned variance: Nichol & Dhariwal, Improved Denoising
Diffusion Probabilistic Models, 2021 (arXiv:2102.09672).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cvjax.errors import UserError
from cvjax.generative.diffusion.bound import bound_at_steps, prior_term
from cvjax.generative.diffusion.conditioning import guide
from cvjax.generative.diffusion.process import (
    Process,
    at_steps,
    clip_clean,
    diffuse,
    learned_log_variance,
    posteriors,
    separate,
)
from cvjax.generative.diffusion.samplers import AlphaBars, Denoise, Variance

Signals = Float[Array, "batch ..."]
Labels = Int[Array, " batch"]
Guidance = Float[Array, "batch ..."] | None  # weights of the signals, to broadcast; None: that of the sampler
Predict = Callable[[Signals, Int[Array, " batch"], Labels | None], Float[Array, "batch ..."]]  # a network

LEVELS = 10  # of noise, at which a denoiser is evaluated


def make_denoiser(
    predict: Predict,
    process: Process,
    labels: Labels | None = None,
    none: int | None = None,
    guidance: float | Float[Array, "..."] = 0.0,
) -> Denoise:
    """Returns the function (x_t, t) -> (x_0, noise) by a network, guided towards the labels; t may be one per signal.

    If the network gives twice the channels, their second half is 2 v - 1 for v of a learned variance, a third output.

    Args:
      predict: the network, (x_t, steps, labels) -> the `process.prediction` of it.
      labels: classes; None: the network takes no labels.
      none: the label that stands for no class.
      guidance: weight of `conditioning.guide`, or weights that broadcast against the signals; with the number 0, the
        network is evaluated once and not twice.
    """
    levels = process.alpha_bars

    def denoise(noisy: Signals, step: Int[Array, "..."]) -> tuple[Signals, ...]:
        steps = jnp.broadcast_to(step, (len(noisy),))
        if labels is None or (isinstance(guidance, float) and guidance == 0):
            outputs = predict(noisy, steps, labels), None
        else:
            twice = [jnp.concatenate([x, x]) for x in (noisy, steps)]
            outputs = jnp.split(predict(*twice, jnp.concatenate([labels, jnp.full_like(labels, none)])), 2)
        output, *share = split_variance(outputs[0], noisy.shape[-1])
        if outputs[1] is not None:
            output = guide(output, split_variance(outputs[1], noisy.shape[-1])[0], guidance)
        return *separate(process.prediction, output, noisy, at_steps(levels, steps, noisy.ndim)), *share

    return denoise


def clip(denoise: Denoise, process: Process, limit: float | None) -> Denoise:
    """Returns a denoiser whose x_0 is clipped to [-limit, limit], and whose noise is what then remains; None: as is."""

    def clipped(noisy: Signals, step: Int[Array, ""]) -> tuple[Signals, Signals]:
        return clip_clean(*denoise(noisy, step)[:2], noisy, jnp.asarray(process.alpha_bars)[step], limit)

    return clipped


def split_variance(output: Float[Array, "batch ..."], channels: int) -> tuple[Float[Array, "batch ..."], ...]:
    """Returns (prediction, v of a learned variance) in a network's output of twice the channels, else (prediction,)."""
    return (output,) if output.shape[-1] == channels else (output[..., :channels], (output[..., channels:] + 1) / 2)


def read_guidance(inputs: Mapping[str, Any], rank: int) -> Guidance:
    """Returns the weights `guidance` among inputs, to broadcast against signals of that rank, or None."""
    if "guidance" not in inputs:
        return None
    return jnp.asarray(inputs["guidance"], jnp.float32).reshape(-1, *[1] * (rank - 1))


def check_guidance(guidance: float, classes: object) -> None:
    """Raises a UserError if there is guidance but no class to guide towards."""
    if guidance and classes is None:
        raise UserError(
            f"config.recipe.sampling.guidance={guidance}: without classes there is nothing to guide towards; "
            "set config.recipe.classes, or guidance=0."
        )


# --- figures ------------------------------------------------------------------------------------------------------


def evaluated_steps(steps: int) -> Int[np.ndarray, " levels"]:
    """Returns the steps in the middle of ten equal parts of a diffusion."""
    return (np.arange(LEVELS) * 2 + 1) * steps // (2 * LEVELS)


def denoising_error(key: Key[Array, ""], clean: Signals, denoise: Denoise, process: Process) -> Float[Array, " batch"]:
    """Returns the mean squared error of the predicted noise of each signal, over ten levels of noise."""

    def error(inputs):
        step, level_key = inputs
        noise = jax.random.normal(level_key, clean.shape)
        noisy = diffuse(clean, noise, jnp.asarray(process.alpha_bars)[step])
        return jnp.square(denoise(noisy, step)[1] - noise).mean(axis=tuple(range(1, clean.ndim)))

    return jax.lax.map(error, (jnp.asarray(evaluated_steps(process.steps)), jax.random.split(key, LEVELS))).mean(axis=0)


def sampled_bound(
    key: Key[Array, ""],
    clean: Signals,
    denoise: Denoise,
    alpha_bars: AlphaBars,
    levels: int,
    count: int,
    variance: Variance = "small",
    clip: float | None = None,
) -> Float[Array, " batch"]:
    """Returns an unbiased estimate of the variational bound of each signal, in bits per dimension, from a few steps.

    L_0 and L_T are evaluated. Of the other terms, each signal has one from each of `count` equal parts of the
    diffusion, at a step of its own; with all steps it is the sum of `bound.bound_terms`, which has the other arguments.
    """
    table, others = posteriors(alpha_bars), len(alpha_bars) - 1
    count = min(count, others)

    def one_part(_, inputs):
        index, weight, part_key = inputs
        step_key, noise_key = jax.random.split(part_key)
        places = (index + jax.random.uniform(step_key, (len(clean),))) / count
        steps = jnp.where(index < 0, 0, 1 + jnp.minimum(jnp.floor(places * others), others - 1).astype(int))
        alpha_bar, posterior = (at_steps(values, steps, clean.ndim) for values in (alpha_bars, table))
        noisy = diffuse(clean, jax.random.normal(noise_key, clean.shape), alpha_bar)
        predicted, noise, *share = denoise(noisy, steps)
        predicted, _ = clip_clean(predicted, noise, noisy, alpha_bar, clip)
        log_variance = posterior.log_variance if variance == "small" else posterior.log_beta
        if share:
            log_variance = learned_log_variance(share[0], posterior)
        return None, weight * bound_at_steps(clean, noisy, predicted, log_variance, posterior, steps, levels)

    weights = np.append(1.0, np.full(count, others / count)).astype(np.float32)
    inputs = jnp.arange(-1, count), jnp.asarray(weights), jax.random.split(key, count + 1)
    terms = jax.lax.scan(one_part, None, inputs)[1]
    return terms.sum(axis=0) + prior_term(clean, float(alpha_bars[-1]))
