"""What the channels of a network look for: patches that activate them, their projections, and images made for them.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv:1311.2901), figure 2; Olah,
Mordvintsev & Schubert, Feature Visualization, 2017 (distill.00007).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cvjax.core import Batch, Network, Pictures, Recipe, State, start, variables
from cvjax.errors import UserError, number_of
from cvjax.interpret import gates, top_patches
from cvjax.interpret.activation_maximisation import Ascent, channel_objective, diversity, maximise
from cvjax.interpret.layers import check
from cvjax.interpret.receptive_field import receptive_fields
from cvjax.nets.capture import OUTPUT, Activations, Images, activations_of
from cvjax.signature import Count, NonNegative

ASCENT = Ascent()
TILE = 64  # side in pixels of the pictures in a sheet


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of another run's network. The attributes are the arguments of `recipe`."""

    net: Network
    layers: tuple[str, ...]
    channels: int
    patches: int
    size: int
    diversity: float
    ascent: Ascent
    train_step = None
    sample_inputs = ("label",)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that is looked into."""
        return {"net": self.net.module}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the network."""
        check(self.net, self.layers, batch["image"].shape[1:])
        check(self.net, self.layers, (self.size, self.size, self.net.shape[-1]), "set config.recipe.size to its side")
        return start({}, {}, frozen={"net": self.net.module.init(key, batch["image"])})

    def activations(self, state: State, images: Images, *layers: str) -> Activations:
        """Returns the activations of some layers, by default of all that are looked at."""
        return activations_of(self.net.module, layers or self.layers)(variables(state, "net"), images)

    def made(
        self, key: Key[Array, ""], state: State, layer: str
    ) -> tuple[Float[Array, "channels height width colours"], Float[Array, " channels"]]:
        """Returns an image for each of the first channels of a layer, and how active the channel is on it."""
        shape = (1, self.size, self.size, self.net.shape[-1])
        count = self._count(state, layer)

        def make(
            key: Key[Array, ""], channel: Int[Array, ""]
        ) -> tuple[Float[Array, "height width colours"], Float[Array, ""]]:
            def objective_fn(images: Images) -> Float[Array, " batch"]:
                return channel_objective(self.activations(state, images, layer)[layer], channel)

            images, _ = maximise(key, lambda images: objective_fn(images).sum(), shape, self.ascent)
            return images[0], objective_fn(images)[0]

        return jax.vmap(make)(jax.random.split(key, count), jnp.arange(count))

    def _count(self, state: State, layer: str) -> int:
        image = jax.ShapeDtypeStruct((1, self.size, self.size, self.net.shape[-1]), jnp.float32)
        shape = jax.eval_shape(lambda images: self.activations(state, images, layer), image)[layer].shape
        return min(self.channels, shape[-1])

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch _"]]:
        """Returns how active the first channels of each layer are on every image, and on those made for them."""
        rows, images = {}, batch["image"]
        for layer, layer_key in zip(self.layers, jax.random.split(key, len(self.layers)), strict=True):
            activations = self.activations(state, images, layer)[layer]
            places = activations.reshape(len(images), -1, activations.shape[-1])
            _, best = self.made(layer_key, state, layer)
            rows[f"real/{layer}"] = places.mean(axis=1)[:, : len(best)]
            rows[f"made/{layer}"] = jnp.broadcast_to(best, (len(images), len(best)))
        return rows

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows, figures = [outputs for _, outputs in rows], {}
        for layer in self.layers:
            real, made = (np.concatenate([row[f"{kind}/{layer}"] for row in rows]) for kind in ("real", "made"))
            largest = real.max(axis=0)
            alive = largest > 0
            ratio = made[0][alive] / largest[alive]
            figures[f"activation_over_best/{layer}"] = float(np.median(ratio)) if alive.any() else 0.0
        return {"activation_over_best": min(figures.values()), **figures}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws a sheet for each layer: a row for a channel, with the image made for it, patches and projections."""
        images, pictures = batch["image"], {}
        fields = receptive_fields(functools.partial(self.activations, state), images.shape[1:])
        for layer, layer_key in zip(self.layers, jax.random.split(key, len(self.layers)), strict=True):
            made = np.asarray(self._made(state, layer_key, layer))
            found = jax.device_get(self._strongest(state, images, layer))
            channels, count = found.image.shape
            chosen, row, column = (leaf.reshape(-1) for leaf in (found.image, found.row, found.column))
            channel = np.arange(channels).repeat(count)
            originals = images[chosen]
            projected = self._project(state, originals, layer, channel, row, column)
            groups = {
                "patches": top_patches.cut(np.asarray(originals), fields[layer], row, column),
                "projections": top_patches.cut(top_patches.legible(np.asarray(projected)), fields[layer], row, column),
            }
            columns = {"made": _tiles(made, channels)}
            columns |= {name: _tiles(patches, channels) for name, patches in groups.items()}
            pictures[f"features/{layer}"] = top_patches.sheet(columns)
        return pictures

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Makes `count` different images of one class, `label`, or one for each of the last layer's first channels."""
        if "label" in inputs:
            return {"image": self._of_class(state, key, jnp.asarray(inputs["label"])[0], inputs["count"])}
        found = dataclasses.replace(self, channels=inputs["count"])._made(state, key, self.layers[-1])
        if len(found) < inputs["count"]:
            raise UserError(
                f"--count={inputs['count']}: the layer {self.layers[-1]!r} has {number_of(len(found), 'channel')}."
            )
        return {"image": found}

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def _made(self, state, key, layer):
        return self.made(key, state, layer)[0]

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _of_class(self, state, key, label, count):
        def objective_fn(images):
            found = self.activations(state, images, OUTPUT, self.layers[-1])
            unlike = diversity(found[self.layers[-1]]) if found[self.layers[-1]].ndim == 4 else 0.0
            return channel_objective(found[OUTPUT], label).sum() + self.diversity * unlike

        return maximise(key, objective_fn, (count, self.size, self.size, self.net.shape[-1]), self.ascent)[0]

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def _strongest(self, state, images, layer):
        maxima = top_patches.spatial_maxima(self.activations(state, images, layer)[layer])
        return top_patches.strongest(*(leaf[:, : self.channels] for leaf in maxima), min(self.patches, len(images)))

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def _project(self, state, images, layer, channel, row, column):
        read = gates.deconvnet(lambda images: self.activations(state, images, layer))
        return top_patches.projections(read, images, layer, channel, row, column)


