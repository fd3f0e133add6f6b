"""Whether a network has the layers that the functions of this folder look at, and takes the images.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv:1311.2901), looked at networks layer
by layer; so do these.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cvjax.core import Network
from cvjax.errors import UserError, number_of
from cvjax.nets.borrowed import takes
from cvjax.nets.capture import Images, activations_of

RESIZE = "resize them by data.transforms and data.eval_transforms"


def check(net: Network, layers: Sequence[str], shape: Sequence[int], remedy: str = RESIZE) -> None:
    """Raises a UserError if a network has not all the layers, or does not take images of a shape.

    Args:
      remedy: what to do about images of another height and width, if their size matters to the network.
    """
    if not layers:
        raise UserError("config.recipe.layers is empty: name a layer of the network to look at.")
    if shape[-1] != net.shape[-1]:
        raise UserError(
            f"the images have {number_of(shape[-1], 'channel')}, but those of the network have {net.shape[-1]}."
        )

    def trace(images: Images) -> Any:
        return activations_of(net.module, layers)(net.module.init(jax.random.key(0), images), images)

    if not takes(net, tuple(shape)):
        raise UserError(
            f"the images are {tuple(shape)}, but the network was trained on {tuple(net.shape)} and takes no other "
            f"size: {remedy}."
        )
    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
