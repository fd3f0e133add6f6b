"""Residual networks with torchvision's structure, without the classifier.

He et al., Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385), in the variant v1.5: a bottleneck has
its stride in the 3x3 convolution; in the paper it is in the first 1x1.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax.errors import UserError, suggest
from cvjax.nets.imagenet import KERNELS, standardise
from cvjax.nets.layers import Conv
from cvjax.ops.pooling import max_pool

Features = Float[Array, "batch height width channels"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
      features: channels of both convolutions.
      stride: of the first convolution and the shortcut.
      norm: makes a normalisation.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]
    expansion: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch rows columns features"]:
        """Returns the block's features, after the ReLU."""
        conv = partial(Conv, use_bias=False, kernel_init=KERNELS)
        y = conv(self.features, 3, stride=self.stride, padding=1, name="conv_1")(x)
        y = conv(self.features, 3, padding=1, name="conv_2")(nn.relu(self.norm(name="norm_1")(y)))
        return _add_shortcut(self, conv, x, self.norm(name="norm_2")(y))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 convolutions, and a shortcut. The attributes are those of `BasicBlock`.

    The stride is that of the 3x3 convolution; the output has four times its channels.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]
    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch rows columns features"]:
        """Returns the block's features, after the ReLU."""
        conv = partial(Conv, use_bias=False, kernel_init=KERNELS)
        y = nn.relu(self.norm(name="norm_1")(conv(self.features, 1, name="conv_1")(x)))
        y = conv(self.features, 3, stride=self.stride, padding=1, name="conv_2")(y)
        y = conv(4 * self.features, 1, name="conv_3")(nn.relu(self.norm(name="norm_2")(y)))
        return _add_shortcut(self, conv, x, self.norm(name="norm_3")(y))


def _add_shortcut(block: BasicBlock | Bottleneck, conv: Callable, x: Array, y: Array) -> Array:
    """Adds the input, through a 1x1 convolution if the shapes differ (option B of section 4.1)."""
    if block.stride != 1 or x.shape[-1] != y.shape[-1]:
        x = block.norm(name="shortcut_norm")(conv(y.shape[-1], 1, stride=block.stride, name="shortcut")(x))
    return nn.relu(x + y)


DEPTHS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


STEMS = {"imagenet": 4, "small": 1}  # strides


def stage_strides(stem: str, strides: Sequence[int]) -> dict[str, int]:
    """Returns the total stride in pixels of each stage, `c2`, `c3`, ..., of a ResNet with this stem and these strides.

    Raises:
      UserError: an unknown stem, or not one to four strides.
    """
    if stem not in STEMS:
        raise UserError(f"ResNet: there is no stem={stem!r}. {suggest(stem, STEMS)}")
    if not 1 <= len(strides) <= 4:
        raise UserError(f"ResNet: strides={tuple(strides)}: there can be one to four stages.")
    totals = itertools.accumulate(strides, operator.mul, initial=STEMS[stem])
    return {f"c{stage}": total for stage, total in enumerate(totals, start=1) if stage > 1}


class ResNet(nn.Module):
    """ResNet-18, -34, -50 or -101 without its classifier: the features of every stage.

    Classifiers and detectors use it as a network of its own, so that one can start from the other's: the variables
    depend only on these attributes, not on the images or the network behind it.

    Attributes:
      depth: 18, 34, 50 or 101.
      width: channels of the stem and of the blocks in the first stage, doubled in each further stage.
      stem: "imagenet": a 7x7 convolution and a 3x3 maximum of stride 2 each; "small": one 3x3 convolution of stride 1,
        for small images (section 4.2, CIFAR).
      strides: of each of one to four stages.
    """

    depth: int = 50
    width: int = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    strides: Sequence[int] = (1, 2, 2, 2)

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> dict[str, Float[Array, "batch _ _ _"]]:
        """Computes the output of each stage, `c2`, `c3`, ..., from images in [0, 1] of three channels or one.

        Training normalises by the batch's statistics and updates the running ones.

        Raises:
          UserError: an unknown depth or stem, or not one to four strides.
        """
        if self.depth not in DEPTHS:
            raise UserError(f"ResNet: there is no depth={self.depth}. {suggest(self.depth, map(str, DEPTHS))}")
        stage_strides(self.stem, self.strides)
        block, sizes = DEPTHS[self.depth]
        norm = partial(nn.BatchNorm, not train, momentum=0.9, epsilon=1e-5)
        conv = partial(Conv, use_bias=False, kernel_init=KERNELS, name="stem")
        x = standardise(images)
        if self.stem == "small":
            x = nn.relu(norm(name="stem_norm")(conv(self.width, 3, padding=1)(x)))
        else:
            x = nn.relu(norm(name="stem_norm")(conv(self.width, 7, stride=2, padding=3)(x)))
            x = max_pool(x, window=3, stride=2, padding=1)
        stages = {}
        for stage, stride in enumerate(self.strides):
            for index in range(sizes[stage]):
                name = f"stage_{stage + 2}_block_{index + 1}"
                x = block(self.width * 2**stage, stride if index == 0 else 1, norm, name=name)(x)
            stages[f"c{stage + 2}"] = x
        return stages
