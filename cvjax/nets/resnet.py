"""Residual networks with torchvision's structure, without the classifier.

He et al., Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385), in the variant v1.5: a bottleneck has
its stride in the 3x3 convolution; in the paper it is in the first 1x1. Atrous stages are those of Chen et al.,
Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (arXiv:1706.05587), section 3.1.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax.errors import UserError, suggest
from cvjax.nets.capture import Capture
from cvjax.nets.imagenet import KERNELS, standardise
from cvjax.nets.layers import Conv
from cvjax.ops.pooling import max_pool

Features = Float[Array, "batch height width channels"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, both of `features` channels, and a shortcut.

    Attributes:
      stride: of the first convolution and the shortcut.
      dilation: of the convolutions up to the one with the stride.
      atrous: keep the size; what follows the stride is dilated by it instead.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]
    dilation: int = 1
    atrous: bool = False
    expansion: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch rows columns features"]:
        """Returns the block's features, after the ReLU."""
        conv = partial(Conv, use_bias=False, kernel_init=KERNELS)
        stride, after = _step(self)
        y = conv(self.features, 3, stride=stride, padding=self.dilation, dilation=self.dilation, name="conv_1")(x)
        y = nn.relu(self.norm(name="norm_1")(y))
        y = conv(self.features, 3, padding=after, dilation=after, name="conv_2")(y)
        return _add_shortcut(self, conv, x, self.norm(name="norm_2")(y))


class Bottleneck(nn.Module):
    """A 3x3 convolution, with the stride, between two 1x1 convolutions, and a shortcut.

    The attributes are those of `BasicBlock`; the output has four times the channels of the 3x3 convolution.
    """

    features: int
    stride: int
    norm: Callable[..., nn.Module]
    dilation: int = 1
    atrous: bool = False
    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch rows columns features"]:
        """Returns the block's features, after the ReLU."""
        conv = partial(Conv, use_bias=False, kernel_init=KERNELS)
        stride, _ = _step(self)
        y = nn.relu(self.norm(name="norm_1")(conv(self.features, 1, name="conv_1")(x)))
        y = conv(self.features, 3, stride=stride, padding=self.dilation, dilation=self.dilation, name="conv_2")(y)
        y = conv(4 * self.features, 1, name="conv_3")(nn.relu(self.norm(name="norm_2")(y)))
        return _add_shortcut(self, conv, x, self.norm(name="norm_3")(y))


def _step(block: BasicBlock | Bottleneck) -> tuple[int, int]:
    """The stride that a block takes, and the dilation of what follows it."""
    return (1, block.dilation * block.stride) if block.atrous else (block.stride, block.dilation)


def _add_shortcut(block: BasicBlock | Bottleneck, conv: Callable, x: Array, y: Array) -> Array:
    """Adds the input, through a 1x1 convolution if the shapes differ (option B of section 4.1)."""
    if block.stride != 1 or x.shape[-1] != y.shape[-1]:
        stride, _ = _step(block)
        x = block.norm(name="shortcut_norm")(conv(y.shape[-1], 1, stride=stride, name="shortcut")(x))
    return nn.relu(x + y)


DEPTHS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


STEMS = {"imagenet": 4, "small": 1}  # strides


def stage_strides(stem: str, strides: Sequence[int], output_stride: int | None = None) -> dict[str, int]:
    """Returns the total stride in pixels of each stage, `c2`, `c3`, ..., of a `ResNet` with these attributes.

    Raises a UserError for an unknown stem, not one to four strides, or an output stride that no stage has.
    """
    if stem not in STEMS:
        raise UserError(f"ResNet: there is no stem={stem!r}. {suggest(stem, STEMS)}")
    if not 1 <= len(strides) <= 4:
        raise UserError(f"ResNet: strides={tuple(strides)}: there can be one to four stages.")
    totals = list(itertools.accumulate(strides, operator.mul, initial=STEMS[stem]))
    if output_stride is not None and output_stride not in totals:
        known = ", ".join(map(str, dict.fromkeys(totals)))
        raise UserError(f"ResNet: output_stride={output_stride}: the strides of its layers are {known} pixels.")
    return {f"c{stage}": min(total, output_stride or total) for stage, total in enumerate(totals, start=1) if stage > 1}


