"""Images that a channel or a class answers to most, found by gradient ascent.

Olah, Mordvintsev & Schubert, Feature Visualization, 2017 (distill.00007): ascent in Fourier space, where every
frequency moves at the same speed, with decorrelated colours, on randomly moved views, and a term for the diversity of
several images. Erhan et al., Visualizing Higher-Layer Features of a Deep Network, 2009, ascend pixels: the control.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from cvjax.ops.affine import jitter
from cvjax.signature import Count, NonNegative, Positive, Share

Images = Float[Array, "batch height width channels"]
Activations = Float[Array, "batch ..."]
Spectra = Float[Array, "batch height half_width channels 2"]

# `colour_axes` of the training photographs of the dataset `photos`: rows are red, green, blue; columns are axes.
COLOUR_AXES = ((0.6289, -0.2350, -0.0199), (0.5633, 0.0716, 0.0673), (0.5359, 0.2006, -0.0474))

# --- parameterisation ---------------------------------------------------------------------------------------------


def colour_axes(images: Float[np.ndarray, "batch height width 3"]) -> Float[np.ndarray, "3 3"]:
    """Returns the square root of the colours' covariance, scaled so that its longest column has length 1.

    It takes uncorrelated colours to correlated ones like those of the images: U S^(1/2) of the covariance U S U^T.
    """
    pixels = np.asarray(images, np.float64).reshape(-1, 3)
    left, variances, _ = np.linalg.svd(np.cov(pixels.T))
    axes = left * np.sqrt(variances)
    axes *= np.sign(axes.sum(axis=0) + 1e-12)  # an axis may point either way: fix it
    return axes / np.linalg.norm(axes, axis=0).max()


def frequencies(height: int, width: int) -> Float[np.ndarray, "height half_width"]:
    """Returns the length of each frequency of `jnp.fft.rfft2`, in cycles per pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])


def draw_spectra(key: Key[Array, ""], shape: tuple[int, int, int, int], deviation: float = 0.01) -> Spectra:
    """Returns normal spectra, real and imaginary parts, of images of a shape."""
    batch, height, width, channels = shape
    return deviation * jax.random.normal(key, (batch, height, width // 2 + 1, channels, 2))


def from_spectra(spectra: Spectra, width: int, decay: float = 1.0) -> Float[Array, "batch height width channels"]:
    """Returns real images, not limited to any range, of scaled spectra.

    A frequency f is scaled by sqrt(height * width) / max(f, 1 / longest side) ** decay, so that each has, as in natural
    images, an amplitude that falls with it, and the same step changes coarse shapes as much as fine detail.
    """
    height = spectra.shape[1]
    slowest = 1 / max(height, width)
    scale = np.sqrt(height * width) / np.maximum(frequencies(height, width), slowest) ** decay
    scaled = jax.lax.complex(spectra[..., 0], spectra[..., 1]) * jnp.float32(scale)[:, :, None]
    return jnp.fft.irfft2(scaled, s=(height, width), axes=(1, 2))


def to_colours(values: Float[Array, "batch height width channels"]) -> Images:
    """Returns images in (0, 1): correlates the three colours, if there are three, and squashes by the logistic."""
    if values.shape[-1] == 3:
        values = jnp.einsum("...i,ji->...j", values, jnp.array(COLOUR_AXES), precision=jax.lax.Precision.HIGHEST)
    return jax.nn.sigmoid(values)


# --- objectives ---------------------------------------------------------------------------------------------------


def channel_objective(activations: Activations, channel: int | Int[Array, ""]) -> Float[Array, " batch"]:
    """Returns the mean of one channel over each image; of logits, the logit of one class."""
    chosen = activations[..., channel]
    return chosen.reshape(len(chosen), -1).mean(axis=1)


def diversity(activations: Float[Array, "batch rows columns channels"]) -> Float[Array, ""]:
    """Returns minus the mean cosine between the Gram matrices of all pairs of different images; 0 for one image."""
    batch = len(activations)
    flat = activations.reshape(batch, -1, activations.shape[-1])
    grams = jnp.einsum("bpc,bpd->bcd", flat, flat).reshape(batch, -1)
    grams /= jnp.linalg.norm(grams, axis=1, keepdims=True) + 1e-10
    return -((grams @ grams.T).sum() - (grams**2).sum()) / max(batch * (batch - 1), 1)


# --- ascent -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ascent:
    """How images are found.

    Attributes:
      steps: of Adam.
      learning_rate: of the spectra.
      shift: pixels that a view is moved by at most, along each axis.
      angle: radians that it is turned by at most, either way.
      zoom: relative change of size at most.
      decay: power of the frequency by which amplitudes fall.
      deviation: of the first spectra, or pixels.
      candidates: number of starts that are drawn, of contrasts up to ten times that of the first; the one of the
        largest objective is ascended, because a ReLU that is inactive all over a start has no gradient.
      parameters: "spectrum", or "pixels", whose values are ascended directly: the control.
    """

    steps: Count = 256
    learning_rate: Positive = 0.05
    shift: NonNegative = 8.0
    angle: NonNegative = 0.1
    zoom: Share = 0.1
    decay: NonNegative = 1.0
    deviation: Positive = 0.01
    candidates: Count = 8
    parameters: Literal["spectrum", "pixels"] = "spectrum"


def maximise(
    key: Key[Array, ""],
    objective_fn: Callable[[Images], Float[Array, ""]],
    shape: tuple[int, int, int, int],
    ascent: Ascent = Ascent(),
) -> tuple[Images, Float[Array, " steps"]]:
    """Finds images of a shape that maximise an objective, in one scan.

    Returns the images and the objective before each step. Map it over keys and channels by `jax.vmap`.

    Args:
      objective_fn: of all images together; where there is a sum over images, each is maximised by itself.
      ascent: steps, views and parameters.
    """
    start_key, steps_key = jax.random.split(key)
    tx = optax.adam(ascent.learning_rate)

    def paint(parameters: Array) -> Images:
        if ascent.parameters == "pixels":
            return jax.nn.sigmoid(parameters)
        return to_colours(from_spectra(parameters, shape[2], ascent.decay))

    def draw(key: Key[Array, ""], contrast: Float[Array, ""]) -> Array:
        if ascent.parameters == "pixels":
            return contrast * jax.random.normal(key, shape)
        return contrast * draw_spectra(key, shape, 1.0)

    contrasts = ascent.deviation * jnp.geomspace(1, 10, ascent.candidates)
    drawn = jax.vmap(draw)(jax.random.split(start_key, ascent.candidates), contrasts)
    start = drawn[jax.lax.map(lambda parameters: objective_fn(paint(parameters)), drawn).argmax()]

    def loss(parameters: Array, key: Key[Array, ""]) -> Float[Array, ""]:
        views = jitter(key, paint(parameters), ascent.shift, ascent.angle, ascent.zoom, "mirror")
        return -objective_fn(views)

    def step(carry: tuple, key: Key[Array, ""]) -> tuple:
        parameters, opt = carry
        value, gradient = jax.value_and_grad(loss)(parameters, key)
        updates, opt = tx.update(gradient, opt, parameters)
        return (optax.apply_updates(parameters, updates), opt), -value

    keys = jax.random.split(steps_key, ascent.steps)
    (parameters, _), values = jax.lax.scan(step, (start, tx.init(start)), keys)
    return paint(parameters), values
