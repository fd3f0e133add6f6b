"""Xception-65, the backbone of Chen et al., Encoder-Decoder with Atrous Separable Convolution, 2018 (arXiv:1802.02611).

Section 3.2 and figure 4 modify Chollet's Xception (arXiv:1610.02357): separable convolutions take the strides of his
maxima, and each depthwise convolution is normalised. Modules have the names of DeepLab's released checkpoints, whose
strided convolutions have one zero on every side, as here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax.errors import UserError
from cvjax.nets.capture import Capture
from cvjax.nets.imagenet import standardise
from cvjax.nets.layers import Conv

Features = Float[Array, "batch height width channels"]
Outputs = Float[Array, "batch rows columns features"]
Norm = Callable[..., nn.Module]

STEM = (("entry_flow_conv1_1", 32, 2), ("entry_flow_conv1_2", 64, 1))  # name, channels, stride
LEVELS = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}  # strides in pixels of what is returned by default


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel by itself and a 1x1 convolution over all channels, each normalised.

    Attributes:
      stride, dilation: of the 3x3 convolution.
      inner_relu: a ReLU after each of the two; without it, one before both.
    """

    features: int
    norm: Norm
    stride: int = 1
    dilation: int = 1
    inner_relu: bool = False

    @nn.compact
    def __call__(self, x: Features) -> Outputs:
        """Returns the features."""
        conv = partial(Conv, use_bias=False, kernel_init=nn.initializers.he_normal())
        relu = nn.relu if self.inner_relu else lambda x: x
        x = x if self.inner_relu else nn.relu(x)
        channels = x.shape[-1]
        spatial = dict(stride=self.stride, padding=self.dilation, dilation=self.dilation, groups=channels)
        x = relu(self.norm(name="depthwise_norm")(conv(channels, 3, **spatial, name="depthwise")(x)))
        return relu(self.norm(name="pointwise_norm")(conv(self.features, 1, name="pointwise")(x)))


class Block(nn.Module):
    """Three separable convolutions, each to one of the numbers of `features`, and a shortcut.

    Attributes:
      stride: of the last one and of the shortcut.
      dilation: of all three.
      shortcut: a 1x1 convolution, the input itself, or None: no shortcut.
      inner_relu: as in `SeparableConv`.
    """

    features: Sequence[int]
    norm: Norm
    stride: int = 1
    dilation: int = 1
    shortcut: Literal["convolution", "identity"] | None = "convolution"
    inner_relu: bool = False

    @nn.compact
    def __call__(self, x: Features) -> tuple[Outputs, Float[Array, "batch height width low"]]:
        """Returns the block's features, without a ReLU after the sum, and those of its second convolution."""
        y, outputs = x, []
        for index, features in enumerate(self.features, start=1):
            stride = self.stride if index == len(self.features) else 1
            options = dict(dilation=self.dilation, inner_relu=self.inner_relu)
            y = SeparableConv(features, self.norm, stride, **options, name=f"separable_conv{index}")(y)
            outputs.append(y)
        if self.shortcut == "convolution":
            options = dict(stride=self.stride, use_bias=False, kernel_init=nn.initializers.he_normal())
            x = self.norm(name="shortcut_norm")(Conv(self.features[-1], 1, **options, name="shortcut")(x))
        return y if self.shortcut is None else x + y, outputs[1]


class Plan(NamedTuple):
    """A block of the network: its name and the attributes of `Block` in which blocks differ."""

    name: str
    features: tuple[int, int, int]
    stride: int = 1
    shortcut: Literal["convolution", "identity"] | None = "convolution"


def plan(units: int = 16) -> list[Plan]:
    """Returns the blocks of an Xception, in order, with `units` of them in the middle flow (figure 4)."""
    return [
        Plan("entry_flow_block1", (128, 128, 128), 2),
        Plan("entry_flow_block2", (256, 256, 256), 2),
        Plan("entry_flow_block3", (728, 728, 728), 2),
        *(Plan(f"middle_flow_unit_{unit}", (728, 728, 728), 1, "identity") for unit in range(1, units + 1)),
        Plan("exit_flow_block1", (728, 1024, 1024), 2),
        Plan("exit_flow_block2", (1536, 1536, 2048), 1, None),
    ]


class Xception(nn.Module):
    """Xception-65 without its classifier, at any output stride.

    The variables depend only on width and units.

    Attributes:
      width: factor of the number of channels of every layer.
      units: blocks of the middle flow; 8 make Xception-41.
      output_stride: total stride in pixels of the last features; later strides become dilations. None: 32.
      inner_relu: ReLUs after depthwise and pointwise convolutions in every block, as in figure 4. The released networks
        have them in the last block only, and elsewhere one before each depthwise convolution.
      momentum, epsilon: of the normalisations, as in `cvjax.nets.resnet.ResNet`.
      capture: activations to return: `entry_flow_conv1_1` and `entry_flow_conv1_2` (after their ReLU), blocks such as
        `entry_flow_block1`, `middle_flow_unit_16` and `exit_flow_block2`, or `c2` to `c5`. None: these four.
      mean, deviation: of red, green and blue in the training images; by default pixels go to [-1, 1].
    """

    width: float = 1.0
    units: int = 16
    output_stride: int | None = None
    inner_relu: bool = False
    momentum: float = 0.9997
    epsilon: float = 1e-3
    capture: Sequence[str] | None = None
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    deviation: Sequence[float] = (0.5, 0.5, 0.5)

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> dict[str, Float[Array, "batch _ _ _"]]:
        """Returns the features of four levels by name, or the activations in `capture`.

        `c2` is the second convolution of `entry_flow_block2`, of stride 4: DeepLab's low-level features. `c3` is that
        block, of stride 8, `c4` the middle flow, of stride 16, and `c5` the exit flow, of stride 32. Only `c5` ends
        with a ReLU.

        Images have three channels or one. Training normalises by the batch's statistics and updates the running ones.
        Raises a UserError for an output stride that no layer has, or an unknown layer to capture.
        """
        if self.output_stride not in (None, *LEVELS.values()):
            raise UserError(f"Xception: output_stride={self.output_stride} has to be 4, 8, 16, 32 or None.")
        blocks = plan(self.units)
        ends = {"entry_flow_block2": "c3", blocks[-3].name: "c4", "exit_flow_block2": "c5"}
        known = [*(name for name, *_ in (*STEM, *blocks)), *LEVELS]
        keep = Capture("Xception", [*LEVELS] if self.capture is None else self.capture, known)
        norm = partial(nn.BatchNorm, not train, momentum=self.momentum, epsilon=self.epsilon)
        x = standardise(images, self.mean, self.deviation)
        for name, features, stride in STEM:
            options = dict(stride=stride, padding=1, use_bias=False, kernel_init=nn.initializers.he_normal())
            x = Conv(self._scale(features), 3, **options, name=name)(x)
            x = keep(name, nn.relu(norm(name=f"{name}_norm")(x)))
        total, dilation = 2, 1  # of all layers so far
        for name, features, stride, shortcut in blocks:
            atrous = total == self.output_stride
            options = dict(shortcut=shortcut, inner_relu=self.inner_relu or shortcut is None)
            widths = tuple(map(self._scale, features))
            x, second = Block(widths, norm, 1 if atrous else stride, dilation, **options, name=name)(x)
            total, dilation = (total, dilation * stride) if atrous else (total * stride, dilation)
            keep(name, x)
            if name == "entry_flow_block2":
                keep("c2", second)
            if name in ends:
                keep(ends[name], x)
        return keep.activations

    def _scale(self, channels: int) -> int:
        return max(1, round(self.width * channels))
