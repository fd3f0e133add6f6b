"""Strategies for training a generator against a discriminator.

One-sided label smoothing: Salimans et al., Improved Techniques for Training GANs, 2016 (arXiv:1606.03498). Instance
noise: Sønderby et al., Amortised MAP Inference for Image Super-resolution, 2017 (arXiv:1610.04490).
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cvjax.errors import UserError
from cvjax.losses import adversarial
from cvjax.signature import Count, Range, Share

Images = Float[Array, "batch height width channels"]


@dataclasses.dataclass(frozen=True)
class Training:
    """How a generator and a discriminator are trained: `config.recipe.training` of every adversarial system.

    Attributes:
      real_label: the discriminator's target for real images, or (low, high) to draw one for each image. Less than 1 is
        one-sided label smoothing. Only for the losses in `adversarial.LABELLED`.
      saturating: the generator minimises log(1 - D(G(z))) instead of -log D(G(z)). Only for cross-entropy.
      discriminator_steps: steps of the discriminator in a training step, each on its own part of the batch.
      generator_steps: steps of the generator in a training step, each on as many images as a discriminator's step.
      instance_noise: standard deviation of the Gaussian noise on all images that the discriminator sees, for images in
        [0, 1]. It decays linearly from the first step.
      noise_steps: training steps after which there is no noise.
      ema: decay of the generator's moving average, as in `core.moving_average`.
    """

    real_label: float | tuple[float, float] = 1.0
    saturating: bool = False
    discriminator_steps: Count = 1
    generator_steps: Count = 1
    instance_noise: Annotated[float, Range(0)] = 0.0
    noise_steps: Count = 10_000
    ema: Share = 0.999

    def check(self, loss: str) -> None:
        """Raises a UserError that names the key, if a loss does not support one of these strategies."""
        if isinstance(self.real_label, tuple) and self.real_label[0] > self.real_label[1]:
            raise UserError(f"config.recipe.training.real_label={self.real_label}: expected (low, high).")
        if loss not in adversarial.LABELLED and self.real_label != 1.0:
            raise UserError(
                f"config.recipe.training.real_label={self.real_label}: the {loss} loss has no labels; leave it at 1, "
                f"or use {' or '.join(adversarial.LABELLED)}."
            )
        if loss != "cross_entropy" and self.saturating:
            raise UserError(f"config.recipe.training.saturating=True: only the cross_entropy loss has it, not {loss}.")

    def check_batch(self, size: int) -> None:
        """Raises a UserError if the batch's size is not a multiple of the discriminator's steps."""
        if size % self.discriminator_steps:
            raise UserError(
                f"config.data.batch={size}: must be a multiple of config.recipe.training.discriminator_steps="
                f"{self.discriminator_steps}, which split it."
            )

    def discriminator_options(self, key: Key[Array, ""], loss: str, count: int) -> dict[str, Float[Array, " count"]]:
        """Returns keyword arguments for a discriminator's loss: the labels of `count` real images, if it has any."""
        if loss not in adversarial.LABELLED:
            return {}
        return {"real_label": adversarial.draw_labels(key, count, self.real_label)}

    def generator_options(self) -> dict[str, Any]:
        """Returns keyword arguments for a generator's loss."""
        return {"saturating": True} if self.saturating else {}

    def noise_level(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Returns the standard deviation of the instance noise at a training step."""
        return self.instance_noise * (1.0 - jnp.minimum(step / self.noise_steps, 1.0))

    def add_noise(self, key: Key[Array, ""], images: Images, level: Float[Array, ""]) -> Images:
        """Adds instance noise of a standard deviation."""
        return images + level * jax.random.normal(key, images.shape) if self.instance_noise else images
