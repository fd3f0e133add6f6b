"""Colourisation: pix2pix from the lightness of pictures to their colours, in CIE's L*a*b*.

Isola, Zhu, Zhou & Efros, Image-to-Image Translation with Conditional Adversarial Networks, 2017 (arXiv:1611.07004),
section 4.2, after Zhang, Isola & Efros, Colorful Image Colorization, 2016 (arXiv:1603.08511).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State
from cvjax.errors import UserError
from cvjax.nets.patch_gan import Field, PatchGAN
from cvjax.signature import Count, NonNegative, Share
from cvjax.translation.colours import from_lab, to_lab
from cvjax.translation.pix2pix import (
    LARGEST,
    Images,
    Painted,
    Pix2Pix,
    Sources,
    TestMode,
    UNetGenerator,
    check_objective,
)

BINS = 20  # of lightness, each 5 of its 100 units wide
REACH = 110.0  # the generator's 1 in units of a and b: sRGB has a from -86 to 98 and b from -108 to 94


class Colourisation(Pix2Pix):
    """The recipe's functions. Sources are lightness, and targets are a and b, in [-1, 1]."""

    def check(self, batch: Batch) -> None:
        """Raises a UserError if a batch's images are not in colour."""
        channels = batch["image"].shape[-1]
        if channels != 3:
            raise UserError(f"colourisation learns from pictures in colour; these have {channels} channel.")

    def source(self, images: Images) -> Sources:
        """Returns the lightness of pictures, grey or in colour."""
        return to_lab(jnp.broadcast_to(images, (*images.shape[:3], 3)))[..., :1] / 50 - 1

    def target(self, batch: Batch) -> Images:
        """Returns the colours of pictures."""
        return to_lab(batch["image"])[..., 1:] / REACH

    def truth(self, batch: Batch) -> Shaped[Array | np.ndarray, "batch height width channels"]:
        """Returns the pictures."""
        return batch["image"]

    def pictures(self, source: Sources, made: Images) -> Painted:
        """Returns pictures of a lightness, exactly, and of colours, their chroma reduced to what a screen has."""
        return from_lab(jnp.concatenate([50 * (source + 1), REACH * made], axis=-1))

    def seen(self, images: Images) -> Painted:
        """Returns pictures without their colours."""
        source = self.source(images)
        return self.pictures(source, jnp.zeros((*source.shape[:3], 2)))

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their optimisers and the colours of the pictures seen in training."""
        return super().init(key, batch).replace(extra={"colours": jnp.zeros((BINS, 3)), "seen": jnp.float32(0)})

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step of pix2pix, and updates the mean colours of each lightness, which are those of all batches."""
        after, metrics = super().train_step(state, batch, key)
        seen, colours = state.extra["seen"] + 1, state.extra["colours"]
        colours += (tabulate(self.source(batch["image"]), self.target(batch)) - colours) / seen
        return after.replace(extra={"colours": colours, "seen": seen}), metrics

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Colours the images, and measures that beside the mean colours of training, of all and of each lightness."""
        images, colours, source = batch["image"], state.extra["colours"], self.source(batch["image"])
        outputs = super().eval_step(state, batch, key)
        mean = jnp.broadcast_to(colours[:, 1:].sum(axis=0), (*source.shape[:3], 2))
        painted = {"": outputs["image"], "_of_mean": self.pictures(source, mean)}
        painted["_of_lightness"] = self.pictures(source, look_up(colours, source))
        return outputs | {f"chroma_error{of}": chroma_error(picture, images) for of, picture in painted.items()}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        found = {"chroma_error": [], "chroma_error_of_mean": [], "chroma_error_of_lightness": []}

        def noted():
            for batch, outputs in rows:
                for name, values in found.items():
                    values.append(outputs[name])
                yield batch, outputs

        figures = super().score(noted())
        errors = {name: float(np.concatenate(values).mean(dtype=np.float64)) for name, values in found.items()}
        for control in ("mean", "lightness"):
            ratio = errors["chroma_error"] / max(errors[f"chroma_error_of_{control}"], 1e-6)
            figures[f"chroma_over_{control}"] = ratio
        return figures | errors


def tabulate(source: Sources, colours: Images) -> Float[Array, "bins 3"]:
    """Returns, of each bin of lightness in [-1, 1], the share of pixels and the sums of a and b over all pixels."""
    ones = jnp.ones_like(source)
    terms = jnp.concatenate([ones, colours], axis=-1).reshape(-1, 3)
    members = jax.nn.one_hot(_bins(source).ravel(), BINS)
    return jnp.einsum("nb,nt->bt", members, terms, precision="highest") / len(terms)


def look_up(table: Float[Array, "bins 3"], source: Sources) -> Images:
    """Returns the mean colours of each pixel's lightness; bins without a pixel have the mean of all."""
    share, sums = table[:, :1], table[:, 1:]
    means = jnp.where(share > 0, sums / jnp.where(share > 0, share, 1), sums.sum(axis=0))
    return means[_bins(source)]


