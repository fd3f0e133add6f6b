"""A small convolutional classifier of 8x8 digits, whose 64 features judge generated ones."""

from collections.abc import Sequence

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from cvjax.nets.capture import Capture
from cvjax.nets.layers import Conv
from cvjax.ops.pooling import avg_pool


class DigitClassifier(nn.Module):
    """Four 3x3 convolutions in two stages, each halved by average pooling, then two dense layers: 82,090 parameters.

    The first stage has `width` channels, the second twice that number, and the hidden dense layer `features`.
    `capture` names convolutions to return after their ReLU, such as `conv_2_2`.
    """

    classes: int = 10
    width: int = 32
    features: int = 64
    dropout: float = 0.0
    capture: Sequence[str] = ()

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Float[Array, "batch classes"], dict[str, Float[Array, "batch *sides features"]]]:
        """Returns (logits, {"features": the hidden layer after its ReLU}); height and width are divisible by 4.

        The dict also has what is captured. Training drops features, by the random stream "dropout".
        """
        # Full float32 everywhere: on GPU and TPU the default rounds factors to 10 bits or fewer, and figures with them.
        exact = dict(precision=jax.lax.Precision.HIGHEST)
        names = [f"conv_{stage}_{index}" for stage in (1, 2) for index in (1, 2)]
        keep = Capture("DigitClassifier", self.capture, names)
        x = 2 * images - 1
        for stage, width in enumerate((self.width, 2 * self.width), start=1):
            for index in (1, 2):
                name = f"conv_{stage}_{index}"
                x = keep(name, nn.relu(Conv(width, 3, padding=1, name=name, **exact)(x)))
            x = avg_pool(x, window=2, stride=2)
        features = nn.relu(nn.Dense(self.features, name="features", **exact)(x.reshape(len(x), -1)))
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes, name="logits", **exact)(x), {**keep.activations, "features": features}