class ResNet(nn.Module):
    """ResNet-18 to -152 without its classifier: the features of every stage.

    Classifiers and detectors use it as a network of its own, so that one can start from the other's: the variables
    depend only on depth, width, stem and strides, not on the images, the output stride or the network behind it.

    Attributes:
      depth: 18, 34, 50, 101 or 152.
      width: channels of the stem and of the blocks in the first stage, doubled in each further stage.
      stem: "imagenet": a 7x7 convolution and a 3x3 maximum of stride 2 each; "small": one 3x3 convolution of stride 1,
        for small images (section 4.2, CIFAR).
      strides: of each of one to four stages.
      output_stride: total stride in pixels of the last stage; later strides become dilations. The features are those
        without it, at more places. None: as `strides` say.
      momentum, epsilon: of the normalisations: share of the running statistics that each step keeps, and what is added
        to the variance.
      capture: activations to return, all after their ReLU: `stem`, `pool`, blocks such as `stage_4_block_23`, stages
        such as `c4`. None: every stage.
    """

    depth: int = 50
    width: int = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    strides: Sequence[int] = (1, 2, 2, 2)
    output_stride: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    capture: Sequence[str] | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> dict[str, Float[Array, "batch _ _ _"]]:
        """Returns the output of each stage, `c2`, `c3`, ..., for images of three channels or one.

        Training normalises by the batch's statistics and updates the running ones. Raises a UserError for an unknown
        depth, stem, output stride or layer to capture, or not one to four strides.
        """
        if self.depth not in DEPTHS:
            raise UserError(f"ResNet: there is no depth={self.depth}. {suggest(self.depth, map(str, DEPTHS))}")
        block, sizes = DEPTHS[self.depth]
        totals = stage_strides(self.stem, self.strides, self.output_stride)
        keep = Capture(f"ResNet-{self.depth}", [*totals] if self.capture is None else self.capture, self._layers())
        norm = partial(nn.BatchNorm, not train, momentum=self.momentum, epsilon=self.epsilon)
        conv = partial(Conv, use_bias=False, kernel_init=KERNELS, name="stem")
        conv = conv(self.width, 3, padding=1) if self.stem == "small" else conv(self.width, 7, stride=2, padding=3)
        x = keep("stem", nn.relu(norm(name="stem_norm")(conv(standardise(images)))))
        if self.stem == "imagenet":
            x = keep("pool", max_pool(x, window=3, stride=2, padding=1))
        before, dilation = STEMS[self.stem], 1  # strides of all stages so far: taken, and turned into a dilation
        for stage, (stride, size) in enumerate(zip(self.strides, sizes, strict=False), start=2):
            atrous = totals[f"c{stage}"] == before
            for index in range(1, size + 1):
                name = f"stage_{stage}_block_{index}"
                first = dict(stride=stride, atrous=atrous) if index == 1 else dict(stride=1)
                x = block(self.width * 2 ** (stage - 2), norm=norm, dilation=dilation, **first, name=name)(x)
                x = keep(name, x)
                dilation *= stride if atrous and index == 1 else 1
            x, before = keep(f"c{stage}", x), totals[f"c{stage}"]
        return keep.activations

    def _layers(self) -> list[str]:
        names = ["stem", "pool"] if self.stem == "imagenet" else ["stem"]
        for stage, size in zip(range(2, len(self.strides) + 2), DEPTHS[self.depth][1], strict=False):
            names += [*(f"stage_{stage}_block_{index + 1}" for index in range(size)), f"c{stage}"]
        return names
