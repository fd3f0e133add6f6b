"""Colours kept in style transfer: the style's colours matched to the content's, or only lightness transferred.

Gatys, Bethge, Hertzmann & Shechtman, Preserving Color in Neural Artistic Style Transfer, 2016 (arXiv:1606.05897).
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Image = Float[Array, "height width 3"]
Style = Float[Array, "rows columns 3"]

# NTSC's YIQ of red, green and blue, the paper's space: lightness and two axes of colour.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
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


def _moments(image: Float[Array, "_ _ 3"]) -> tuple[Float[Array, " 3"], Float[Array, "3 3"]]:
    """The mean and the covariance of a picture's colours."""
    pixels = image.reshape(-1, image.shape[-1])
    mean = pixels.mean(axis=0)
    return mean, (pixels - mean).T @ (pixels - mean) / len(pixels) + SMALL * jnp.eye(image.shape[-1])


def _power(matrix: Float[Array, "n n"], exponent: float) -> Float[Array, "n n"]:
    """A power of a symmetric positive matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.maximum(values, SMALL / 2) ** exponent) @ vectors.T
