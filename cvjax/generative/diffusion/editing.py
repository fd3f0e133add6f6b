"""What a denoiser does to given signals, with no training of its own: edit, fill in, interpolate, restore.

Editing: Meng et al., SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, 2022
(arXiv:2108.01073). Filling in: Lugmayr et al., RePaint: Inpainting Using Denoising Diffusion Probabilistic Models, 2022
(arXiv:2201.09865). Interpolation: Song, Meng & Ermon, Denoising Diffusion Implicit Models, 2021 (arXiv:2010.02502).
Noise level: Donoho & Johnstone, Ideal Spatial Adaptation by Wavelet Shrinkage, 1994.

`denoise`, `alpha_bars`, `visited` and `eta` are those of `samplers.sample`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from cvjax.generative.diffusion.process import diffuse
from cvjax.generative.diffusion.samplers import (
    AlphaBars,
    Denoise,
    Signals,
    Visited,
    ddim_step,
    invert,
    previous_alpha_bars,
    sample,
)
from cvjax.generative.diffusion.schedule import last_share

# --- editing and filling in ---------------------------------------------------------------------------------------


def edit(
    key: Key[Array, ""],
    clean: Signals,
    noise: Signals,
    denoise: Denoise,
    alpha_bars: AlphaBars,
    visited: Visited,
    eta: float,
    strength: float,
) -> Signals:
    """Returns signals noised by a share of the sampler's steps, then denoised (Meng et al., algorithm 1)."""
    visited = last_share(visited, strength)
    if not len(visited):
        return clean
    noisy = diffuse(clean, noise, alpha_bars[visited[0]].astype(np.float32))
    return sample(key, noisy, denoise, alpha_bars, visited, eta)[0]


def inpaint(
    key: Key[Array, ""],
    known: Signals,
    mask: Float[Array, "..."] | Bool[Array, "..."],
    denoise: Denoise,
    alpha_bars: AlphaBars,
    visited: Visited,
    eta: float = 1.0,
    repeats: int = 10,
) -> Signals:
    """Returns signals that are exactly the known ones where the mask is 0, filled in where it is 1 (algorithm 1).

    After each step the known part is replaced by the known signals, as noisy as they would be by then. The step is
    repeated on what it gave, noised up again, so that the two parts come to fit each other; once is plain replacement.

    Args:
      known: signals in the denoiser's range; anything where the mask is 1.
      mask: broadcasts against the signals.
      repeats: evaluations per step, the paper's U, with jumps of length 1.
    """
    filled = jnp.asarray(mask) > 0.5
    start_key, steps_key = jax.random.split(key)

    def one_step(noisy, inputs):
        step, alpha_bar, previous, step_key = inputs

        def once(index, held):
            known_key, draw_key, up_key = jax.random.split(jax.random.fold_in(step_key, index), 3)
            drawn = ddim_step(draw_key, *denoise(held[0], step)[:2], alpha_bar, previous, eta)
            seen = diffuse(known, jax.random.normal(known_key, known.shape), previous)
            after = jnp.where(filled, drawn, seen)
            up = diffuse(after, jax.random.normal(up_key, known.shape), alpha_bar / previous)
            return up, after

        return jax.lax.fori_loop(0, repeats, once, (noisy, noisy))[1], None

    levels = jnp.asarray(alpha_bars[visited], jnp.float32)
    previous = jnp.asarray(previous_alpha_bars(alpha_bars, visited), jnp.float32)
    start = jax.random.normal(start_key, known.shape)
    inputs = jnp.asarray(visited), levels, previous, jax.random.split(steps_key, len(visited))
    found = jax.lax.scan(one_step, start, inputs)[0]
    return jnp.where(filled, found, known)


# --- interpolation ------------------------------------------------------------------------------------------------


def slerp(first: Signals, second: Signals, share: float | Float[Array, ""]) -> Float[Array, "batch ..."]:
    """Returns the signals at a share of the great circle from the first to the second (Song et al., equation 67).

    Between noises, that keeps the length that a straight line would shorten. Parallel signals are taken along the line.
    """
    axes = tuple(range(1, first.ndim))
    lengths = [jnp.sqrt(jnp.square(x).sum(axis=axes, keepdims=True)) for x in (first, second)]
    cosine = (first * second).sum(axis=axes, keepdims=True) / jnp.maximum(lengths[0] * lengths[1], 1e-20)
    parallel = 1 - jnp.abs(cosine) < 1e-6  # as precisely as float32 has it
    angle = jnp.arccos(jnp.where(parallel, 0.0, cosine))
    shares = 1 - jnp.asarray(share), jnp.asarray(share)
    weights = [jnp.where(parallel, part, jnp.sin(part * angle) / jnp.sin(angle)) for part in shares]
    return weights[0] * first + weights[1] * second


def interpolate(
    first: Signals,
    second: Signals,
    shares: Float[Array, " shares"],
    denoise: Denoise,
    alpha_bars: AlphaBars,
    visited: Visited,
    iterations: int = 3,
) -> Float[Array, "shares batch ..."]:
    """Returns signals between two batches: both are inverted, their noises mixed and sampled (section 5.3).

    Args:
      iterations: of `samplers.invert`.
    """
    noises, _ = invert(jnp.concatenate([first, second]), denoise, alpha_bars, visited, iterations)
    mixed = jax.vmap(slerp, (None, None, 0))(*jnp.split(noises, 2), shares)
    start = mixed.reshape(-1, *first.shape[1:])
    found, _ = sample(jax.random.key(0), start, denoise, alpha_bars, visited, eta=0.0)
    return found.reshape(mixed.shape)


# --- restoration --------------------------------------------------------------------------------------------------


def estimate_deviation(images: Float[Array, "batch height width channels"]) -> Float[Array, " batch"]:
    """Returns the deviation of white noise in images of even size: median |d| / 0.6745 of their finest details d.

    The details are the diagonal Haar wavelet's, in which a picture without noise has few large values (Donoho &
    Johnstone). The unit is that of the images. Images whose details are mostly nil, as drawings, have 0.
    """
    corners = [images[:, i::2, j::2] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
    details = (corners[0] - corners[1] - corners[2] + corners[3]) / 2
    return jnp.median(jnp.abs(details).reshape(len(images), -1), axis=1) / 0.6744898


def restore(
    key: Key[Array, ""],
    noisy: Signals,
    deviation: float,
    denoise: Denoise,
    alpha_bars: AlphaBars,
    steps: int = 1,
    eta: float = 0.0,
) -> Signals:
    """Returns signals without their white noise, denoised from the step at which the diffusion has that much of it.

    Signals x_0 + deviation n, shrunk to unit variance of signal and noise, are x_t where sqrt((1 - alpha_bar) /
    alpha_bar) is the deviation; the nearest step in its logarithm is taken (Ho et al., 2020, equation 4).

    Args:
      noisy: signals in the denoiser's range.
      deviation: of the noise, in the unit of the signals: known, or by `estimate_deviation`.
      steps: of the sampler. With 1, the result is the denoiser's x_0, the mean of what the signal may be, of least
        squared error. With more it is sharper, one draw of what the signal may be.
    """
    ratios = (1 - np.asarray(alpha_bars, np.float64)) / alpha_bars
    last = int(np.abs(np.log(ratios) - 2 * np.log(max(deviation, 1e-12))).argmin())
    visited = np.unique(np.linspace(0 if steps > 1 else last, last, steps).round().astype(int))[::-1]
    start = noisy * np.float32(np.sqrt(alpha_bars[last]))
    return sample(key, start, denoise, alpha_bars, visited, eta)[0]
