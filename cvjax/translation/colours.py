"""Colours apart from lightness: matched or kept in style transfer, and CIE's L*a*b*, in which pictures are coloured.

Gatys, Bethge, Hertzmann & Shechtman, Preserving Color in Neural Artistic Style Transfer, 2016 (arXiv:1606.05897);
sRGB as in IEC 61966-2-1, 1999, and L*a*b* as in CIE 15, 2004.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Image = Float[Array, "height width 3"]
Style = Float[Array, "rows columns 3"]

# NTSC's YIQ of red, green and blue, the paper's space: lightness and two axes of colour.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
# CIE's XYZ of linear red, green and blue of sRGB. White is what the rows sum to, so that grey has no chroma at all.
XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
BEND = 6 / 29  # of L*a*b*'s cube root, which is a line below the cube of this
HALVINGS = 12  # of the chroma's bounds in `from_lab`
SLACK = 1e-5  # by which linear colours may be outside of [0, 1]
SMALL = 1e-5  # added to variances of colours, which are 0 in grey pictures, and to the deviation of luminance


def to_yiq(image: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Returns luminance and two chrominances of RGB pictures."""
    return image @ jnp.array(YIQ).T


def from_yiq(image: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Returns the RGB pictures of `to_yiq`; colours that a screen lacks are outside of [0, 1]."""
    return image @ jnp.linalg.inv(jnp.array(YIQ)).T


def match_colours(style: Style, content: Image, method: Literal["symmetric", "cholesky"] = "symmetric") -> Style:
    """Returns the style's picture with the mean and the covariance of the content's colours, not clipped.

    The paper's "color histogram matching": the linear map A x + b of colours with A S A^T = C, for the covariances S of
    the style and C of the content.
    "symmetric" takes the square roots C^(1/2) S^(-1/2), which the paper prefers; "cholesky" the triangular factors.
    """
    (style_mean, style_spread), (mean, spread) = (_moments(picture) for picture in (style, content))
    if method == "symmetric":
        matrix = _power(spread, 0.5) @ _power(style_spread, -0.5)
    else:
        matrix = jnp.linalg.cholesky(spread) @ jnp.linalg.inv(jnp.linalg.cholesky(style_spread))
    return (style - style_mean) @ matrix.T + mean


def match_luminance(
    style: Float[Array, "rows columns 1"], content: Float[Array, "height width 1"]
) -> Float[Array, "rows columns 1"]:
    """Returns the style's luminance with the mean and the deviation of the content's, not clipped.

    A step of the paper's "luminance-only transfer".
    """
    return content.std() * (style - style.mean()) / (style.std() + SMALL) + content.mean()


def with_colours_of(luminance: Float[Array, "height width 1"], content: Image) -> Image:
    """Returns a picture with this luminance and the content's chrominances, clipped to [0, 1]."""
    return jnp.clip(from_yiq(jnp.concatenate([luminance, to_yiq(content)[..., 1:]], axis=-1)), 0, 1)


def to_lab(images: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Returns L in [0, 100], a in [-86.2, 98.3] and b in [-107.9, 94.5] of RGB pictures in [0, 1]."""
    linear = jnp.where(images > 0.04045, ((jnp.maximum(images, 0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92)
    x, y, z = jnp.moveaxis(_mapped(np.array(XYZ) / np.sum(XYZ, axis=1, keepdims=True), linear), -1, 0)
    x, y, z = (jnp.where(t > BEND**3, jnp.cbrt(jnp.maximum(t, BEND**3)), t / (3 * BEND**2) + 4 / 29) for t in (x, y, z))
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def from_lab(lab: Float[Array, "*batch height width 3"]) -> Float[Array, "*batch height width 3"]:
    """Returns the RGB pictures of `to_lab`, with the given L exactly.

    A colour that a screen lacks keeps its hue too, and gets the largest chroma at which the screen has it, to within
    1 / 4096 of its own.
    """
    lightness, chroma = lab[..., :1], lab[..., 1:]

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        linear = _to_linear(lightness, middle * chroma)
        there = (linear.min(axis=-1, keepdims=True) >= -SLACK) & (linear.max(axis=-1, keepdims=True) <= 1 + SLACK)
        return jnp.where(there, middle, low), jnp.where(there, high, middle)

    # The first middle is 1: what a screen has keeps its chroma.
    bounds = jnp.zeros_like(lightness), jnp.full_like(lightness, 2)
    share, _ = jax.lax.fori_loop(0, HALVINGS + 1, halve, bounds)
    linear = jnp.clip(_to_linear(lightness, jnp.minimum(share, 1) * chroma), 0, 1)
    bright = jnp.maximum(linear, 0.0031308)
    return jnp.clip(jnp.where(linear > 0.0031308, 1.055 * bright ** (1 / 2.4) - 0.055, 12.92 * linear), 0, 1)


def _to_linear(lightness: Float[Array, "*batch 1"], chroma: Float[Array, "*batch 2"]) -> Float[Array, "*batch 3"]:
    """Linear red, green and blue of L*a*b*, outside of [0, 1] where a screen lacks the colour."""
    y = (lightness[..., 0] + 16) / 116
    bent = jnp.stack([y + chroma[..., 0] / 500, y, y - chroma[..., 1] / 200], axis=-1)
    xyz = jnp.where(bent > BEND, bent**3, 3 * BEND**2 * (bent - 4 / 29))
    return _mapped(np.linalg.inv(np.array(XYZ) / np.sum(XYZ, axis=1, keepdims=True)), xyz)


def _mapped(matrix: Float[np.ndarray, "3 3"], colours: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """A matrix times colours, without the few digits of an accelerator's matrix products."""
    return sum(colours[..., index, None] * jnp.asarray(matrix[:, index], colours.dtype) for index in range(3))


def _moments(image: Float[Array, "_ _ 3"]) -> tuple[Float[Array, " 3"], Float[Array, "3 3"]]:
    """The mean and the covariance of a picture's colours."""
    pixels = image.reshape(-1, image.shape[-1])
    mean = pixels.mean(axis=0)
    return mean, (pixels - mean).T @ (pixels - mean) / len(pixels) + SMALL * jnp.eye(image.shape[-1])


def _power(matrix: Float[Array, "n n"], exponent: float) -> Float[Array, "n n"]:
    """A power of a symmetric positive matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.maximum(values, SMALL / 2) ** exponent) @ vectors.T
