"""How well a map says what a classifier looked at.

Deletion and insertion: Petsiuk et al., RISE, 2018 (arXiv:1806.07421), section 4.3. Pointing game: Zhang et al.,
Top-down Neural Attention by Excitation Backprop, 2016 (arXiv:1608.00507), section 4.2. Rank correlation of maps before
and after the weights are randomised: Adebayo et al., Sanity Checks for Saliency Maps, 2018 (arXiv:1810.03292), section
4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from cvjax.signature import Count

Images = Float[Array, "batch height width channels"]
Maps = Float[Array, "batch height width"]
Boxes = Float[Array, "batch 4"]
PerImage = Float[Array, " batch"]


def replacement_curve(
    score_fn: Callable[[Images], PerImage], start: Images, end: Images, maps: Maps, steps: Count = 32
) -> Float[Array, "batch points"]:
    """Returns the scores while pixels of `start` turn into those of `end`, the highest of the map first.

    There are steps + 1 points, from none of the pixels to all of them, an equal share at each step. Of pixels with the
    same value, the first in reading order comes first.

    Args:
      score_fn: images -> the score of each, such as the probability of its class.
    """
    count = maps[0].size
    order = jnp.argsort(-maps.reshape(len(maps), count), axis=1, stable=True)
    place = jnp.argsort(order, axis=1).reshape(maps.shape)  # of each pixel in that order

    def score(share: Integer[Array, ""]) -> PerImage:
        return score_fn(jnp.where((place * steps < share * count)[..., None], end, start))

    return jax.lax.map(score, jnp.arange(steps + 1)).T


def deletion(
    score_fn: Callable[[Images], PerImage],
    images: Images,
    maps: Maps,
    baseline: float | Images = 0.0,
    steps: Count = 32,
) -> PerImage:
    """Returns the area below the scores while pixels are replaced by the baseline: low if the map is right.

    The area is that of straight lines between the points, over shares of pixels from 0 to 1.
    """
    return area(replacement_curve(score_fn, images, jnp.broadcast_to(baseline, images.shape), maps, steps))


def insertion(
    score_fn: Callable[[Images], PerImage],
    images: Images,
    maps: Maps,
    baseline: float | Images = 0.0,
    steps: Count = 32,
) -> PerImage:
    """Returns the area below the scores while pixels of the image replace the baseline: high if the map is right."""
    return area(replacement_curve(score_fn, jnp.broadcast_to(baseline, images.shape), images, maps, steps))


def area(curve: Float[Array, "batch points"]) -> PerImage:
    """Returns the area below curves over [0, 1] by the trapezoidal rule."""
    return ((curve[:, 1:] + curve[:, :-1]) / 2).mean(axis=1)


def inside(boxes: Boxes, height: int, width: int) -> Bool[Array, "batch height width"]:
    """Returns whether the centre of each pixel lies in a box."""
    x1, y1, x2, y2 = (side[:, None, None] for side in boxes.T)
    y, x = jnp.arange(height)[:, None] + 0.5, jnp.arange(width) + 0.5
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def points_inside(maps: Maps, boxes: Boxes, tolerance: float = 0.0) -> Bool[Array, " batch"]:
    """Returns whether the highest pixel of each map lies in its box: a hit of the pointing game.

    The game's tolerance in pixels, by which the box grows on every side, was 15 for photographs. Of several highest
    pixels, the first in reading order counts. A map without a highest pixel, which is constant, is no hit.
    """
    flat = maps.reshape(len(maps), -1)
    grown = boxes + tolerance * jnp.array([-1, -1, 1, 1])
    hit = jnp.take_along_axis(inside(grown, *maps.shape[1:]).reshape(flat.shape), flat.argmax(1)[:, None], axis=1)
    return hit[:, 0] & (flat.max(axis=1) > flat.min(axis=1))


def mass_inside(maps: Maps, boxes: Boxes) -> PerImage:
    """Returns the share of a map's positive values that lies in a box; 0 if it has none."""
    positive = jnp.maximum(maps, 0)
    total = positive.sum(axis=(1, 2))
    return (positive * inside(boxes, *maps.shape[1:])).sum(axis=(1, 2)) / jnp.where(total > 0, total, 1)


def rank_correlation(first: Maps, second: Maps) -> PerImage:
    """Returns Spearman's correlation of two maps of each image; 0 if one of them is constant.

    Equal values have the mean of their ranks.
    """
    ranks = [jax.vmap(_ranks)(maps.reshape(len(maps), -1)) for maps in (first, second)]
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    lengths = jnp.sqrt(jnp.prod(jnp.stack([(rank**2).sum(axis=1) for rank in centred]), axis=0))
    return (centred[0] * centred[1]).sum(axis=1) / jnp.where(lengths > 0, lengths, 1)


def _ranks(values: Float[Array, " values"]) -> Float[Array, " values"]:
    """Ranks in [0, 1], so that their squares do not leave float32's digits."""
    ordered = jnp.sort(values)
    both = jnp.searchsorted(ordered, values, "left") + jnp.searchsorted(ordered, values, "right") - 1
    return both / (2 * len(values))
