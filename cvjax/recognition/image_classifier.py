"""A ResNet classifier of images: He et al., Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385).

Label smoothing: Szegedy et al., 2016 (arXiv:1512.00567). A detector may start from its `RUN/classifier/resnet`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, Shaped

from cvjax import optim
from cvjax.core import (
    Batch,
    Metrics,
    Pictures,
    Recipe,
    State,
    advance,
    check_images,
    class_names,
    descend,
    start,
    variables,
)
from cvjax.errors import number_of
from cvjax.metrics import classification, plots
from cvjax.nets.resnet import ResNet, stage_strides
from cvjax.ops.drawing import label_text
from cvjax.recognition.classifier import cross_entropy
from cvjax.signature import Count, Share

# --- nets ---------------------------------------------------------------------------------------------------------


class ResNetClassifier(nn.Module):
    """A ResNet, the mean of its last features, and a dense layer; the attributes are as in `recipe`."""

    classes: int
    depth: int = 50
    width: int = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    strides: Sequence[int] = (1, 2, 2, 2)
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Float[Array, "batch classes"], dict[str, Float[Array, "batch ..."]]]:
        """Returns logits, and the output of each stage `c2`, `c3`, ... with `features`, the mean of the last.

        Images have three channels or one. Training uses the batch's statistics and the random stream "dropout".
        """
        resnet = ResNet(self.depth, self.width, self.stem, self.strides, name="resnet")
        stages = resnet(images, train)
        *_, last = stages.values()
        features = last.astype(jnp.float32).mean(axis=(1, 2))  # bfloat16 would lose digits of a sum
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes, name="head")(x), {**stages, "features": features}


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ImageClassifier:
    """A classifier: how it starts, is trained, judged and shown. The attributes come from `recipe`'s arguments."""

    net: nn.Module  # (images, train) -> (logits, activations)
    shape: tuple[int, int, int]
    names: tuple[str, ...]
    label_smoothing: float
    ema: float
    tx: optax.GradientTransformation

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The one network."""
        return {"classifier": self.net}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network and its optimiser."""
        check_images(batch, self.shape)
        first = self.net.init(key, jnp.zeros((1, *self.shape)))
        averaged = ("classifier",) if self.ema else ()
        return start({"classifier": first}, {"classifier": self.tx.init(first["params"])}, averaged)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the cross-entropy."""

        def loss_fn(params):
            latest = {**variables(state, "classifier", averaged=False), "params": params}
            options = dict(train=True, mutable=["batch_stats"], rngs={"dropout": key})
            (logits, _), new = self.net.apply(latest, batch["image"], **options)
            return cross_entropy(logits, batch["label"], self.label_smoothing).mean(), (logits, new.get("batch_stats"))

        held = state.params["classifier"], state.opt["classifier"]
        params, opt, loss, (logits, stats) = descend(self.tx, loss_fn, *held)
        metrics = {"loss/cross_entropy": loss, "top1": (logits.argmax(axis=-1) == batch["label"]).mean()}
        after = ({"classifier": value} for value in (params, opt, stats))
        return advance(state, *after, keep=self.ema), metrics

    def classify(self, state: State, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch _"]:
        """Returns the logits of images."""
        return self.net.apply(variables(state, "classifier"), images)[0]

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, " batch"]]:
        """Reduces the logits of each image to its outcome."""
        return classification.outcomes(self.classify(state, batch["image"]), batch["label"])

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        return classification.figures(rows, self.names)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws the images of greatest loss and the confusions, of one batch."""
        found = jax.device_get(self._outcomes(state, batch, key))
        images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
        hardest = np.argsort(-found["nll"])[:32]
        true, predicted = (
            [label_text(int(i), self.names) for i in rows[hardest]] for rows in (labels, found["predicted"])
        )
        sure = found["confidence"][hardest]
        captions = [f"{name}\n{guess} {100 * p:.0f} %" for name, guess, p in zip(true, predicted, sure, strict=True)]
        matrix = classification.confusion(labels, found["predicted"], len(self.names))
        title = f"{number_of(len(labels), 'image')}, {np.mean(found['rank'] == 0):.1%} right"
        return {
            "hardest": plots.draw_gallery(images[hardest], captions, marked=found["rank"][hardest] > 0),
            "confusion": plots.draw_confusion(matrix, self.names, title, x="predicted", y="true"),
        }

    @functools.partial(jax.jit, static_argnums=0)
    def _outcomes(self, state, batch, key):
        return self.eval_step(state, batch, key)

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Returns the probabilities of the classes, and the most probable one as `label`."""
        probabilities = jax.nn.softmax(self.classify(state, inputs["image"]))
        return {"probability": probabilities, "label": probabilities.argmax(axis=-1)}


# Section 3.4.
PAPER = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    depth: Literal[18, 34, 50, 101] = 50,
    width: Count = 64,
    stem: Literal["imagenet", "small"] = "imagenet",
    strides: tuple[Count, ...] = (1, 2, 2, 2),
    dropout: Share = 0.0,
    label_smoothing: Share = 0.0,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes a classifier of images. The defaults are the paper's ResNet-50 for ImageNet.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      depth, width, stem, strides: as in `cvjax.nets.resnet.ResNet`; "small" keeps the size of small images.
      dropout: share of the mean features dropped while training.
      label_smoothing: share of each target spread over all classes.
      ema: share of the averaged network, the one that classifies, that each step keeps, as in `core.moving_average`;
        0: none.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.classification.figures`.

    Raises:
      UserError: not one to four strides.
    """
    stage_strides(stem, strides)
    names = class_names(classes)
    net = ResNetClassifier(len(names), depth, width, stem, tuple(strides), dropout)
    return Recipe.of(ImageClassifier(net, tuple(shape), names, label_smoothing, ema, optim.build(optimiser)))