def _tiles(pictures: np.ndarray, channels: int) -> np.ndarray:
    """Pictures [channels, count, TILE, TILE, 3], enlarged by whole pixels where that fits."""
    shape = (len(pictures), TILE, TILE, pictures.shape[-1])
    tiles = np.asarray(jax.image.resize(pictures, shape, "nearest"))
    return np.broadcast_to(tiles, (*tiles.shape[:-1], 3)).reshape(channels, -1, TILE, TILE, 3)


def recipe(
    net: Network,
    layers: tuple[str, ...] = ("relu2_1", "relu3_2", "relu4_2", "relu5_2"),
    channels: Count = 8,
    patches: Count = 9,
    size: Count = 64,
    diversity: NonNegative = 0.0,
    ascent: Ascent = ASCENT,
) -> Recipe:
    """Makes pictures of what a network's channels look for. Nothing is trained.

    Args:
      net: the network; `config.borrow.net` names it.
      layers: to look at, as the network's `capture` names them, or "output".
      channels: number of channels of each layer, from the first.
      patches: number of patches of a channel. The sheet is of one batch, and each batch makes the channels' images
        again: `data.eval_batch` should be the size of the whole split.
      size: side in pixels of the images made for channels.
      diversity: weight of the difference between the images of one class, as `apply --count=N --label=CLASS` makes
        them.
      ascent: how images are made.

    Returns:
      The recipe. Figures: activation_over_best/<layer>, a channel's mean activation on the image made for it over the
      largest on any image of the dataset, the median of the channels; activation_over_best, the least of these.
    """
    return Recipe.of(Features(net, tuple(layers), channels, patches, size, diversity, ascent))
