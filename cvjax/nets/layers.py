"""Convolution layers with torch's padding, over the fast convolutions of `cvjax.ops.convolution`.

Padding is given in numbers: `padding=1` is one pixel of zeros on every side, at any stride, and the kernel of a torch
layer fits after a permutation of its axes (see each layer). Kernels are drawn as Flax draws them.
"""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, DTypeLike, Float

from cvjax.ops import convolution
from cvjax.ops.convolution import Padding, Size


class Conv(nn.Module):
    """Convolution: `Conv(64, 3, padding=1)` keeps a size, `Conv(64, 4, stride=2, padding=1)` halves it.

    Parameters: `kernel` [kh, kw, channels / groups, features], torch's `weight.permute(2, 3, 1, 0)`; `bias` [features].

    Attributes:
      kernel, stride, padding, dilation, groups, precision: as in `cvjax.ops.convolution.conv`; the kernel's size is one
        number for both axes or (vertical, horizontal).
      kernel_init: draws the kernel; by default normal of variance 1 / (kh * kw * channels / groups), truncated.
      dtype: of the computation, by default that of the input and the parameters together.
    """

    features: int
    kernel: Size
    stride: Size = 1
    padding: Padding = 0
    dilation: Size = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"
    precision: object = None

    @nn.compact
    def __call__(self, x: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch rows columns features"]:
        """Convolves images; see `cvjax.ops.convolution.conv`."""
        x, kernel, bias = _parameters(self, x)
        y = convolution.conv(
            x,
            kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            precision=self.precision,
        )
        return y if bias is None else y + bias


class ConvTranspose(nn.Module):
    """Transposed convolution, torch's `ConvTranspose2d`: undoes the change of size of a `Conv` with the same arguments.

    `ConvTranspose(64, 4, stride=2, padding=1)` and `ConvTranspose(64, 3, stride=2, padding=1, output_padding=1)` double
    a size exactly; `ConvTranspose(64, 4)` makes a 4x4 image of a 1x1 latent.

    Parameters: `kernel` [kh, kw, channels / groups, features], torch's `weight.permute(2, 3, 0, 1)` where groups = 1;
    `bias` [features].

    Attributes:
      stride, padding, output_padding: as in `cvjax.ops.convolution.conv_transpose`; all others as in `Conv`.
    """

    features: int
    kernel: Size
    stride: Size = 1
    padding: Padding = 0
    output_padding: Size = 0
    dilation: Size = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = "float32"
    precision: object = None

    @nn.compact
    def __call__(self, y: Float[Array, "*batch rows columns channels"]) -> Float[Array, "*batch height width features"]:
        """Stamps kernels on a larger image; see `cvjax.ops.convolution.conv_transpose`."""
        y, kernel, bias = _parameters(self, y)
        x = convolution.conv_transpose(
            y,
            kernel,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
            precision=self.precision,
        )
        return x if bias is None else x + bias


def _parameters(layer: Conv | ConvTranspose, x: Array) -> tuple[Array, Array, Array | None]:
    """The input, the kernel and the bias (or None) of a layer, in the dtype of the computation."""
    size = (layer.kernel, layer.kernel) if isinstance(layer.kernel, int) else tuple(layer.kernel)
    # Groups that do not fit are reported by the convolution: until then, any shape will do.
    shape = (*size, max(x.shape[-1] // max(layer.groups, 1), 1), layer.features)
    kernel = layer.param("kernel", layer.kernel_init, shape, layer.param_dtype)
    bias = layer.param("bias", layer.bias_init, (layer.features,), layer.param_dtype) if layer.use_bias else None
    return tuple(nn.dtypes.promote_dtype(x, kernel, bias, dtype=layer.dtype))