def _bins(source: Sources) -> Int[Array, "batch height width"]:
    return jnp.clip((source[..., 0] + 1) * BINS / 2, 0, BINS - 1).astype(jnp.int32)


def chroma_error(images: Images, truth: Images) -> Float[Array, " batch"]:
    """Returns the mean distance in a and b of each image's pixels to the truth's, in units of L*a*b*."""
    return jnp.linalg.norm((to_lab(images) - to_lab(truth))[..., 1:], axis=-1).mean(axis=(1, 2))


def recipe(
    depth: Count = 8,
    width: Count = 64,
    dropout: Share = 0.5,
    resize: bool = False,
    field: Field = 70,
    discriminator_width: Count = 64,
    conditional: bool = True,
    adversarial: NonNegative = 1.0,
    l1: NonNegative = 100.0,
    test_mode: TestMode = "published",
    largest: Count = LARGEST,
    generator_optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5},
    discriminator_optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5},
) -> Recipe:
    """Makes colourisation by pix2pix. It learns from pictures in colour, and colours grey ones or any others again.

    The generator's tanh spans a and b from -110 to 110, which holds the gamut of sRGB. Pictures keep the given
    lightness exactly; colours that a screen lacks at it have their chroma reduced.

    Args:
      depth: how often the generator halves: 8 for 256 pixels, 7 for 128. Sides of images are multiples of 2^depth.
      width: channels of the generator's first level.
      dropout: share of the features dropped in the generator's decoder.
      resize: the generator doubles by nearest neighbours and convolutions, against checkerboards.
      field: side in pixels of the patches that the discriminator judges.
      discriminator_width: channels of the discriminator's first layer.
      conditional: the discriminator sees the lightness beside the colours.
      adversarial: weight of the generator's adversarial loss; 0 trains no discriminator.
      l1: weight of the absolute difference of a and b, over 110.
      test_mode: "published" normalises each image by its own statistics, as a batch of one, and keeps the dropout on;
        "running" has the statistics of training and no dropout. Either way no image changes another one's colours.
      largest: pixels of a picture that `apply` puts through the generator whole; a larger one goes in tiles or, in the
        published test, is refused.
      generator_optimiser, discriminator_optimiser: as `cvjax.optim.build` takes them.

    Returns:
      The recipe. Figures of held-out pictures: those of `pix2pix`; chroma_error, the mean distance in a and b;
      chroma_error_of_mean, that of the mean colour of the training pictures; chroma_error_of_lightness, that of their
      mean colour at each of 20 bins of a pixel's lightness; chroma_over_mean and chroma_over_lightness, the ratios to
      these. Below 1, the first shows that lightness tells of the colour, which is so without recognising anything;
      only the second that what is around a pixel does.
    """
    check_objective(adversarial, l1)
    generator = UNetGenerator(depth, width, 2, dropout, resize)
    optimisers = optim.build(generator_optimiser), optim.build(discriminator_optimiser)
    discriminator = PatchGAN(field, discriminator_width)
    options = dict(recoloured=False, largest=largest)
    return Recipe.of(
        Colourisation(generator, discriminator, adversarial, l1, conditional, test_mode, *optimisers, **options)
    )
