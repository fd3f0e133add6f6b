"""PatchGAN: a discriminator that judges every patch of an image by itself.

Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017 (arXiv:1611.07004), section 3.2.2
and appendix 6.1.2; CycleGAN's discriminators are the same with instance normalisation.
"""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.errors import UserError
from cvjax.nets.layers import Conv

Norm = Literal["batch", "instance", "none"]
Field = Literal[1, 16, 34, 70, 142, 286]  # sides of the patches, of 0 to 5 halvings

EPSILON = 1e-5
WIDEST = 8  # most channels, in multiples of the first layer's


def normalise(
    x: Float[Array, "batch height width channels"], norm: Norm, train: bool, name: str
) -> Float[Array, "batch height width channels"]:
    """Returns normalised features, inside a compact method, with the initial values of pix2pix and CycleGAN.

    "batch": with a scale drawn from N(1, .02) and a shift, and running statistics of momentum .9. "instance": each
    image's channels by themselves, without scale, shift and running statistics.
    """
    if norm == "batch":
        scale = lambda key, shape, dtype=jnp.float32: 1 + nn.initializers.normal(0.02)(key, shape, dtype)  # noqa: E731
        return nn.BatchNorm(not train, momentum=0.9, epsilon=EPSILON, scale_init=scale, name=name)(x)
    if norm == "instance":
        return nn.InstanceNorm(epsilon=EPSILON, use_bias=False, use_scale=False, name=name)(x)
    return x


class PatchGAN(nn.Module):
    """Returns a logit for each patch; nothing outside a patch changes its logit, except by the statistics of the norm.

    4x4 convolutions, `halvings` of stride 2 and two of stride 1, with leaky ReLUs of slope .2; a field of 1 pixel has
    three 1x1 convolutions. Kernels are drawn from N(0, .02).

    Attributes:
      field: side in pixels of a patch, the receptive field.
      features: channels of the first layer; each further one has twice as many, up to eight times.
      norm: between the first and the last layer. Convolutions under "batch" have no bias.
    """

    field: Field = 70
    features: int = 64
    norm: Norm = "batch"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch rows columns"]:
        """Judges images in [-1, 1], or pairs of images, one behind the other along the channels."""
        halvings = get_args(Field).index(self.field)
        kernel, padding = (4, 1) if halvings else (1, 0)
        options = dict(kernel=kernel, padding=padding, kernel_init=nn.initializers.normal(0.02))
        x = nn.leaky_relu(Conv(self.features, stride=2 if halvings else 1, **options, name="conv_0")(images), 0.2)
        for layer in range(1, max(1, halvings) + 1):
            stride = 2 if layer < halvings else 1
            width = self.features * min(2**layer, WIDEST)
            x = Conv(width, stride=stride, use_bias=self.norm != "batch", **options, name=f"conv_{layer}")(x)
            x = nn.leaky_relu(normalise(x, self.norm, train, name=f"norm_{layer}"), 0.2)
        return Conv(1, **options, name="logits")(x)[..., 0]


def check_field(field: int, size: tuple[int, int]) -> None:
    """Raises a UserError if images are too small for a PatchGAN to have a logit."""
    halvings = get_args(Field).index(field)
    smallest = 3 * 2**halvings if halvings else 1
    if min(size) < smallest:
        fields = ", ".join(map(str, get_args(Field)))
        raise UserError(
            f"config.recipe.field={field} needs images of at least {smallest}x{smallest}, not {size[0]}x{size[1]}: set "
            f"a smaller one of {fields}."
        )
