"""Activations that a network returns by name beside its output: its attribute `capture`."""

from collections.abc import Sequence

from jaxtyping import Array, Shaped

from cvjax.errors import UserError, suggest


class Capture:
    """Collects the activations of some layers while a network is applied.

    Attributes:
      wanted: names of the layers.
      activations: those kept so far, {name: activation}.
    """

    def __init__(self, net: str, wanted: Sequence[str], known: Sequence[str]):
        """Checks the names of the layers against those of the network.

        Args:
          net: name of the network, for the message.
          wanted: names of the layers to collect.
          known: names of all layers.

        Raises:
          UserError: the network has no layer of such a name.
        """
        for name in wanted:
            if name not in known:
                raise UserError(f"{net}: there is no layer {name!r} to capture. {suggest(name, known)}")
        self.wanted, self.activations = frozenset(wanted), {}

    def __call__(self, name: str, x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
        """Returns a layer's output, kept if it is wanted."""
        if name in self.wanted:
            self.activations[name] = x
        return x
