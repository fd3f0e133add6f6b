"""The common parts of all segmenters: training, evaluation at several scales, figures and pictures."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, Key, Shaped

from cvjax.core import Batch, Metrics, Pictures, State, Variables, advance, check_images, descend, start, variables
from cvjax.data.transforms.scene import INSTANCES
from cvjax.errors import UserError, suggest
from cvjax.losses import segmentation as losses
from cvjax.losses.segmentation import MapLoss
from cvjax.metrics import instances, plots
from cvjax.metrics import segmentation as metrics
from cvjax.signature import Positive

Images = Float[Array, "batch height width channels"]
Logits = Float[Array, "batch height width classes"]
Maps = Int32[Array, "batch height width"]

SHOWN = 8  # images in a picture
GAP = 3  # pixels between objects that count as touching: `separate` paints a border of two between those that do


@dataclasses.dataclass(frozen=True)
class Inference:
    """How images are segmented once a network is trained: `config.recipe.inference` of every segmenter.

    Attributes:
      scales: factors by which images are resized; the probabilities of all are averaged.
      flip: average over mirrored images too.
    """

    scales: tuple[Positive, ...] = (1.0,)
    flip: bool = False


def average_probabilities(segment: Callable[[Images], Logits], images: Images, inference: Inference) -> Logits:
    """Returns probabilities averaged over scales and mirror images (Chen et al., DeepLab, 2016, arXiv:1606.00915)."""
    batch, *size, channels = images.shape
    found = []
    for scale in inference.scales:
        scaled = [max(1, round(scale * side)) for side in size]
        resized = _resize(images, (batch, *scaled, channels))
        for mirrored in (False, True)[: 1 + inference.flip]:
            logits = segment(resized[:, :, ::-1] if mirrored else resized)
            logits = _resize(logits, (batch, *size, logits.shape[-1]))
            found.append(jax.nn.softmax(logits[:, :, ::-1] if mirrored else logits))
    return sum(found) / len(found)


def _resize(images: Array, shape: Sequence[int]) -> Array:
    """Resizes by bilinear interpolation, as torch's `interpolate(align_corners=False)` does."""
    return images if images.shape == tuple(shape) else jax.image.resize(images, shape, "bilinear", antialias=False)


CROSS_ENTROPY, ONE_SCALE = MapLoss(), Inference()


def check_loss(loss: MapLoss, classes: Sequence[str]) -> None:
    """Raises a UserError if a loss has no part, or not a weight for each class."""
    if loss.class_weights and len(loss.class_weights) != len(classes):
        raise UserError(
            f"config.recipe.loss.class_weights has {len(loss.class_weights)} numbers, and there are {len(classes)} "
            "classes: give one for each, or () for equal weights."
        )
    if not (loss.cross_entropy or loss.focal or loss.dice or loss.lovasz):
        raise UserError("config.recipe.loss: all weights are 0. Set cross_entropy, focal, dice or lovasz.")


@dataclasses.dataclass(frozen=True)
class Segmenter(abc.ABC):
    """Base of the segmenters, which add networks, `begin` and `forward`; attributes are arguments of `unet.recipe`."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    truth: str
    weights: str
    loss: MapLoss
    inference: Inference
    ema: float
    tx: optax.GradientTransformation

    @property
    @abc.abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""

    @abc.abstractmethod
    def begin(self, key: Key[Array, ""], images: Images) -> dict[str, Variables]:
        """Initialises the networks."""

    @abc.abstractmethod
    def forward(
        self, key: Key[Array, ""] | None, held: Mapping[str, Variables], images: Images
    ) -> tuple[Logits, dict[str, Any]]:
        """Returns (logits of all pixels, new batch statistics by network in training); without a key, evaluates."""

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their common optimiser and their averages."""
        check_images(batch, self.shape)
        for argument, name in {"truth": self.truth, "weights": self.weights}.items():
            if name and name not in batch:
                raise UserError(
                    f"config.recipe.{argument}={name!r}: the examples have no such map. data.class_maps names "
                    f"those of classes, and the transform border_weights adds a map of weights. {suggest(name, batch)}"
                )
        networks = self.begin(key, jnp.zeros((1, *self.shape)))
        opt = {"segmenter": self.tx.init({name: network["params"] for name, network in networks.items()})}
        return start(networks, opt, averaged=tuple(networks) if self.ema else ())

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the loss."""
        labels = batch[self.truth].astype(jnp.int32)
        weights = batch[self.weights].reshape(labels.shape) if self.weights else None

        def loss_fn(params):
            held = {name: {"params": params[name], "batch_stats": state.stats.get(name, {})} for name in params}
            logits, stats = self.forward(key, held, batch["image"])
            parts = losses.parts(logits, labels, self.loss, weights)
            _, known = losses.split_void(labels, len(self.classes))
            right = (logits.argmax(-1) == labels).sum() / jnp.maximum(known.sum(), 1)
            return sum(parts.values()), ({f"loss/{name}": part for name, part in parts.items()}, right, stats)

        params, opt, loss, (parts, right, stats) = descend(self.tx, loss_fn, state.params, state.opt["segmenter"])
        state = advance(state, params, {"segmenter": opt}, stats, keep=self.ema)
        return state, {**parts, "loss/total": loss, "pixel_accuracy": right}

    @partial(jax.jit, static_argnums=0)
    def segment(self, state: State, images: Images) -> Maps:
        """Finds the most probable class of each pixel."""
        held = {name: variables(state, name) for name in self.networks}
        return average_probabilities(lambda x: self.forward(None, held, x)[0], images, self.inference).argmax(-1)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Segments a batch and counts the confusions of each image."""
        found = self.segment(state, batch["image"])
        return {
            "segmentation": found,
            "confusions": metrics.confusions(batch[self.truth], found, len(self.classes)),
        }

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes `metrics.segmentation.figures`; with maps `instances`, also those of their connected components."""
        objects = instances.Tally(gap=GAP)
        found = metrics.figures(self._count(rows, objects), self.classes, self.truth)
        return found | (objects.figures() if objects.found + objects.missed else {})

    def _count(self, rows: Iterable[tuple[Mapping, Mapping]], objects: instances.Tally) -> Iterator:
        for batch, outputs in rows:
            if INSTANCES in batch:
                objects.add(batch[INSTANCES], outputs["segmentation"])
            yield batch, outputs

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Maps]:
        """Segments images."""
        return {"segmentation": self.segment(state, inputs["image"])}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws images with their true maps, the maps found and the errors."""
        images = batch["image"][:SHOWN]
        arrays = map(np.asarray, (images, batch[self.truth][:SHOWN], self.segment(state, images)))
        return {"segmentations": plots.draw_segmentations(*arrays, self.classes)}
