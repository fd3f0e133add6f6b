"""A small convolutional classifier of digits, trained on randomly shifted, rotated and scaled ones.

Convolutions, average pooling and dense layers as in LeNet (LeCun et al., Gradient-Based Learning Applied to Document
Recognition, 1998), with ReLU. One of its runs judges generated digits: `cvjax.weights.digit_classifier`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import core, optim
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, check_images, descend, variables
from cvjax.errors import UserError
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.ops.affine import jitter
from cvjax.signature import Count, Share

# --- losses -------------------------------------------------------------------------------------------------------


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Returns each image's cross-entropy in nats; NaN where the label is not a class, such as -1 of unlabelled images.

    A share `smoothing` of the target is spread evenly over all classes (Szegedy et al., arXiv:1512.00567, section 7).
    """
    known = (labels >= 0) & (labels < logits.shape[-1])
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return jnp.where(known, optax.softmax_cross_entropy(logits, targets), jnp.nan)


# --- recipe -------------------------------------------------------------------------------------------------------


def recipe(
    shape: tuple[Count, Count, Count] = (8, 8, 1),
    classes: Count | tuple[str, ...] = 10,
    width: Count = 32,
    features: Count = 64,
    dropout: Share = 0.3,
    label_smoothing: Share = 0.05,
    shift: float = 1.0,
    angle: float = 0.2,
    zoom: float = 0.1,
    optimiser: Mapping[str, Any] = {"name": "adamw", "learning_rate": 2e-3},
) -> Recipe:
    """Makes the classifier.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      width: channels of the first stage.
      features: size of the hidden dense layer.
      dropout: share of the features dropped in training.
      label_smoothing: share of each target spread evenly over all classes.
      shift, angle, zoom: largest random distortions, as in `jitter`.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures: accuracy, and nll, the mean negative log-likelihood of the true class in nats.

    Raises:
      UserError: a height or width that cannot be halved twice.
    """
    if shape[0] % 4 or shape[1] % 4:
        raise UserError(f"config.recipe.shape={tuple(shape)}: height and width have to be divisible by 4.")
    net = DigitClassifier(core.count_classes(classes), width, features, dropout)
    return Recipe.of(Classifier(net, tuple(shape), label_smoothing, (shift, angle, zoom), optim.build(optimiser)))


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The functions of the recipe; `net` returns (logits, activations), `augmentation` is (shift, angle, zoom)."""

    net: DigitClassifier
    shape: tuple[int, ...]
    label_smoothing: float
    augmentation: tuple[float, float, float]
    tx: optax.GradientTransformation

    @property
    def networks(self) -> dict[str, DigitClassifier]:
        """The network, by its name in the state."""
        return {"classifier": self.net}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network and its optimiser."""
        check_images(batch, self.shape)
        initial = self.net.init(key, batch["image"])
        return core.start({"classifier": initial}, {"classifier": self.tx.init(initial["params"])})

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes one step on augmented images."""
        jitter_key, dropout_key = jax.random.split(key)
        images = jitter(jitter_key, batch["image"], *self.augmentation)

        def loss_fn(params):
            logits, _ = self.net.apply({"params": params}, images, train=True, rngs={"dropout": dropout_key})
            return cross_entropy(logits, batch["label"], self.label_smoothing).mean(), logits

        params, opt, loss, logits = descend(self.tx, loss_fn, state.params["classifier"], state.opt["classifier"])
        metrics = {"loss/cross_entropy": loss, "accuracy": (logits.argmax(-1) == batch["label"]).mean()}
        return core.advance(state, {"classifier": params}, {"classifier": opt}), metrics

    def classify(
        self, state: State, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Returns logits."""
        return self.net.apply(variables(state, "classifier"), images)[0]

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Returns logits and the negative log-likelihood of the true class."""
        logits = self.classify(state, batch["image"])
        return {"logits": logits, "nll": cross_entropy(logits, batch["label"])}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Averages over all examples."""
        rows = list(rows)
        right = np.concatenate([outputs["logits"].argmax(axis=-1) == batch["label"] for batch, outputs in rows])
        return {"accuracy": right.mean(), "nll": np.concatenate([outputs["nll"] for _, outputs in rows]).mean()}

    @functools.partial(jax.jit, static_argnums=0)
    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Shows the images with the highest loss, framed, and augmented images."""
        images, labels = batch["image"], batch["label"]
        logits = self.classify(state, images)
        hardest = jnp.argsort(cross_entropy(logits, labels), descending=True)[:64]
        framed = frame(images[hardest], (logits.argmax(-1) != labels)[hardest])
        return {"hardest": framed, "augmented": jitter(key, images[:64], *self.augmentation)}

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Returns class probabilities and the most probable class."""
        probabilities = jax.nn.softmax(self.classify(state, inputs["image"]))
        return {"probability": probabilities, "label": probabilities.argmax(axis=-1)}


def frame(
    images: Float[Array, "batch height width channels"], wrong: Bool[Array, " batch"], magnify: int = 4
) -> Float[Array, "batch framed_height framed_width 3"]:
    """Returns grey or RGB images magnified, framed by magnify / 2 pixels: in red if `wrong`, else in dark grey."""
    images = images.repeat(magnify, axis=1).repeat(magnify, axis=2)
    images = jnp.broadcast_to(images, (*images.shape[:3], 3))
    border = magnify // 2
    inside = jnp.pad(jnp.ones(images.shape[1:3], bool), border)[..., None]
    colours = jnp.where(wrong[:, None], jnp.array([1.0, 0.2, 0.2]), 0.25)[:, None, None]
    return jnp.where(inside, jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0))), colours)
