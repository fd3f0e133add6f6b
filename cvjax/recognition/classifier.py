"""A small convolutional classifier of digits.

Convolutions, subsampling by averages and dense layers as in LeNet (LeCun et al., Gradient-Based Learning Applied to
Document Recognition, 1998), with ReLU. Trained by cross-entropy on digits that are moved, turned and zoomed at random.
Its weights after the last step are the frozen judge of generated digits (`cvjax.weights.digit_classifier`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import optim
from cvjax.core import Recipe, State, check_images, descend
from cvjax.errors import UserError
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.signature import Count, Share

# --- augmentation -------------------------------------------------------------------------------------------------


def jitter(
    key: Key[Array, ""], images: Float[Array, "batch height width channels"], shift: float, angle: float, zoom: float
) -> Float[Array, "batch height width channels"]:
    """Moves, turns and zooms each image at random about its centre, bilinearly; black comes in from outside.

    Args:
      key: of the draws.
      images: the images.
      shift: largest move along each axis, in pixels.
      angle: largest turn either way, in radians.
      zoom: largest relative change of size.

    Returns:
      Images of the same shape.
    """
    batch, height, width, _ = images.shape
    shift_key, angle_key, zoom_key = jax.random.split(key, 3)
    moves = jax.random.uniform(shift_key, (batch, 2, 1, 1), minval=-shift, maxval=shift)
    angles = jax.random.uniform(angle_key, (batch,), minval=-angle, maxval=angle)
    scales = jax.random.uniform(zoom_key, (batch,), minval=1 - zoom, maxval=1 + zoom)
    cos, sin = scales * jnp.cos(angles), scales * jnp.sin(angles)
    turns = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    centre = jnp.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")) - centre
    sources = jnp.einsum("bij,jhw->bihw", turns, grid) + centre + moves  # where each pixel is read from

    def read(channel: Float[Array, "height width"], source: Float[Array, "2 height width"]):
        return jax.scipy.ndimage.map_coordinates(channel, [source[0], source[1]], order=1)

    return jax.vmap(jax.vmap(read, in_axes=(-1, None), out_axes=-1))(images, sources)


# --- losses -------------------------------------------------------------------------------------------------------


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Computes the cross-entropy with smoothed labels, in nats.

    Args:
      logits: unnormalised log-probabilities.
      labels: true classes.
      smoothing: share of the target spread evenly over all classes (Szegedy et al., arXiv:1512.00567, section 7).

    Returns:
      One value a row.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


# --- recipe -------------------------------------------------------------------------------------------------------


def recipe(
    shape: tuple[Count, Count, Count] = (8, 8, 1),
    classes: Count = 10,
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
      classes: number of classes.
      width: channels of the first stage.
      features: size of the hidden dense layer.
      dropout: share of the features dropped while training.
      label_smoothing: share of each target spread over all classes.
      shift: augmentation: largest move in pixels.
      angle: augmentation: largest turn in radians.
      zoom: augmentation: largest relative change of size.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures: accuracy, and nll, the mean negative log-probability of the true class in nats.

    Raises:
      UserError: a shape that cannot be halved twice.
    """
    if shape[0] % 4 or shape[1] % 4:
        raise UserError(f"config.recipe.shape={tuple(shape)}: height and width have to be divisible by 4.")
    net = DigitClassifier(classes, width, features, dropout)
    tx = optim.build(optimiser)

    def classify(state, images):
        return net.apply({"params": state.params["classifier"]}, images)

    def init(key, batch):
        check_images(batch, shape)
        params = net.init(key, batch["image"])["params"]
        return State(step=jnp.int32(0), params={"classifier": params}, opt={"classifier": tx.init(params)}, extra={})

    def train_step(state, batch, key):
        jitter_key, dropout_key = jax.random.split(key)
        images = jitter(jitter_key, batch["image"], shift, angle, zoom)

        def loss_fn(params):
            logits, _ = net.apply({"params": params}, images, train=True, rngs={"dropout": dropout_key})
            return cross_entropy(logits, batch["label"], label_smoothing).mean(), logits

        params, opt, loss, logits = descend(tx, loss_fn, state.params["classifier"], state.opt["classifier"])
        metrics = {"loss/cross_entropy": loss, "accuracy": (logits.argmax(-1) == batch["label"]).mean()}
        return state.replace(step=state.step + 1, params={"classifier": params}, opt={"classifier": opt}), metrics

    def eval_step(state, batch, key):
        logits, _ = classify(state, batch["image"])
        return {"logits": logits, "nll": cross_entropy(logits, batch["label"])}

    def score(rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        rows = list(rows)
        right = np.concatenate([outputs["logits"].argmax(axis=-1) == batch["label"] for batch, outputs in rows])
        return {"accuracy": right.mean(), "nll": np.concatenate([outputs["nll"] for _, outputs in rows]).mean()}

    @jax.jit
    def show(state, batch, key):
        images, labels = batch["image"], batch["label"]
        logits, _ = classify(state, images)
        hardest = jnp.argsort(cross_entropy(logits, labels), descending=True)[:64]
        framed = frame(images[hardest], (logits.argmax(-1) != labels)[hardest])
        return {"hardest": framed, "augmented": jitter(key, images[:64], shift, angle, zoom)}

    def visualise(state, batch, key):
        return show(state, batch, key)

    def predict(state, inputs):
        probabilities = jax.nn.softmax(classify(state, inputs["image"])[0])
        return {"probability": probabilities, "label": probabilities.argmax(axis=-1)}

    return Recipe(init, train_step, eval_step, score, visualise, predict)


def frame(
    images: Float[Array, "batch height width channels"], wrong: Bool[Array, " batch"], magnify: int = 4
) -> Float[Array, "batch framed_height framed_width 3"]:
    """Magnifies images and frames them, red where the classifier is wrong, dark grey elsewhere.

    Args:
      images: in [0, 1], one channel or three.
      wrong: whether the classifier is.
      magnify: pixels a side for each pixel; the frame is half as wide.

    Returns:
      Colour images in [0, 1].
    """
    images = images.repeat(magnify, axis=1).repeat(magnify, axis=2)
    images = jnp.broadcast_to(images, (*images.shape[:3], 3))
    border = magnify // 2
    inside = jnp.pad(jnp.ones(images.shape[1:3], bool), border)[..., None]
    colours = jnp.where(wrong[:, None], jnp.array([1.0, 0.2, 0.2]), 0.25)[:, None, None]
    return jnp.where(inside, jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0))), colours)
