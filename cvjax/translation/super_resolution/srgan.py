"""SRGAN: a generator that is trained on what a classifier sees and on what a discriminator takes for a photograph.

Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017
(arXiv:1609.04802). It begins with a trained SRResNet, from `config.borrow.enlarger`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Network, Recipe, State, advance, descend, start, variables
from cvjax.losses.adversarial import cross_entropy_discriminator_loss, cross_entropy_generator_loss
from cvjax.nets.capture import activations_of
from cvjax.nets.layers import Conv
from cvjax.signature import Count, NonNegative, Positive, Share
from cvjax.translation.super_resolution.degradation import BICUBIC, Degradation
from cvjax.translation.super_resolution.enlarger import Enlarger
from cvjax.translation.super_resolution.srresnet import SRResNet
from cvjax.translation.super_resolution.upscaling import UNIFORM, Factor

Images = Float[Array, "batch height width channels"]

# Of a launch, the paper's: alternate steps at 1e-4, then 1e-5.
ADAM = {
    "name": "adam",
    "learning_rate": 1e-4,
    "schedule": {"name": "piecewise_constant_schedule", "boundaries_and_scales": {"100000": 0.1}},
}


class Discriminator(nn.Module):
    """The discriminator of figure 4: eight 3x3 convolutions, every second of stride 2, and two dense layers.

    All but the first convolution are normalised by batch. It takes images of the size that it was initialised with.

    Attributes:
      features: channels of the first two convolutions; each further two have twice as many.
      hidden: units of the first dense layer.
    """

    features: int = 64
    hidden: int = 1024

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Float[Array, " batch"]:
        """Returns the logits of images in [0, 1] for being photographs; it computes in [-1, 1]."""
        x = 2 * images - 1
        for layer in range(8):
            features, stride = self.features * 2 ** (layer // 2), 1 + layer % 2
            x = Conv(features, 3, stride, padding=1, kernel_init=UNIFORM, name=f"conv_{layer}")(x)
            x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"norm_{layer}")(x) if layer else x
            x = nn.leaky_relu(x, 0.2)
        x = nn.leaky_relu(nn.Dense(self.hidden, name="dense")(x.reshape(len(x), -1)), 0.2)
        return nn.Dense(1, name="logit")(x)[:, 0]


def feature_loss(
    features: Float[Array, "batch _ _ _"], wanted: Float[Array, "batch _ _ _"], divisor: float
) -> Float[Array, ""]:
    """Returns the mean squared difference of activations that are divided first: equation 5 and section 3.2.

    The divisor counts by its square: 1 / 12.75 of the activations is about .006 of the loss.
    """
    return jnp.square((features - wanted) / divisor).mean()


@dataclasses.dataclass(frozen=True)
class SRGAN(Enlarger):
    """The recipe's functions; the attributes are the arguments of `recipe`, with the optimisers built."""

    discriminator: Discriminator
    network: Network
    layer: str
    divisor: float
    adversarial: float
    ema: float

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The generator, which enlarges, the discriminator, and the network whose activations are compared."""
        return {self.name: self.net, "discriminator": self.discriminator, "network": self.network.module}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks; raises a UserError if the borrowed one has no such layer."""
        self.check(batch)
        keys = jax.random.split(key, 3)
        truth, low = self.pairs(key, batch)
        held = {
            self.name: self.net.init(keys[0], low[:1]),
            "discriminator": self.discriminator.init(keys[1], truth[:1]),
        }
        frozen = self.network.module.init(keys[2], jnp.zeros((1, *self.network.shape)))
        activations_of(self.network.module, (self.layer,), maps=True)(frozen, truth[:1])
        opt = {name: self.tx.init(network["params"]) for name, network in held.items()}
        return start(held, opt, (self.name,) if self.ema else (), frozen={"network": frozen})

    def see(self, state: State, images: Images) -> Float[Array, "batch _ _ _"]:
        """Returns the borrowed network's activations."""
        read = activations_of(self.network.module, (self.layer,), maps=True)
        return read(variables(state, "network"), images)[self.layer]

    def judge(
        self, state: State, params: Mapping, stats: Mapping, images: Images
    ) -> tuple[Float[Array, " batch"], Mapping]:
        """Returns the discriminator's logits, by the statistics of the batch, and its new running statistics."""
        held = {"params": params, "batch_stats": stats}
        logits, changed = self.discriminator.apply(held, images, train=True, mutable=["batch_stats"])
        return logits, changed["batch_stats"]

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step of the discriminator, on what the generator makes before its own step, then that step."""
        truth, low = self.pairs(key, batch)
        made, _ = self.make(state, state.params[self.name], low)
        judge, wanted = functools.partial(self.judge, state), self.see(state, truth)

        def discriminator_loss(params):
            real, stats = judge(params, state.stats["discriminator"], truth)
            fake, stats = judge(params, stats, jax.lax.stop_gradient(made))
            return cross_entropy_discriminator_loss(real, fake), (real, fake, stats)

        against, against_opt, loss, (real, fake, against_stats) = descend(
            self.tx, discriminator_loss, state.params["discriminator"], state.opt["discriminator"]
        )

        def generator_loss(params):
            made, stats = self.make(state, params, low)
            logits, _ = judge(against, against_stats, made)
            losses = {
                "content": feature_loss(self.see(state, made), wanted, self.divisor),
                "adversarial": cross_entropy_generator_loss(logits),
            }
            return losses["content"] + self.adversarial * losses["adversarial"], (losses, stats)

        params, opt, total, (losses, stats) = descend(
            self.tx, generator_loss, state.params[self.name], state.opt[self.name]
        )
        metrics = {"loss/total": total, "loss/discriminator": loss}
        metrics |= {f"loss/{name}": value for name, value in losses.items()}
        metrics |= {f"probability/{name}": jax.nn.sigmoid(x).mean() for name, x in (("real", real), ("made", fake))}
        trained = {self.name: params, "discriminator": against}
        opts = {self.name: opt, "discriminator": against_opt}
        changed = {self.name: stats, "discriminator": against_stats}
        return advance(state, trained, opts, changed, keep=self.ema), metrics


def recipe(
    network: Network,
    scale: Factor = 4,
    blocks: Count = 16,
    features: Count = 64,
    discriminator_features: Count = 64,
    discriminator_hidden: Count = 1024,
    layer: str = "relu5_4",
    divisor: Positive = 12.75,
    adversarial: NonNegative = 1e-3,
    ema: Share = 0.0,
    degradation: Degradation = BICUBIC,
    tile: Count = 256,
    self_ensemble: bool = False,
    optimiser: Mapping[str, Any] = ADAM,
) -> Recipe:
    """Makes SRGAN; the defaults are the paper's. `config.borrow.enlarger` names the SRResNet that it begins with.

    Args:
      network: whose activations are compared, a VGG-19 in the paper; `config.borrow.network` names it.
      scale: how many times as large pictures become.
      blocks: number of residual blocks of the generator.
      features: channels of the generator.
      discriminator_features: channels of the discriminator's first convolution.
      discriminator_hidden: units of its first dense layer.
      layer: of the network; the last one before the fifth pooling, `relu5_4` of a VGG-19 and `relu5_3` of a VGG-16.
      divisor: of the activations, before differences are squared.
      adversarial: weight of the adversarial loss.
      ema: share of the averaged generator, the one that enlarges, that each step keeps; 0, the paper's: none.
      degradation: how pictures of the dataset are made smaller, besides the bicubic kernel.
      tile: side in pixels of the tiles in which `apply` enlarges larger pictures.
      self_ensemble: enlarge each picture mirrored and turned in all 8 ways, and take the mean.
      optimiser: of both networks, as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `edsr`.
    """
    net, against = SRResNet(scale, blocks, features), Discriminator(discriminator_features, discriminator_hidden)
    tx = optim.build(optimiser)
    return Recipe.of(
        SRGAN(
            *(net, scale, degradation, "mse", tx, tile, self_ensemble),
            *(against, network, layer, divisor, adversarial, ema),
        )
    )
