"""Activations of a network by name: what its attribute `capture` returns beside its output, or its modules have."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
from jaxtyping import Array, Float, Shaped

from cvjax.core import Variables
from cvjax.errors import UserError, suggest
from cvjax.ops.precision import at_least_float32

Images = Float[Array, "batch height width channels"]
Activations = dict[str, Float[Array, "batch ..."]]

EVERY = ("all",)  # the value of `capture` that wants all layers
OUTPUT = "output"  # the name of a network's own output: the logits of a classifier


class Capture:
    """Collects the activations of wanted layers, {name: activation}, while a network is applied."""

    def __init__(self, net: str, wanted: Sequence[str], known: Sequence[str]):
        """Checks that all the layers wanted are known; if not, raises a UserError that names the network.

        `EVERY` wants all of them.
        """
        wanted = known if tuple(wanted) == EVERY else wanted
        for name in wanted:
            if name not in known:
                raise UserError(f"{net}: there is no layer {name!r} to capture. {suggest(name, known)}")
        self.wanted, self.activations = frozenset(wanted), {}

    def __call__(self, name: str, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """Returns a layer's output, kept if it is wanted."""
        if name in self.wanted:
            self.activations[name] = x
        return x


def activations_of(
    net: nn.Module, layers: Sequence[str], maps: bool = False
) -> Callable[[Variables, Images], Activations]:
    """Returns a function (variables, images) -> {layer: activations}, in float32 at least and the order of `layers`.

    A layer is a name of the network's attribute `capture`, if it has that, such as `relu4_2`; else an activation that
    the network returns, or the path of a module inside it, such as `conv_1_1`. "output" is what the network itself
    returns. The function raises a UserError that names a layer which is not there.

    Args:
      net: returns (output, activations), only the output, or only {layer: activation}.
      maps: only activations [batch, rows, columns, channels] are layers.
    """
    captures = "capture" in getattr(net, "__dataclass_fields__", {})
    asked = net.clone(capture=tuple(name for name in layers if name != OUTPUT)) if captures else net

    def read(variables: Variables, images: Images) -> Activations:
        if captures:
            found = _returned(asked.apply(variables, images))
        else:
            returned, inside = net.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
            found = _of_modules(inside["intermediates"]) | _returned(returned)
        if maps:
            found = {name: value for name, value in found.items() if getattr(value, "ndim", 0) == 4}
        for name in layers:
            if name not in found:
                raise UserError(f"{type(net).__name__} has no layer {name!r}. {suggest(name, found)}")
        return {name: at_least_float32(found[name]) for name in layers}

    return read


def _of_modules(intermediates: Mapping[str, Any]) -> dict[str, Array]:
    """The output of each module inside a network by its path, the first one of a module that is called again."""
    calls = flax.traverse_util.flatten_dict(dict(intermediates))
    found = {"/".join(path[:-1]): outputs[0] for path, outputs in calls.items() if len(path) > 1}
    return {name: value for name, value in found.items() if hasattr(value, "ndim")}


def _returned(returned: Any) -> dict[str, Any]:
    """The activations in what a network returns, and its output."""
    if isinstance(returned, Mapping):
        return dict(returned)
    output, *more = returned if isinstance(returned, tuple) else (returned,)
    activations = more[0] if more and isinstance(more[0], Mapping) else {}
    return {**activations, OUTPUT: output}
