"""Activations that a network returns by name beside its output: its attribute `capture`."""

from collections.abc import Sequence

from jaxtyping import Array, Shaped

from cvjax.errors import UserError, suggest

EVERY = ("all",)  # the value of `capture` that wants all layers


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
