"""Projections onto a ball around an image and onto the box of its values, exact in float32.

Projected gradient descent: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018
(arXiv:1706.06083), section 2.1. First the ball, then the box: an image is in its box, so clipping brings every pixel
nearer to it, and the result stays in the ball.

A sum of two float32 numbers is rounded, so `images + epsilon` may be half a unit in the last place too far away. Bounds
here are rounded inwards, and the differences between an image and its projection, computed without rounding, keep to
epsilon.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Images = Float[Array, "batch height width channels"]
Scalar = float | Float[Array, ""]
HALF_UNIT = 2.0**-24  # largest relative error of a rounded float32 operation


def bounds(images: Images, epsilon: Scalar, lower: float = 0.0, upper: float = 1.0) -> tuple[Images, Images]:
    """Returns the least and the largest value of each pixel within epsilon of images and in [lower, upper]."""
    images = jax.lax.stop_gradient(images)
    least = jnp.minimum(jnp.nextafter(images - epsilon, jnp.full_like(images, jnp.inf)), images)
    largest = jnp.maximum(jnp.nextafter(images + epsilon, jnp.full_like(images, -jnp.inf)), images)
    return jnp.clip(least, lower, upper), jnp.clip(largest, lower, upper)


def project_linf(moved: Images, images: Images, epsilon: Scalar, lower: float = 0.0, upper: float = 1.0) -> Images:
    """Returns moved images, each pixel no further than epsilon from that of `images`, and in [lower, upper].

    The gradient is that of a step of a constant length: it passes to `images`, except where the box clips.
    """
    least, largest = bounds(images, epsilon, -jnp.inf, jnp.inf)
    inside = jax.lax.stop_gradient(jnp.clip(moved, least, largest))
    return jnp.clip(inside + (images - jax.lax.stop_gradient(images)), lower, upper)  # the difference is 0


def project_l2(moved: Images, images: Images, epsilon: Scalar, lower: float = 0.0, upper: float = 1.0) -> Images:
    """Returns moved images, drawn back to within a Euclidean distance of epsilon of `images`, then to [lower, upper].

    The radius is smaller by what roundings can add up to: about 1e-6 of it for an image of 8 x 8 pixels.
    """
    change, shape = moved - images, images.shape[1:]
    relative = (sum(shape) + 8) * HALF_UNIT  # of sums over one axis after the other, and of the products
    absolute = 2 * max(abs(lower), abs(upper)) * HALF_UNIT * math.sqrt(math.prod(shape))  # of `images + change`
    radius = jnp.maximum(epsilon * (1 - relative) - absolute, 0)
    lengths = norms(change)
    scale = jnp.where(lengths > radius, radius / jnp.maximum(lengths, jnp.finfo(jnp.float32).tiny), 1)
    return jnp.clip(images + change * scale, lower, upper)


def norms(changes: Images) -> Float[Array, "batch 1 1 1"]:
    """Returns the Euclidean norms, summed over one axis after the other, which bounds their rounding error."""
    squares = jnp.square(changes)
    for axis in (3, 2, 1):  # XLA would join the sums if it were let
        squares = jax.lax.optimization_barrier(squares.sum(axis=axis, keepdims=True))
    return jnp.sqrt(squares)


def unit(changes: Images) -> Images:
    """Returns changes divided by their Euclidean norms; 0 stays 0."""
    # The squares of a sure classifier's gradients would vanish.
    largest = jnp.abs(changes).max(axis=(1, 2, 3), keepdims=True)
    changes = changes / jnp.where(largest > 0, largest, 1)
    return changes / jnp.maximum(norms(changes), 1e-12)
