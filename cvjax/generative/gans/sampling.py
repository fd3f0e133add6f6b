"""What every GAN shows and is judged by: samples of its averaged generator, from latents that stay the same.

Samples are compared by the measures of `cvjax.metrics`: FID after Heusel et al., GANs Trained by a Two Time-Scale
Update Rule, 2017 (arXiv:1706.08500). Interpolations of normal latents are spherical: White, Sampling Generative
Networks, 2016 (arXiv:1609.04468).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from cvjax.core import State, variables
from cvjax.errors import UserError
from cvjax.metrics import digits, generative

Latents = Float[Array, "count latent"]
Images = Float[Array, "count height width channels"]
Labels = Int[Array, " count"]

Prior = Literal["uniform", "normal"]
Measure = Literal["digits", "pixels"]
GRID = 8  # rows and columns of a figure
SEEN = 0.01  # share of the samples from which a class counts as generated


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


def pixel_measures(
    samples: Float[np.ndarray, "samples height width channels"], real: Float[np.ndarray, "images height width channels"]
) -> dict[str, float]:
    """Measures samples of any images without a trained network: a coarse check, not comparable with published figures.

    Args:
      samples: generated images in [0, 1].
      real: held-out real images in [0, 1].

    Returns:
      `fid`: Fréchet distance of 8 x 8 thumbnails; `fid_over_noise`: over that of uniform noise.
    """
    reference = generative.thumbnails(real)
    noise = np.random.default_rng(0).uniform(size=samples.shape)
    fid = generative.fid(generative.thumbnails(samples), reference)
    return {"fid": fid, "fid_over_noise": fid / generative.fid(generative.thumbnails(noise), reference)}


def class_measures(
    samples: Float[np.ndarray, "samples 8 8 1"], labels: Int[np.ndarray, " samples"] | None = None
) -> dict[str, float]:
    """Measures which digits the samples are, by the frozen classifier.

    Args:
      samples: generated digits in [0, 1].
      labels: the classes that they were made for, if for any.

    Returns:
      `classes_seen`: how many of the ten classes have at least 1 % of the samples. `class_accuracy`: share of the
      samples that are of the class they were made for.
    """
    probabilities = digits.features(samples)[1]
    figures = {"classes_seen": float((generative.class_shares(probabilities) >= SEEN).sum())}
    if labels is not None:
        figures["class_accuracy"] = float((probabilities.argmax(axis=1) == labels).mean())
    return figures


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws latents and makes images of them, by the generator's average and by the generator itself.

    Attributes:
      generator: (latents, labels or None) -> images in [0, 1].
      shape: height, width, channels of the images.
      latent: dimensions of z.
      prior: "uniform" in [-1, 1], or "normal".
      classes: how many a conditional generator has; None: it has no labels.
      measure: "digits": by the frozen classifier of 8 x 8 digits; "pixels": by thumbnails of any images.
      per_example: samples judged for each image of the evaluation split.
    """

    generator: nn.Module
    shape: tuple[int, int, int]
    latent: int
    prior: Prior = "uniform"
    classes: int | None = None
    measure: Measure = "pixels"
    per_example: int = 2

    def __post_init__(self):
        """Refuses to judge by a classifier of digits what is none."""
        if self.measure == "digits" and tuple(self.shape) != (8, 8, 1):
            raise UserError(f'config.recipe.measure="digits" judges 8 x 8 grey images, not {tuple(self.shape)}.')

    def draw(self, key: Key[Array, ""], count: int) -> Latents:
        """Draws latents from the prior."""
        if self.prior == "normal":
            return jax.random.normal(key, (count, self.latent))
        return jax.random.uniform(key, (count, self.latent), minval=-1.0, maxval=1.0)

    def generate(self, variables: Mapping[str, Any], z: Latents, labels: Labels | None = None) -> Images:
        """Makes images as after training, with running statistics."""
        return self.generator.apply(variables, z, labels)

    def generate_both(self, state: State, z: Latents, labels: Labels | None = None) -> tuple[Images, Images]:
        """Makes images of the same latents by the averaged generator and by the raw one."""
        average, raw = variables(state, "generator"), variables(state, "generator", averaged=False)
        return self.generate(average, z, labels), self.generate(raw, z, labels)

    def in_turn(self, count: int) -> Labels | None:
        """Lists the classes one after the other, over and over; None where there are none."""
        return None if self.classes is None else jnp.arange(count) % self.classes

    def given_labels(self, labels: Any, count: int) -> Labels | None:
        """Checks labels that the user gives for images.

        Raises:
          UserError: the GAN has no classes, or not these, or there is not one label an image.
        """
        if labels is None:
            return None
        if self.classes is None:
            raise UserError("label: this GAN was trained without classes (config.recipe.classes=None).")
        labels = np.asarray(labels)
        if labels.shape != (count,):
            raise UserError(f"label: expected one for each of the {count} images, not an array {labels.shape}.")
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if wrong.size:
            raise UserError(f"label={wrong[0]}: this GAN's classes are 0 to {self.classes - 1}.")
        return jnp.asarray(labels, jnp.int32)

    def judged(
        self, key: Key[Array, ""], state: State, batch: Mapping[str, Shaped[Array, "..."]]
    ) -> dict[str, Float[Array, "rows per_example height width channels"]]:
        """Makes samples for each example, of its class where there are classes."""
        rows = len(batch["image"])
        labels = None if self.classes is None else jnp.repeat(batch["label"], self.per_example)
        averaged, raw = self.generate_both(state, self.draw(key, rows * self.per_example), labels)
        split = (rows, self.per_example, *self.shape)
        return {"samples": averaged.reshape(split), "raw_samples": raw.reshape(split)}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Judges the samples of both generators, and averages what else there is for each example."""
        rows = list(rows)
        real = np.concatenate([batch["image"] for batch, _ in rows])
        columns = {name: np.concatenate([outputs[name] for _, outputs in rows]) for name in rows[0][1]}
        samples, raw = (columns.pop(name).reshape(-1, *self.shape) for name in ("samples", "raw_samples"))
        figures = {name: float(values.mean(dtype=np.float64)) for name, values in columns.items()}
        if self.measure == "digits":
            labels = None
            if self.classes is not None:
                labels = np.repeat(np.concatenate([batch["label"] for batch, _ in rows]), self.per_example)
            figures |= digits.evaluate(samples) | class_measures(samples, labels)
            raw_fid = digits.evaluate(raw)["fid"]
        else:
            figures |= pixel_measures(samples, real)
            raw_fid = pixel_measures(raw, real)["fid"]
        return {**figures, "raw_fid": raw_fid, "fid_over_raw": figures["fid"] / raw_fid}

    @functools.partial(jax.jit, static_argnums=0)
    def figures(self, key: Key[Array, ""], state: State) -> dict[str, Images]:
        """Draws grids of `GRID` rows; the same key gives the same latents at every step."""
        sample_key, start_key, end_key, class_key = jax.random.split(key, 4)
        average, count = variables(state, "generator"), GRID**2
        samples, raw = self.generate_both(state, self.draw(sample_key, count), self.in_turn(count))
        start, end = self.draw(start_key, GRID), self.draw(end_key, GRID)
        paths = interpolate(self.prior, start, end, GRID).reshape(count, -1)
        labels = None if self.classes is None else jnp.repeat(self.in_turn(GRID), GRID)
        figures = {"samples": samples, "raw_samples": raw, "interpolations": self.generate(average, paths, labels)}
        if self.classes is not None:  # a row a class, a column a latent
            shown = min(self.classes, 10)
            z, labels = jnp.tile(self.draw(class_key, shown), (shown, 1)), jnp.repeat(jnp.arange(shown), shown)
            figures["classes"] = self.generate(average, z, labels)
        if self.measure == "digits":  # each sample with the training digit that is most like it to its right
            pairs = jnp.stack([samples[: count // 2], digits.nearest(samples[: count // 2])], axis=1)
            figures["nearest"] = pairs.reshape(count, *self.shape)
        return figures

    @functools.partial(jax.jit, static_argnums=0)
    def make(self, state: State, z: Latents, labels: Labels | None = None) -> Images:
        """Makes images by the averaged generator, compiled."""
        return self.generate(variables(state, "generator"), z, labels)
