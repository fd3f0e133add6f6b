"""Activations of any network by the names of its layers, for the functions of this folder.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv:1311.2901), looked at networks layer
by layer; so do these.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.core import Network, Variables
from cvjax.errors import UserError, suggest

Images = Float[Array, "batch height width channels"]
Activations = dict[str, Float[Array, "batch ..."]]

OUTPUT = "output"  # the name of a network's own output: the logits of a classifier


def activations_of(net: nn.Module, layers: Sequence[str]) -> Callable[[Variables, Images], Activations]:
    """Returns a function (variables, images) -> {layer: activations}, float32, in the order of `layers`.

    Layers are those that the network's attribute `capture` knows, or that it returns without being asked; "output" is
    its output. The function raises a UserError that names a layer which is not there.
    """
    captures = "capture" in getattr(net, "__dataclass_fields__", {})
    asked = net.clone(capture=tuple(name for name in layers if name != OUTPUT)) if captures else net

    def read(variables: Variables, images: Images) -> Activations:
        found = _by_name(asked.apply(variables, images))
        for name in layers:
            if name not in found:
                raise UserError(f"{type(net).__name__} has no layer {name!r}. {suggest(name, found)}")
        return {name: found[name].astype(jnp.float32) for name in layers}

    return read


RESIZE = "resize them by data.transforms and data.eval_transforms"


def check(net: Network, layers: Sequence[str], shape: Sequence[int], remedy: str = RESIZE) -> None:
    """Raises a UserError if a network has not all the layers, or does not take images of a shape.

    Args:
      remedy: what to do about images of another height and width, if their size matters to the network.
    """
    if not layers:
        raise UserError("config.recipe.layers is empty: name a layer of the network to look at.")
    if shape[-1] != net.shape[-1]:
        raise UserError(f"the images have {shape[-1]} channels, but those of the network have {net.shape[-1]}.")

    def trace(images: Images) -> Any:
        return activations_of(net.module, layers)(net.module.init(jax.random.key(0), images), images)

    if tuple(shape) != tuple(net.shape):
        _check_size(net, tuple(shape), remedy)
    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *shape), jnp.float32))


def _check_size(net: Network, shape: tuple[int, ...], remedy: str) -> None:
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = [jax.ShapeDtypeStruct((1, *size), jnp.float32) for size in (net.shape, shape)]
    one, other = (jax.tree.map(jnp.shape, jax.eval_shape(net.module.init, key, each)) for each in images)
    if one != other:
        raise UserError(
            f"the images are {shape}, but the network was trained on {tuple(net.shape)} and takes no other size: "
            f"{remedy}."
        )


def _by_name(returned: Any) -> Mapping[str, Array]:
    if isinstance(returned, Mapping):
        return returned
    output, activations = returned if isinstance(returned, tuple) else (returned, {})
    return {**activations, OUTPUT: output}
