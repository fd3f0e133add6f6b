"""DeepLabv3+: Chen et al., Encoder-Decoder with Atrous Separable Convolution, 2018 (arXiv:1802.02611).

Without its decoder it is DeepLabv3: Chen et al., Rethinking Atrous Convolution, 2017 (arXiv:1706.05587).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax import optim
from cvjax.core import Recipe, Variables, class_names
from cvjax.errors import UserError
from cvjax.losses.segmentation import MapLoss
from cvjax.nets.layers import Conv
from cvjax.nets.resnet import ResNet, stage_strides
from cvjax.nets.resnet_segmenter import ASPP, ConvNormRelu
from cvjax.nets.xception import SeparableConv, Xception
from cvjax.segmentation.segmenter import CROSS_ENTROPY, Images, Inference, Logits, Segmenter, check_loss
from cvjax.signature import Count, Positive, Share

Features = Float[Array, "batch rows columns features"]
Stages = Mapping[str, Float[Array, "batch _ _ _"]]

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # by output stride
LOW = 48  # channels of the low-level features


# --- nets ---------------------------------------------------------------------------------------------------------


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling, and a decoder of two 3x3 convolutions over low-level features (figure 2).

    Attributes:
      rates, separable, dropout: as in `ASPP`.
      features: channels of the pyramid and of the decoder.
      low_features: channels to which the low-level features are reduced; None: no decoder.
      momentum, epsilon: of the normalisations, as in `cvjax.nets.resnet.ResNet`.
    """

    classes: int
    rates: Sequence[int]
    features: int = 256
    low_features: int | None = LOW
    separable: bool = False
    dropout: float = 0.1
    momentum: float = 0.9997
    epsilon: float = 1e-3

    @nn.compact
    def __call__(
        self, stages: Stages, size: tuple[int, int], train: bool = False
    ) -> Float[Array, "batch height width classes"]:
        """Returns logits, bilinearly upsampled to a (height, width), from the stage `c2` and the last.

        Training normalises by the batch's statistics and takes the random stream "dropout".
        """
        norm = partial(nn.BatchNorm, not train, momentum=self.momentum, epsilon=self.epsilon)
        *_, last = stages.values()
        x = ASPP(self.features, self.rates, norm, self.dropout, self.separable, name="aspp")(last, train)
        if self.low_features is not None:
            low = ConvNormRelu(self.low_features, 1, norm, name="low")(stages["c2"])
            x = jnp.concatenate([_resize(x, low.shape[1:3]), low], axis=-1)
            for name in ("decoder_1", "decoder_2"):
                if self.separable:
                    x = SeparableConv(self.features, norm, inner_relu=True, name=name)(x)
                else:
                    x = ConvNormRelu(self.features, 3, norm, name=name)(x)
        return _resize(Conv(self.classes, 1, name="logits")(x), size)


