"""Low-resolution images made from high-resolution ones: blurred, shrunk, with noise and JPEG's losses, in 8 bits.

The field's standard is the antialiased bicubic kernel alone, MATLAB's `imresize`: Timofte et al., NTIRE 2017 Challenge
on Single Image Super-Resolution, CVPR Workshops 2017, section 2. Everything is arithmetic on the device, JPEG too, so
that a dataset is of high-resolution pictures alone, and every step and every evaluation degrades them by its own key.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax.errors import UserError
from cvjax.ops.jpeg import compress
from cvjax.ops.resampling import resize, symmetric_indices
from cvjax.signature import NonNegative

Images = Float[Array, "batch height width channels"]
Smaller = Float[Array, "batch rows columns channels"]
Interval = tuple[NonNegative, NonNegative]

LEVELS = 255
REACH = 3  # standard deviations at which a Gaussian is cut off


@dataclasses.dataclass(frozen=True)
class Degradation:
    """What befalls images besides bicubic shrinking; each image's strengths are drawn uniformly from (least, most).

    Attributes:
      blur: standard deviation, in pixels of the high-resolution image, of a Gaussian that blurs it first.
      noise: standard deviation of Gaussian noise that is added to the small image, whose values are in [0, 1].
      jpeg: quality, from 1 to 100, of JPEG with colours of half the size, at the end; (0, 0): none.
    """

    blur: Interval = (0.0, 0.0)
    noise: Interval = (0.0, 0.0)
    jpeg: Interval = (0.0, 0.0)

    def check(self) -> None:
        """Raises a UserError for intervals that end before they begin, and for impossible qualities."""
        for name in ("blur", "noise", "jpeg"):
            least, most = getattr(self, name)
            if least > most:
                raise UserError(f"config.recipe.degradation.{name}={(least, most)}: the least comes first.")
        if self.jpeg != (0, 0) and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise UserError(f"config.recipe.degradation.jpeg={self.jpeg}: qualities are from 1 to 100; (0, 0) is none.")


BICUBIC = Degradation()  # the standard


def fit_factor(images: Images, scale: int) -> Smaller:
    """Returns images whose sides are multiples of `scale`: rows below and columns on the right are cut off."""
    height, width = (side // scale * scale for side in images.shape[1:3])
    return images[:, :height, :width]


def degrade(key: Key[Array, ""], images: Images, scale: int, degradation: Degradation = BICUBIC) -> Smaller:
    """Returns images `scale` times smaller, in [0, 1], rounded to 256 levels as in a file.

    Raises a UserError if the sides are not multiples of `scale`.
    """
    height, width = images.shape[1:3]
    if height % scale or width % scale or not height or not width:
        raise UserError(f"images of {height}x{width} cannot be made {scale} times smaller; crop them first.")
    blur_key, noise_key, strength_key, jpeg_key = jax.random.split(key, 4)

    def draw(key, interval):
        return jax.random.uniform(key, (len(images),), minval=interval[0], maxval=interval[1])

    if degradation.blur[1] > 0:
        reach = math.ceil(REACH * degradation.blur[1])
        images = gaussian_blur(images, draw(blur_key, degradation.blur), reach)
    low = resize(images, (height // scale, width // scale))
    if degradation.noise[1] > 0:
        strengths = draw(strength_key, degradation.noise)
        low += strengths[:, None, None, None] * jax.random.normal(noise_key, low.shape)
    if degradation.jpeg[1] > 0:
        low = jax.vmap(compress)(low, draw(jpeg_key, degradation.jpeg))
    return jnp.round(jnp.clip(low, 0, 1) * LEVELS) / LEVELS


def gaussian_blur(images: Images, deviations: Float[Array, " batch"], reach: int) -> Images:
    """Returns each image blurred by a Gaussian of its own deviation in pixels; borders are mirrored.

    Args:
      reach: pixels to either side that are summed.
    """
    offsets = jnp.arange(-reach, reach + 1)
    weights = jnp.exp(-((offsets / jnp.maximum(deviations, 1e-3)[:, None]) ** 2) / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        places = jnp.arange(images.shape[axis])
        moved = (
            weights[:, tap, None, None, None] * jnp.take(images, symmetric_indices(places + offset, places.size), axis)
            for tap, offset in enumerate(range(-reach, reach + 1))
        )
        images = sum(moved)
    return images
