"""FCN and DeepLabv3 over an atrous ResNet, as torchvision publishes them.

Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015 (arXiv:1411.4038); Chen et al., Rethinking
Atrous Convolution for Semantic Image Segmentation, 2017 (arXiv:1706.05587). Both have an auxiliary head (Zhao et al.,
Pyramid Scene Parsing Network, 2017, section 3.3).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.errors import UserError, suggest
from cvjax.nets.imagenet import KERNELS
from cvjax.nets.layers import Conv
from cvjax.nets.resnet import ResNet
from cvjax.nets.xception import SeparableConv
from cvjax.ops.precision import at_least_float32

Features = Float[Array, "batch rows columns channels"]
Logits = Float[Array, "batch rows columns classes"]
Norm = Callable[..., nn.Module]

HEADS = ("fcn", "deeplabv3")


class ConvNormRelu(nn.Module):
    """A convolution with an odd kernel that keeps the size, its normalisation and a ReLU."""

    features: int
    kernel: int
    norm: Norm
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch rows columns features"]:
        """Returns the features, at least 0."""
        spatial = dict(padding=self.kernel // 2 * self.dilation, dilation=self.dilation)
        x = Conv(self.features, self.kernel, **spatial, use_bias=False, kernel_init=KERNELS, name="conv")(x)
        return nn.relu(self.norm(name="norm")(x))


class FCNHead(nn.Module):
    """A 3x3 convolution to a quarter of the channels, dropout, and a 1x1 convolution to the classes."""

    classes: int
    norm: Norm
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x: Features, train: bool = False) -> Logits:
        """Returns the logits at the features' size; training takes the random stream "dropout"."""
        x = ConvNormRelu(x.shape[-1] // 4, 3, self.norm, name="conv_1")(x)
        return Conv(self.classes, 1, name="logits")(nn.Dropout(self.dropout, deterministic=not train)(x))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: what surrounds each place, at several distances and over the whole image.

    Attributes:
      features: channels of each branch and of the output.
      rates: dilation of each 3x3 branch; beside them are a 1x1 convolution and the mean of the image (section 3.3).
      dropout: share of the output dropped while training.
      separable: whether the 3x3 branches are `cvjax.nets.xception.SeparableConv`, as in DeepLabv3+.
    """

    features: int
    rates: Sequence[int]
    norm: Norm
    dropout: float = 0.5
    separable: bool = False

    @nn.compact
    def __call__(self, x: Features, train: bool = False) -> Float[Array, "batch rows columns features"]:
        """Returns the features; training takes the random stream "dropout"."""
        conv = partial(ConvNormRelu, self.features, norm=self.norm)
        branches = [conv(1, name="branch_1")(x)]
        atrous = (
            partial(SeparableConv, self.features, self.norm, inner_relu=True) if self.separable else partial(conv, 3)
        )
        branches += [atrous(dilation=rate, name=f"branch_{index}")(x) for index, rate in enumerate(self.rates, start=2)]
        mean = at_least_float32(x).mean(axis=(1, 2), keepdims=True).astype(x.dtype)
        mean = conv(1, name="pooled")(mean)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        x = conv(1, name="project")(jnp.concatenate(branches, axis=-1))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class DeepLabV3Head(nn.Module):
    """An `ASPP` with these rates, a 3x3 convolution, and a 1x1 convolution to the classes."""

    classes: int
    norm: Norm
    features: int = 256
    rates: Sequence[int] = (12, 24, 36)

    @nn.compact
    def __call__(self, x: Features, train: bool = False) -> Logits:
        """Returns the logits at the features' size; training takes the random stream "dropout"."""
        x = ASPP(self.features, self.rates, self.norm, name="aspp")(x, train)
        x = ConvNormRelu(self.features, 3, self.norm, name="conv_1")(x)
        return Conv(self.classes, 1, name="logits")(x)


class ResNetSegmenter(nn.Module):
    """A segmentation network whose variables are those of torchvision's `fcn_resnet50` and `deeplabv3_resnet50`.

    Attributes:
      classes: number of logits; 21 for Pascal VOC.
      depth, width, output_stride: as in `ResNet`; DeepLabv3's rates 12, 24, 36 are for stride 8.
      auxiliary: whether a second FCN head reads the third stage, for a loss of its own.
    """

    head: Literal["fcn", "deeplabv3"] = "deeplabv3"
    classes: int = 21
    depth: int = 50
    width: int = 64
    output_stride: int = 8
    auxiliary: bool = True

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Float[Array, "batch height width classes"], dict[str, Float[Array, "batch _ _ _"]]]:
        """Returns (logits, interpolated to the size of the images; the ResNet's stages, and the logits `auxiliary`).

        Images have three channels or one. Training normalises by the batch's statistics and drops features. Raises a
        UserError for an unknown head, or what `ResNet` refuses.
        """
        if self.head not in HEADS:
            raise UserError(f"ResNetSegmenter: there is no head={self.head!r}. {suggest(self.head, HEADS)}")
        norm = partial(nn.BatchNorm, not train, momentum=0.9, epsilon=1e-5)
        stages = ResNet(self.depth, self.width, output_stride=self.output_stride, name="resnet")(images, train)
        head = FCNHead if self.head == "fcn" else DeepLabV3Head
        outputs = {"logits": head(self.classes, norm, name="head")(stages["c5"], train)}
        if self.auxiliary:
            outputs["auxiliary"] = FCNHead(self.classes, norm, name="auxiliary")(stages["c4"], train)
        for name, logits in outputs.items():
            shape = (*images.shape[:3], self.classes)
            outputs[name] = jax.image.resize(at_least_float32(logits), shape, "linear", antialias=False)
        return outputs.pop("logits"), {**stages, **outputs}