def _resize(x: Features, size: tuple[int, int]) -> Float[Array, "batch height width features"]:
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear", antialias=False)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DeepLabSegmenter(Segmenter):
    """A backbone and DeepLab's head; the attributes are those of `Segmenter`, and the networks."""

    backbone: ResNet | Xception
    head: DeepLabHead

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state; a run may borrow the backbone of a classifier."""
        return {self.backbone_name: self.backbone, "deeplab": self.head}

    @property
    def backbone_name(self) -> str:
        """Name of the backbone in the state."""
        return "resnet" if isinstance(self.backbone, ResNet) else "xception"

    def begin(self, key: Key[Array, ""], images: Images) -> dict[str, Variables]:
        """Initialises the networks."""
        backbone_key, head_key = jax.random.split(key)
        stages, backbone = self.backbone.init_with_output(backbone_key, images)
        return {self.backbone_name: backbone, "deeplab": self.head.init(head_key, stages, images.shape[1:3])}

    def forward(
        self, key: Key[Array, ""] | None, held: Mapping[str, Variables], images: Images
    ) -> tuple[Logits, dict[str, Any]]:
        """Computes the logits of every pixel."""
        size = images.shape[1:3]
        if key is None:
            stages = self.backbone.apply(held[self.backbone_name], images)
            return self.head.apply(held["deeplab"], stages, size), {}
        options = dict(train=True, mutable=["batch_stats"])
        stages, backbone = self.backbone.apply(held[self.backbone_name], images, **options)
        logits, head = self.head.apply(held["deeplab"], stages, size, rngs={"dropout": key}, **options)
        return logits, {self.backbone_name: backbone["batch_stats"], "deeplab": head["batch_stats"]}


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The backbone of DeepLab: `config.recipe.backbone`.

    Attributes:
      name: "resnet" or "xception".
      depth, stem, strides: of a ResNet.
      width: channels of a ResNet's first stage; of an Xception in 64ths.
      units: blocks of the middle flow of an Xception.
    """

    name: Literal["resnet", "xception"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 101
    stem: Literal["imagenet", "small"] = "imagenet"
    strides: tuple[Count, ...] = (1, 2, 2, 2)
    width: Count = 64
    units: Count = 16

    def make(self, output_stride: int, momentum: float, epsilon: float) -> ResNet | Xception:
        """Makes the network; see `cvjax.nets.resnet.ResNet` for the arguments."""
        shared = dict(output_stride=output_stride, momentum=momentum, epsilon=epsilon)
        if self.name == "xception":
            return Xception(self.width / 64, self.units, **shared, capture=("c2", "c5"))
        *_, last = stage_strides(self.stem, self.strides, output_stride)
        return ResNet(self.depth, self.width, self.stem, self.strides, **shared, capture=("c2", last))


RESNET = Backbone()
AT_SIX_SCALES = Inference(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)  # section 4.1 of DeepLabv3
POLY = {"name": "polynomial_schedule", "end_value": 0.0, "power": 0.9, "transition_steps": 30_000}
PAPER = {"name": "sgd", "learning_rate": 0.007, "momentum": 0.9, "weight_decay": 4e-5, "schedule": POLY}


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    truth: str = "class_map",
    weights: str = "",
    backbone: Backbone = RESNET,
    output_stride: Count = 16,
    rates: tuple[Count, ...] = (),
    decoder: bool = True,
    features: Count = 256,
    low_features: Count = LOW,
    separable: bool = False,
    dropout: Share = 0.1,
    momentum: Share = 0.9997,
    epsilon: Positive = 1e-3,
    loss: MapLoss = CROSS_ENTROPY,
    inference: Inference = AT_SIX_SCALES,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes DeepLabv3+. The defaults are the paper's for VOC.

    Args:
      shape, classes, truth, weights: as in `cvjax.segmentation.unet.recipe`.
      backbone: the network whose features are read.
      output_stride: pixels per feature of its last stage.
      rates: dilations of the pyramid; (): the paper's for the output stride, (6, 12, 18) at 16 and (12, 24, 36) at 8.
      decoder: False: DeepLabv3, which upsamples the scores of the pyramid.
      features, low_features, separable, dropout: as in `DeepLabHead`.
      momentum, epsilon: of all normalisations.
      loss, inference, ema, optimiser: as in `cvjax.segmentation.unet.recipe`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.segmentation.figures`.

    Raises:
      UserError: class weights that do not fit, or an output stride without rates or that no stage has.
    """
    names = class_names(classes)
    check_loss(loss, names)
    if not rates and output_stride not in RATES:
        raise UserError(f"config.recipe.rates=(): the paper has rates for output_stride 8 and 16, not {output_stride}.")
    low = low_features if decoder else None
    rates = tuple(rates) or RATES[output_stride]
    head = DeepLabHead(len(names), rates, features, low, separable, dropout, momentum, epsilon)
    base = (tuple(shape), names, truth, weights, loss, inference, ema, optim.build(optimiser))
    return Recipe.of(DeepLabSegmenter(*base, backbone.make(output_stride, momentum, epsilon), head))
