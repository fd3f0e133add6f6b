"""VGG: Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015.

Configurations A, B, D and E of table 1 (arXiv:1409.1556), with torchvision's padding and normalisation. Layers have the
names of the authors' Caffe models: `conv1_1` to `conv5_4`, `fc6`, `fc7` and `fc8`.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax.errors import UserError, suggest
from cvjax.nets.capture import Capture
from cvjax.nets.imagenet import DEVIATION, KERNELS, MEAN, standardise
from cvjax.nets.layers import Conv
from cvjax.ops.pooling import adaptive_avg_pool, avg_pool, max_pool

Features = Float[Array, "batch rows columns features"]

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions a stage
WIDTHS = (1, 2, 4, 8, 8)  # channels of each stage, in those of the first
HEADS = ("classifier", "convolutional", "mean")
FIELD = 7  # side of what `fc6` sees


class VGG(nn.Module):
    """VGG-11, -13, -16 or -19, with or without its classifier.

    `fc6`, `fc7` and `fc8` are convolutions of 7x7, 1x1 and 1x1, so a classifier and a fully convolutional network have
    the same variables, and these do not depend on the size of the images.

    Attributes:
      depth: 11, 13, 16 or 19.
      batch_norm: normalise after each convolution.
      pooling: "max", or "average" as for style transfer (Gatys et al., 2016, section 2).
      head: None: end with `pool5`; "classifier": `pool5` averaged to 7x7, as torchvision does, and classified;
        "convolutional": `fc6` to `fc8` slide over `pool5`; "mean": `fc8` classifies the mean of `pool5` over the image
        (Lin et al., Network in Network, 2014, section 3.2), for images of any size.
      classes: number of logits; None: end with the ReLU of `fc7`.
      width: channels of the first stage.
      hidden: channels of `fc6` and `fc7`.
      dropout: share of the inputs of `fc7` and `fc8` dropped while training; takes the random stream "dropout".
      padding: zeros around the image at `conv1_1`; fully convolutional networks have had 100.
      head_padding: zeros around `pool5` at a convolutional `fc6`; 3 keeps the size.
      capture: activations to return: `conv4_2` (before normalisation and ReLU), `relu4_2` (after them), `pool4`, and
        `fc6`, `relu6`, `fc7`, `relu7`, `fc8`. What Gatys et al. call conv4_2 is `relu4_2`: Caffe's ReLU works in place.
      mean, deviation: of red, green and blue in the training images, by default ImageNet's.
      stages: number of convolutions of each stage, at most five, in place of those of `depth`.
    """

    depth: int = 16
    batch_norm: bool = False
    pooling: Literal["max", "average"] = "max"
    head: Literal["classifier", "convolutional", "mean"] | None = None
    classes: int | None = 1000
    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5
    padding: int = 1
    head_padding: int = 0
    capture: Sequence[str] = ()
    mean: Sequence[float] = MEAN
    deviation: Sequence[float] = DEVIATION
    stages: Sequence[int] = ()

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Float[Array, "batch ..."], dict[str, Features]]:
        """Returns (features of the last layer or the logits [batch, classes] of a classifier, {name: activation}).

        Images have three channels or one. Training normalises by the batch's statistics and drops features. Raises a
        UserError for an unknown depth, pooling, head or layer to capture.
        """
        self._check()
        counts = tuple(self.stages) or DEPTHS[self.depth]
        keep = Capture(f"VGG-{self.depth}", self.capture, layers(self.depth, self.head, self.classes, self.stages))
        pool = max_pool if self.pooling == "max" else avg_pool
        x = standardise(images, self.mean, self.deviation)
        for stage, (count, width) in enumerate(zip(counts, WIDTHS[: len(counts)], strict=True), start=1):
            for place in (f"{stage}_{index}" for index in range(1, count + 1)):
                padding = self.padding if place == "1_1" else 1
                conv = Conv(width * self.width, 3, padding=padding, kernel_init=KERNELS, name=f"conv{place}")
                x = keep(f"conv{place}", conv(x))
                if self.batch_norm:
                    x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"norm{place}")(x)
                x = keep(f"relu{place}", nn.relu(x))
            x = keep(f"pool{stage}", pool(x, window=2, stride=2))
        if self.head is not None:
            x = self._apply_head(x, train, keep)
        return x, keep.activations

    def _apply_head(self, x: Array, train: bool, keep: Capture) -> Array:
        padding = self.head_padding
        if self.head == "mean":
            x = nn.Dropout(self.dropout, deterministic=not train)(adaptive_avg_pool(x, 1))
            x = x if self.classes is None else keep("fc8", Conv(self.classes, 1, name="fc8")(x))
            return x.reshape(len(x), -1)
        if self.head == "classifier":
            x, padding = adaptive_avg_pool(x, FIELD), 0
        initial = nn.initializers.he_normal()
        x = keep("fc6", Conv(self.hidden, FIELD, padding=padding, kernel_init=initial, name="fc6")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(keep("relu6", nn.relu(x)))
        x = keep("fc7", Conv(self.hidden, 1, kernel_init=initial, name="fc7")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(keep("relu7", nn.relu(x)))
        if self.classes is not None:
            x = keep("fc8", Conv(self.classes, 1, name="fc8")(x))
        return x.reshape(len(x), -1) if self.head == "classifier" else x

    def _check(self) -> None:
        choices = {"depth": [*DEPTHS], "pooling": ["max", "average"], "head": [None, *HEADS]}
        for attribute, known in choices.items():
            value = getattr(self, attribute)
            if value not in known:
                raise UserError(f"VGG: there is no {attribute}={value!r}. {suggest(value, map(str, known))}")
        if len(self.stages) > len(WIDTHS) or any(count < 1 for count in self.stages):
            raise UserError(
                f"VGG: stages={tuple(self.stages)}: expected up to five numbers of convolutions, 1 or more."
            )


def layers(depth: int, head: str | None = None, classes: int | None = 1000, stages: Sequence[int] = ()) -> list[str]:
    """Returns the names that the `capture` of such a `VGG` knows, in the order of the layers."""
    names = []
    for stage, count in enumerate(tuple(stages) or DEPTHS[depth], start=1):
        names += [f"{kind}{stage}_{index}" for index in range(1, count + 1) for kind in ("conv", "relu")]
        names.append(f"pool{stage}")
    hidden = ["fc6", "relu6", "fc7", "relu7"] if head in ("classifier", "convolutional") else []
    names += hidden + ["fc8"] * (head is not None and classes is not None)
    return names
