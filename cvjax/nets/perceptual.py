"""Perceptual distances of images: how far apart what a network sees of them is.

LPIPS: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018 (arXiv:1801.03924).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.nets.alexnet import AlexNet
from cvjax.nets.capture import activations_of
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


def check_network(network: Network, shape: tuple[int, int, int], layers: tuple[str, ...]) -> None:
    """Raises a UserError unless images of this shape have places in all layers; LPIPS has layers of its own."""
    where = f"config.recipe.shape={shape}: the network of config.borrow.perceptual"
    if shape[2] != 3:
        raise UserError(f"{where} takes 3 channels; leave it out.")
    module, own = network.module, isinstance(network.module, LPIPS)
    if not (own or layers):
        raise UserError("config.recipe.layers is empty: name at least one, or leave config.borrow.perceptual out.")

    def read(key, images):
        held = module.init(key, images)
        if own:
            return module.apply(held, images, method=lambda distance, images: distance.network(images)[1])
        return activations_of(module, layers, maps=True)(held, images)

    try:
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        found = jax.eval_shape(read, jax.eval_shape(lambda: jax.random.key(0)), images)
        empty = [name for name, features in found.items() if 0 in features.shape]
    except Exception as error:  # of a network of any kind
        asked = "" if own else f" with config.recipe.layers={layers}"
        said = str(error).split("\n", 1)[0] if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{where} does not take such images{asked}: {said}") from error
    if empty:
        raise UserError(f"{where} has nothing left of such images in {empty[0]}: take larger ones, or earlier layers.")


def _unit(features: Array) -> Array:
    """Features of length 1 at each place."""
    x = at_least_float32(features)
    # The gradient of a length is not finite at 0, where a ReLU has silenced all channels.
    squares = jnp.sum(x**2, axis=-1, keepdims=True)
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return x / (length + EPSILON)
