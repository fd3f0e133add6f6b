"""Distributions of pixels by a decoder's outputs: Bernoulli, categorical over grey levels, or Gaussian.

Kingma & Welling, Auto-Encoding Variational Bayes, 2014, appendix C; dequantisation: Theis, van den Oord & Bethge, A
Note on the Evaluation of Generative Models, 2016 (arXiv:1511.01844).
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax.ops.precision import at_least_float32

Likelihood = Literal["bernoulli", "categorical", "gaussian"]
Images = Float[Array, "batch height width channels"]
Outputs = Float[Array, "batch height width channels outputs"]


def log_likelihood(likelihood: Likelihood, outputs: Outputs, images: Images, levels: int) -> Float[Array, " batch"]:
    """Returns log p(image | latent) of each image in nats, summed over pixels and channels.

    Args:
      likelihood: "bernoulli" (a bound on the likelihood of binary images only), "categorical" over `levels` grey
        levels, or "gaussian", a density on the images times levels - 1, so that a grey level is one unit wide. On
        dequantised images (see `dequantise`), it bounds the discrete likelihood.
      outputs: of the decoder: 1 logit, `levels` logits, or (mean, log-variance) for each pixel.
    """
    outputs, images = at_least_float32(outputs), at_least_float32(images)
    if likelihood == "bernoulli":
        logits = outputs[..., 0]
        pixels = images * jax.nn.log_sigmoid(logits) + (1 - images) * jax.nn.log_sigmoid(-logits)
    elif likelihood == "categorical":
        index = jnp.round(images * (levels - 1)).astype(jnp.int32)
        pixels = jnp.take_along_axis(jax.nn.log_softmax(outputs), index[..., None], axis=-1)[..., 0]
    else:
        mean, log_variance = outputs[..., 0], outputs[..., 1]
        pixels = -0.5 * (math.log(2 * math.pi) + log_variance + (images - mean) ** 2 / jnp.exp(log_variance))
        pixels -= math.log(levels - 1)
    return pixels.sum(axis=(1, 2, 3))


def expected_image(likelihood: Likelihood, outputs: Outputs) -> Images:
    """Returns E[image | latent] in [0, 1] from a decoder's outputs."""
    if likelihood == "bernoulli":
        return jax.nn.sigmoid(outputs[..., 0])
    if likelihood == "categorical":
        return jax.nn.softmax(outputs) @ jnp.linspace(0.0, 1.0, outputs.shape[-1])
    return jnp.clip(outputs[..., 0], 0.0, 1.0)


def dequantise(key: Key[Array, ""], images: Images, levels: int) -> Images:
    """Returns images with uniform noise one level wide, whose density bounds the discrete likelihood (Theis et al.)."""
    noise = jax.random.uniform(key, images.shape, minval=-0.5, maxval=0.5)
    return (jnp.round(images * (levels - 1)) + noise) / (levels - 1)
