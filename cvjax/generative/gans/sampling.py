"""Sampling from a GAN's generator, and the figures that all GANs have in common.

Normal latents are interpolated spherically: White, Sampling Generative Networks, 2016 (arXiv:1609.04468).
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
from cvjax.errors import UserError, number_of

Latents = Float[Array, "count latent"]
Images = Float[Array, "count height width channels"]
Labels = Int[Array, " count"]

Prior = Literal["uniform", "normal"]
GRID = 8  # rows and columns of a figure


def interpolate(prior: Prior, start: Latents, end: Latents, steps: int) -> Float[Array, "count steps latent"]:
    """Returns `steps` latents from start to end, both included: on lines for a uniform prior, arcs for a normal one."""
    share = jnp.linspace(0.0, 1.0, steps)[:, None]
    if prior == "uniform":
        return (1 - share) * start[:, None] + share * end[:, None]
    lengths = jnp.linalg.norm(start, axis=1) * jnp.linalg.norm(end, axis=1)
    angle = jnp.arccos(jnp.clip((start * end).sum(axis=1) / lengths, -1.0, 1.0))[:, None, None]
    parallel = jnp.sin(angle) < 1e-3  # the great circle is undefined: interpolate linearly
    sine = jnp.where(parallel, 1.0, jnp.sin(angle))
    start_weight = jnp.where(parallel, 1 - share, jnp.sin((1 - share) * angle) / sine)
    end_weight = jnp.where(parallel, share, jnp.sin(share * angle) / sine)
    return start_weight * start[:, None] + end_weight * end[:, None]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A generator, (latents, labels or None) -> images, and its inputs; the rest are arguments of `gan.recipe`."""

    generator: nn.Module
    shape: tuple[int, int, int]
    latent: int
    prior: Prior = "uniform"
    classes: int | None = None

    def draw_latents(self, key: Key[Array, ""], count: int) -> Latents:
        """Draws latents from the prior."""
        if self.prior == "normal":
            return jax.random.normal(key, (count, self.latent))
        return jax.random.uniform(key, (count, self.latent), minval=-1.0, maxval=1.0)

    def generate(self, variables: Variables, z: Latents, labels: Labels | None = None) -> Images:
        """Generates images in evaluation mode."""
        return self.generator.apply(variables, z, labels)

    def generate_both(self, state: State, z: Latents, labels: Labels | None = None) -> tuple[Images, Images]:
        """Generates images with the averaged generator and with the latest one."""
        average, raw = variables(state, "generator"), variables(state, "generator", averaged=False)
        return self.generate(average, z, labels), self.generate(raw, z, labels)

    def class_labels(self, given: Any, count: int) -> Labels | None:
        """Checks a user's labels of `count` images; by default returns the classes in turn.

        A UserError says that a label is not a class, that there is not one per image, or that the GAN is unconditional.
        """
        if self.classes is None:
            if given is not None:
                raise UserError("label: this GAN was trained without classes (config.recipe.classes=None).")
            return None
        if given is None:
            return jnp.arange(count) % self.classes
        labels = jnp.asarray(given, jnp.int32)
        if labels.shape != (count,):
            raise UserError(
                f"label: expected one for each of {number_of(count, 'image')}, not an array {labels.shape}."
            )
        if not isinstance(labels, jax.core.Tracer):  # in an exported program, values are not known yet
            unknown = np.asarray(labels)[(labels < 0) | (labels >= self.classes)]
            if unknown.size:
                raise UserError(f"label={unknown[0]}: the classes of this GAN are 0 to {self.classes - 1}.")
        return labels

    @functools.partial(jax.jit, static_argnums=0)
    def figures(self, key: Key[Array, ""], state: State) -> dict[str, Images]:
        """Returns samples and interpolations, and for a conditional GAN the same latents in each class."""
        sample_key, start_key, end_key, class_key = jax.random.split(key, 4)
        average, count = variables(state, "generator"), GRID**2
        samples, raw = self.generate_both(state, self.draw_latents(sample_key, count), self.class_labels(None, count))
        start, end = self.draw_latents(start_key, GRID), self.draw_latents(end_key, GRID)
        paths = interpolate(self.prior, start, end, GRID).reshape(count, -1)
        labels = None if self.classes is None else jnp.repeat(self.class_labels(None, GRID), GRID)
        figures = {"samples": samples, "raw_samples": raw, "interpolations": self.generate(average, paths, labels)}
        if self.classes is not None:  # a row per class, a column per latent
            shown = min(self.classes, 10)
            z, labels = jnp.tile(self.draw_latents(class_key, shown), (shown, 1)), jnp.repeat(jnp.arange(shown), shown)
            figures["classes"] = self.generate(average, z, labels)
        return figures

    @functools.partial(jax.jit, static_argnums=0)
    def generate_averaged(self, state: State, z: Latents, labels: Labels | None = None) -> Images:
        """Generates images with the averaged generator."""
        return self.generate(variables(state, "generator"), z, labels)
