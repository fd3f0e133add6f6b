"""Normalisations of generators and discriminators: of weights by their spectral norm, of features by class.

Spectral: Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018 (arXiv:1802.05957), as
`flax.linen.SpectralNorm` has it. Conditional: de Vries et al., Modulating early visual processing by language, 2017
(arXiv:1707.00683).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float, Int


def spectral(layer: nn.Module, train: bool) -> Callable:
    """Returns a layer whose kernel, or embedding, is divided by an estimate of its largest singular value.

    The kernel is taken as a matrix of all its inputs by its features. Every call improves the estimate by one power
    iteration, and keeps it in the "batch_stats" if `train`. The layer, a `Conv`, `nn.Dense` or `nn.Embed`, is made in
    the method that calls this.
    """
    return partial(nn.SpectralNorm(layer), update_stats=train)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with a scale and a shift for each class; with `classes=None` it is the plain one.

    Parameters: `scale/embedding` [classes, channels], initially 1, and `shift/embedding`, initially 0. `momentum` is
    the share of the running statistics that each step keeps.
    """

    classes: int | None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], labels: Int[Array, " batch"] | None, train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Normalises by the batch's statistics in training, else by the running ones."""
        plain = self.classes is None
        options = dict(momentum=self.momentum, epsilon=self.epsilon, use_scale=plain, use_bias=plain)
        x = nn.BatchNorm(not train, **options)(x)
        if plain:
            return x
        channels, ones = x.shape[-1], nn.initializers.ones
        scale = nn.Embed(self.classes, channels, embedding_init=ones, name="scale")(labels)
        shift = nn.Embed(self.classes, channels, embedding_init=nn.initializers.zeros, name="shift")(labels)
        return x * scale[:, None, None] + shift[:, None, None]
