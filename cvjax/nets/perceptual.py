"""Perceptual distances of images: how far apart what a network sees of them is.

LPIPS: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018 (arXiv:1801.03924).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cvjax.nets.alexnet import AlexNet
from cvjax.nets.vgg import VGG
from cvjax.ops.precision import at_least_float32

NETWORKS = {
    "vgg16": VGG(16, capture=("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "alexnet": AlexNet(capture=("relu1", "relu2", "relu3", "relu4", "relu5")),
}
EPSILON = 1e-10  # added to lengths, as by the published code

Images = Float[Array | np.ndarray, "batch height width channels"]
Features = Mapping[str, Float[Array, "batch _ _ _"]]
Heads = Mapping[str, Float[Array | np.ndarray, " _"]]


class LPIPS(nn.Module):
    """The distance with weights of its own: those of the network, and a head for each layer, `head_relu1_2`.

    Attributes:
      network: returns (output, activations), all of which count; one of `NETWORKS`.
    """

    network: nn.Module

    @nn.compact
    def __call__(self, images: Images, others: Images | None = None) -> Float[Array, " batch"]:
        """Returns the distance of each image in [0, 1] to the other one in its place; without others, 0."""
        # One after the other: where only one of them has a gradient, half of the arithmetic of that is saved.
        first, second = (self.network(x)[1] for x in (images, images if others is None else others))
        heads = {
            layer: self.param(f"head_{layer}", nn.initializers.ones, features.shape[-1:])
            for layer, features in first.items()
        }
        return distance(first, second, heads)


def distance(features: Features, others: Features, heads: Heads) -> Float[Array, " batch"]:
    """Returns the distance of each pair of images by their activations in each layer: equation 1.

    It is the sum over layers of the mean over places of the weighted squared differences of unit vectors.
    """
    total = jnp.zeros(())
    for layer, weights in heads.items():
        squares = (_unit(features[layer]) - _unit(others[layer])) ** 2
        total += jnp.sum(squares * jnp.asarray(weights), axis=-1).mean(axis=(1, 2))
    return total


def _unit(features: Array) -> Array:
    """Features of length 1 at each place."""
    x = at_least_float32(features)
    # The gradient of a length is not finite at 0, where a ReLU has silenced all channels.
    squares = jnp.sum(x**2, axis=-1, keepdims=True)
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return x / (length + EPSILON)
