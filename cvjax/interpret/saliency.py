"""Maps of what a class's logit depends on, from gradients with respect to the image, and by occlusion.

All of them explain logits, before the softmax, whose other classes would change the map too. They take any function
of images, `logits_fn`, of which an image's logits may not depend on the other images.
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from cvjax.errors import UserError
from cvjax.interpret.gates import deconvnet, guided
from cvjax.signature import Count, Range

Images = Float[Array, "batch height width channels"]
Labels = Integer[Array, " batch"]
Logits = Float[Array, "batch classes"]
Maps = Float[Array, "batch height width"]
LogitsFn = Callable[[Images], Logits]
STEPS = Range(1, 1000)  # finding the points takes time with the cube of their number


def logit(logits_fn: LogitsFn, images: Images, labels: Labels) -> Float[Array, " batch"]:
    """Returns the logit that each image has for its label."""
    return jnp.take_along_axis(logits_fn(images), labels[:, None], axis=1)[:, 0]


def gradient(logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
    """Returns the gradient of the label's logit in each pixel and channel.

    Simonyan et al., Deep Inside Convolutional Networks, 2014 (arXiv:1312.6034), section 3.
    """
    return jax.grad(lambda images: logit(logits_fn, images, labels).sum())(images)


def saliency(logits_fn: LogitsFn, images: Images, labels: Labels) -> Maps:
    """Returns the largest absolute gradient of a pixel's channels (Simonyan et al., 2014, section 3.1)."""
    return jnp.abs(gradient(logits_fn, images, labels)).max(axis=-1)


def input_x_gradient(logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
    """Returns pixels times their gradients, which add up to the logit of a network without biases.

    Shrikumar et al., Not Just a Black Box, 2016 (arXiv:1605.01713), section 2.
    """
    return images * gradient(logits_fn, images, labels)


def guided_backpropagation(logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
    """Returns the gradient that ReLUs pass where it is positive and they were active, as `gates.guided` does.

    Springenberg et al., Striving for Simplicity, 2015 (arXiv:1412.6806). Like a deconvnet, it mostly recovers the
    image, and depends on the network less than the plain gradient does: Nie, Zhang & Patel, A Theoretical Explanation
    for Perplexing Behaviors of Backpropagation-based Visualizations, 2018 (arXiv:1805.07039).
    """
    return gradient(guided(logits_fn), images, labels)


def deconvolution(logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
    """Returns the gradient that ReLUs pass wherever it is positive, as `gates.deconvnet` does.

    Of equal maxima, such as zeros, all get a gradient from `cvjax.ops.pooling.max_pool`, where torch chooses one.
    Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv:1311.2901). It says little of the
    class: Nie et al., 2018 (arXiv:1805.07039).
    """
    return gradient(deconvnet(logits_fn), images, labels)


def smoothgrad(
    key: Key[Array, ""],
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    samples: Count = 25,
    noise: Annotated[float, Range(0)] = 0.15,
) -> Images:
    """Returns the mean gradient of noisy copies of each image.

    Smilkov et al., SmoothGrad: Removing Noise by Adding Noise, 2017 (arXiv:1706.03825), section 3.

    Args:
      samples: copies of each image.
      noise: standard deviation of the Gaussian noise, as a share of the range of the image's values.
    """
    deviation = noise * (images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3)))[:, None, None, None]

    def add(total: Images, key: Key[Array, ""]):
        noisy = images + deviation * jax.random.normal(key, images.shape)
        return total + gradient(logits_fn, noisy, labels), None

    return jax.lax.scan(add, jnp.zeros_like(images), jax.random.split(key, samples))[0] / samples


def integrated_gradients(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    baseline: float | Float[Array, "..."] = 0.0,
    steps: Annotated[int, STEPS] = 50,
) -> Images:
    """Returns the difference to the baseline times the mean gradient on the way from there.

    An image's attributions add up to the difference of its logit to that of the baseline, as exactly as the integral is
    computed: by the Gauss-Legendre rule, whose points are in the middle of the way and not at its ends. Sundararajan et
    al., Axiomatic Attribution for Deep Networks, 2017 (arXiv:1703.01365), equation 1. Without their signs, attributions
    show where the image differs from the baseline, whatever the network: Adebayo et al., 2018 (arXiv:1810.03292).

    Args:
      baseline: an image without information, such as black, or one for each image.
      steps: points of the rule.
    """
    if steps not in STEPS:
        raise UserError(f"integrated gradients: steps is {steps}; it must be {STEPS}.")
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    change = images - baseline

    def add(total: Images, point):
        position, weight = point
        return total + weight * gradient(logits_fn, baseline + position * change, labels), None

    rule = (jnp.float32((points + 1) / 2), jnp.float32(weights / 2))
    return change * jax.lax.scan(add, jnp.zeros_like(images), rule)[0]


def occlusion(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    window: Count = 16,
    stride: Count = 8,
    baseline: float | Float[Array, "..."] = 0.0,
) -> Maps:
    """Returns the mean fall of the logit over all squares of the baseline that hide a pixel.

    Zeiler & Fergus, 2014 (arXiv:1311.2901), section 4.2. Pixels that no square hides, if the stride is longer than the
    window, are 0.

    Args:
      window: side of the squares, of which those at the far borders are cut off.
      stride: distance of neighbouring squares.
      baseline: what they show, such as grey.
    """
    height, width = images.shape[1:3]
    before = logit(logits_fn, images, labels)
    corners = np.stack(np.meshgrid(*(_starts(size, window, stride) for size in (height, width)), indexing="ij"), -1)

    def hide(carry: tuple[Maps, Float[Array, "height width"]], corner: Integer[Array, "2"]):
        rows, columns = (jnp.arange(size) - start for size, start in zip((height, width), corner, strict=True))
        inside = ((rows >= 0) & (rows < window))[:, None] & ((columns >= 0) & (columns < window))
        after = logit(logits_fn, jnp.where(inside[..., None], baseline, images), labels)
        return (carry[0] + (before - after)[:, None, None] * inside, carry[1] + inside), None

    empty = (jnp.zeros(images.shape[:3]), jnp.zeros((height, width)))
    (total, count), _ = jax.lax.scan(hide, empty, jnp.asarray(corners.reshape(-1, 2)))
    return total / jnp.maximum(count, 1)


def _starts(size: int, window: int, stride: int) -> np.ndarray:
    """The first pixels of windows that reach to the end of an axis."""
    return np.arange(max(0, -(-(size - window) // stride)) + 1) * stride
