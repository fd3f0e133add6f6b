"""AlexNet: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012.

In the variant of one tower without local normalisation (Krizhevsky, One Weird Trick for Parallelizing Convolutional
Neural Networks, 2014, arXiv:1404.5997), with torchvision's widths, padding and normalisation.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax.errors import UserError, suggest
from cvjax.nets.capture import Capture
from cvjax.nets.imagenet import KERNELS, standardise
from cvjax.nets.layers import Conv
from cvjax.ops.pooling import adaptive_avg_pool, max_pool

# Width, kernel, stride and padding of each convolution.
LAYERS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
POOLED = (1, 2, 5)  # layers that a maximum follows
FIELD = 6  # side of what `fc6` sees
FEATURES = (
    *("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3", "relu3"),
    *("conv4", "relu4", "conv5", "relu5", "pool5"),
)
HEAD = ("fc6", "relu6", "fc7", "relu7", "fc8")


class AlexNet(nn.Module):
    """AlexNet, with or without its classifier.

    `fc6`, `fc7` and `fc8` are convolutions of 6x6, 1x1 and 1x1: the variables do not depend on the size of the images.

    Attributes:
      head: None: end with `pool5`; "classifier": `pool5` averaged to 6x6, as torchvision does, and classified.
      hidden: channels of `fc6` and `fc7`.
      dropout: share of the inputs of `fc6` and `fc7` dropped while training; takes the random stream "dropout".
      capture: activations to return: `conv3` (before the ReLU), `relu3`, `pool1`, `pool2`, `pool5`, and with a head
        `fc6`, `relu6`, `fc7`, `relu7`, `fc8`.
    """

    head: Literal["classifier"] | None = None
    classes: int = 1000
    hidden: int = 4096
    dropout: float = 0.5
    capture: Sequence[str] = ()

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Float[Array, "batch ..."], dict[str, Float[Array, "batch rows columns features"]]]:
        """Returns (features of `pool5` or the logits [batch, classes] of a classifier, {name: activation}).

        Images have three channels or one. Raises a UserError for an unknown head or layer to capture.
        """
        if self.head not in (None, "classifier"):
            raise UserError(f"AlexNet: there is no head={self.head!r}. {suggest(self.head, ['None', 'classifier'])}")
        keep = Capture("AlexNet", self.capture, FEATURES + (HEAD if self.head else ()))
        x = standardise(images)
        for number, (width, kernel, stride, padding) in enumerate(LAYERS, start=1):
            conv = Conv(width, kernel, stride, padding, kernel_init=KERNELS, name=f"conv{number}")
            x = keep(f"relu{number}", nn.relu(keep(f"conv{number}", conv(x))))
            if number in POOLED:
                x = keep(f"pool{number}", max_pool(x, window=3, stride=2))
        if self.head is not None:
            x = self._classify(adaptive_avg_pool(x, FIELD), train, keep)
        return x, keep.activations

    def _classify(self, x: Array, train: bool, keep: Capture) -> Array:
        for number, kernel in ((6, FIELD), (7, 1)):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            initial = nn.initializers.he_normal()
            x = keep(f"fc{number}", Conv(self.hidden, kernel, kernel_init=initial, name=f"fc{number}")(x))
            x = keep(f"relu{number}", nn.relu(x))
        return keep("fc8", Conv(self.classes, 1, name="fc8")(x)).reshape(len(x), -1)
