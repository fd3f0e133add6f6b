"""Grad-CAM: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks, 2017 (arXiv:1610.02391), section 3.

It needs the gradient of a logit with respect to an activation inside a network. Any function does that returns logits
and activations by name, such as a network with `capture`: it is traced to a jaxpr, and `shifted` evaluates that with
an array added to the activation. The network itself needs nothing for it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal, Var
from jaxtyping import Array, Float, Integer

from cvjax.errors import UserError, suggest
from cvjax.interpret import gates

Images = Float[Array, "batch height width channels"]
Labels = Integer[Array, " batch"]
Logits = Float[Array, "batch classes"]
Features = Float[Array, "batch rows columns features"]
ActivationsFn = Callable[[Images], tuple[Logits, Mapping[str, Array]]]


def gradcam(
    activations_fn: ActivationsFn, images: Images, labels: Labels, layer: str
) -> Float[Array, "batch rows columns"]:
    """Returns the positive part of a layer's features, weighted by their mean gradients (equations 1 and 2).

    The gradients are those of the label's logit. The map has the layer's size; `enlarge` brings it to the image's.

    Args:
      activations_fn: images -> (logits, {layer: activation}), of which the logits are computed from the activation. An
        image's may not depend on the other images.
      layer: name of an activation [batch, rows, columns, features]; the paper takes the last convolutional one.
    """
    evaluate, zeros = shifted(activations_fn, images, layer)

    def score(shift: Features) -> tuple[Float[Array, ""], Features]:
        logits, features = evaluate(shift)
        return jnp.take_along_axis(logits, labels[:, None], axis=1).sum(), features

    gradients, features = jax.grad(score, has_aux=True)(zeros)
    return jax.nn.relu((gradients.mean(axis=(1, 2), keepdims=True) * features).sum(axis=-1))


def enlarge(maps: Float[Array, "batch rows columns"], height: int, width: int) -> Float[Array, "batch height width"]:
    """Returns maps at the size of the image, bilinear."""
    return jax.image.resize(maps, (len(maps), height, width), "bilinear")


def shifted(
    activations_fn: ActivationsFn, images: Images, layer: str
) -> tuple[Callable[[Features], tuple[Logits, Features]], Features]:
    """Returns (function of a shift, shift of zeros), by which a gradient reaches a layer.

    The function returns (logits, activation) of the layer's activation with the shift added. Raises a UserError if
    there is no such layer, its activation has other axes than an image's features, it is the images themselves or a
    constant, or the logits are not computed from it.
    """

    def flat(images: Images) -> tuple[Logits, Array]:
        logits, activations = gates.inline(activations_fn)(images)
        if layer not in activations:
            raise UserError(f"there is no layer {layer!r}. {suggest(layer, activations)}")
        return logits, activations[layer]

    closed, (_, activation) = jax.make_jaxpr(flat, return_shape=True)(images)
    if len(activation.shape) != 4:
        raise UserError(f"the layer {layer!r} is {list(activation.shape)}, not [batch, rows, columns, features].")
    jaxpr = closed.jaxpr
    logits, place = jaxpr.outvars
    place = _before_casts(jaxpr.eqns, place)
    if isinstance(place, Literal) or not _leads_to(jaxpr.eqns, place, logits):
        raise UserError(f"the logits are not computed from the layer {layer!r} as it is returned, perhaps from a copy.")
    if place in [*jaxpr.invars, *jaxpr.constvars]:
        raise UserError(f"the layer {layer!r} is the images themselves or a constant: the network does not compute it.")

    def evaluate(shift: Features) -> tuple[Logits, Features]:
        def apply(eqn: JaxprEqn, values: list[Any]) -> list[Any]:
            outputs = gates.bind(jaxpr, eqn, values)
            return [
                y + shift.astype(y.dtype) if variable is place else y
                for variable, y in zip(eqn.outvars, outputs, strict=True)
            ]

        return tuple(gates.evaluate(jaxpr, closed.consts, [images], apply))

    return evaluate, jnp.zeros(activation.shape, activation.dtype)


def _before_casts(eqns: list[JaxprEqn], variable: Var | Literal) -> Var | Literal:
    """The variable of which another is a copy in another dtype, such as those that networks in bfloat16 return."""
    made_by = {output: eqn for eqn in eqns for output in eqn.outvars}
    while (
        not isinstance(variable, Literal)
        and variable in made_by
        and made_by[variable].primitive.name == "convert_element_type"
    ):
        variable = made_by[variable].invars[0]
    return variable


def _leads_to(eqns: list[JaxprEqn], start: Var, end: Var) -> bool:
    """Whether a variable is computed from another one."""
    reached = {start}
    for eqn in eqns:
        if any(not isinstance(atom, Literal) and atom in reached for atom in eqn.invars):
            reached |= set(eqn.outvars)
    return end in reached
