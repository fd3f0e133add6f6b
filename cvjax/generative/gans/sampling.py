"""Latents of GANs, the images made of them, and the figures that every GAN shows.

Interpolations of normal latents are spherical: White, Sampling Generative Networks, 2016 (arXiv:1609.04468).
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cvjax.core import State, Variables, variables
from cvjax.errors import UserError

Latents = Float[Array, "count latent"]
Images = Float[Array, "count height width channels"]
Labels = Int[Array, " count"]

Prior = Literal["uniform", "normal"]
GRID = 8  # rows and columns of a figure


def interpolate(prior: Prior, start: Latents, end: Latents, steps: int) -> Float[Array, "count steps latent"]:
    """Goes from one latent to another without leaving what the prior makes likely.

    Args:
      prior: "uniform": along the straight line; "normal": along the great arc, since a mean of normal latents is too
        short.
      start: where each path begins.
      end: where it ends.
      steps: points on each path, both ends among them.

    Returns:
      The points of each path.
    """
    share = jnp.linspace(0.0, 1.0, steps)[:, None]
    if prior == "uniform":
        return (1 - share) * start[:, None] + share * end[:, None]
    lengths = jnp.linalg.norm(start, axis=1) * jnp.linalg.norm(end, axis=1)
    angle = jnp.arccos(jnp.clip((start * end).sum(axis=1) / lengths, -1.0, 1.0))[:, None, None]
    flat = jnp.sin(angle) < 1e-3  # no great arc is told: of one dimension, or the same latent twice
    whole = jnp.where(flat, 1.0, jnp.sin(angle))
    before = jnp.where(flat, 1 - share, jnp.sin((1 - share) * angle) / whole)
    after = jnp.where(flat, share, jnp.sin(share * angle) / whole)
    return before * start[:, None] + after * end[:, None]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws latents and makes images of them, by the generator's average and by the generator itself.

    Attributes:
      generator: (latents, labels or None) -> images in [0, 1].
      shape: height, width, channels of the images.
      latent: dimensions of z.
      prior: "uniform" in [-1, 1], or "normal".
      classes: how many a conditional generator has; None: it has no labels.
    """

    generator: nn.Module
    shape: tuple[int, int, int]
    latent: int
    prior: Prior = "uniform"
    classes: int | None = None

    def draw(self, key: Key[Array, ""], count: int) -> Latents:
        """Draws latents from the prior."""
        if self.prior == "normal":
            return jax.random.normal(key, (count, self.latent))
        return jax.random.uniform(key, (count, self.latent), minval=-1.0, maxval=1.0)

    def generate(self, variables: Variables, z: Latents, labels: Labels | None = None) -> Images:
        """Makes images as after training, with running statistics."""
        return self.generator.apply(variables, z, labels)

    def generate_both(self, state: State, z: Latents, labels: Labels | None = None) -> tuple[Images, Images]:
        """Makes images of the same latents by the averaged generator and by the raw one."""
        average, raw = variables(state, "generator"), variables(state, "generator", averaged=False)
        return self.generate(average, z, labels), self.generate(raw, z, labels)

    def class_labels(self, given: Any, count: int) -> Labels | None:
        """Returns the labels that a user gives for `count` images; by default the classes in turn.

        Raises:
          UserError: the GAN has no classes, or not these, or the labels are not one for each image.
        """
        if self.classes is None:
            if given is not None:
                raise UserError("label: this GAN was trained without classes (config.recipe.classes=None).")
            return None
        if given is None:
            return jnp.arange(count) % self.classes
        labels = np.asarray(given)
        if labels.shape != (count,):
            raise UserError(f"label: expected one for each of the {count} images, not an array {labels.shape}.")
        unknown = labels[(labels < 0) | (labels >= self.classes)]
        if unknown.size:
            raise UserError(f"label={unknown[0]}: the classes of this GAN are 0 to {self.classes - 1}.")
        return jnp.asarray(labels, jnp.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def figures(self, key: Key[Array, ""], state: State) -> dict[str, Images]:
        """Draws grids of `GRID` rows; the same key gives the same latents at every step."""
        sample_key, start_key, end_key, class_key = jax.random.split(key, 4)
        average, count = variables(state, "generator"), GRID**2
        samples, raw = self.generate_both(state, self.draw(sample_key, count), self.class_labels(None, count))
        start, end = self.draw(start_key, GRID), self.draw(end_key, GRID)
        paths = interpolate(self.prior, start, end, GRID).reshape(count, -1)
        labels = None if self.classes is None else jnp.repeat(self.class_labels(None, GRID), GRID)
        figures = {"samples": samples, "raw_samples": raw, "interpolations": self.generate(average, paths, labels)}
        if self.classes is not None:  # a row a class, a column a latent
            shown = min(self.classes, 10)
            z, labels = jnp.tile(self.draw(class_key, shown), (shown, 1)), jnp.repeat(jnp.arange(shown), shown)
            figures["classes"] = self.generate(average, z, labels)
        return figures

    @functools.partial(jax.jit, static_argnums=0)
    def make(self, state: State, z: Latents, labels: Labels | None = None) -> Images:
        """Makes images by the averaged generator, compiled."""
        return self.generate(variables(state, "generator"), z, labels)
