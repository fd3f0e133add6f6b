"""A classifier of the people of training, whose features embed people that it never saw.

As in Taigman et al., DeepFace: Closing the Gap to Human-Level Performance in Face Verification, 2014: a softmax over
all known people, of which the layer before is kept. The softmax itself cannot say "nobody I know": `called_known` tells
how often it gives new people a known name.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from cvjax import optim
from cvjax.core import Batch, Pictures, Recipe, State, class_names, variables
from cvjax.errors import UserError, suggest
from cvjax.nets.resnet import stage_strides
from cvjax.ops.precision import at_least_float32
from cvjax.recognition import unseen
from cvjax.recognition.embedding import BACKBONE, OPTIMISER, Backbone, draw
from cvjax.recognition.image_classifier import ImageClassifier, ResNetClassifier
from cvjax.recognition.metric_losses import Embeddings, unit
from cvjax.signature import Count, Share

SURE = 0.5  # probability of a name


@dataclasses.dataclass(frozen=True)
class SoftmaxFeatures(ImageClassifier):
    """A classifier that is judged by its activations `layer`, on people unseen in training."""

    layer: str
    flip_test: bool

    def embed(self, state: State, images: Float[Array, "batch _ _ _"]) -> tuple[Embeddings, Float[Array, "batch _"]]:
        """Returns the unit vectors of a layer's activations, averaged over places if it has any, and logits.

        With `flip_test` the vectors are those of images and of their mirror images together.
        """
        embeddings, logits = self.read(state, images)
        if self.flip_test:
            embeddings = unit(embeddings + self.read(state, images[:, :, ::-1])[0])
        return embeddings, logits

    def read(self, state: State, images: Float[Array, "batch _ _ _"]) -> tuple[Embeddings, Float[Array, "batch _"]]:
        """Returns the same of the images as they are."""
        logits, activations = self.net.apply(variables(state, "classifier"), images)
        found = at_least_float32(activations[self.layer])
        return unit(found.mean(axis=tuple(range(1, found.ndim - 1)))), logits

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Embeds the images, with the probability of the most probable known person."""
        embeddings, logits = self.embed(state, batch["image"])
        return {"embedding": embeddings, "confidence": jax.nn.softmax(at_least_float32(logits)).max(axis=-1)}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        labels, outputs = unseen.columns(rows)
        called_known = {"called_known": float((outputs["confidence"] > SURE).mean())}
        return unseen.figures(outputs["embedding"], labels) | called_known

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws the pictures of `cvjax.recognition.unseen`, of one batch."""
        return draw(key, self, state, batch)

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Returns the embeddings of images, and the probability of the most probable known person."""
        return self.eval_step(state, inputs, key)


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    layer: str = "features",
    backbone: Backbone = BACKBONE,
    dropout: Share = 0.0,
    label_smoothing: Share = 0.0,
    ema: Share = 0.0,
    flip_test: bool = False,
    optimiser: Mapping[str, Any] = OPTIMISER,
) -> Recipe:
    """Makes a classifier of known people, judged by its features on unknown ones.

    Args:
      shape: height, width, channels of the images.
      classes: number of people, or their names.
      layer: the activations that are the embedding: "features", which the softmax reads, or a stage "c2", "c3", ...
      backbone: the network; a group of keys, of which `size` does not count.
      dropout: share of the mean features dropped while training.
      label_smoothing: share of each target spread over all people.
      ema: share of the averaged network, the one that is judged, that each step keeps; 0: none.
      flip_test: judge and embed by the direction of the sum of an image's embedding and its mirror image's.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.recognition.unseen.figures`, and `called_known`: the share of the
      pictures, all of people unseen, that are given a known name with a probability above one half.

    Raises:
      UserError: not one to four strides, or a layer that the network does not have.
    """
    layers = [*stage_strides(backbone.stem, backbone.strides), "features"]
    if layer not in layers:
        raise UserError(f"config.recipe.layer={layer!r}: the network has no such layer. {suggest(layer, layers)}")
    names = class_names(classes)
    net = ResNetClassifier(len(names), backbone.depth, backbone.width, backbone.stem, backbone.strides, dropout)
    base = (net, tuple(shape), names, label_smoothing, ema, optim.build(optimiser))
    return Recipe.of(SoftmaxFeatures(*base, layer, flip_test))
