"""What autoregressive models of pixels share: likelihood, sampling and recipe (van den Oord et al., 2016).

p(image) is the product of p(value | all values before) in raster order, R before G before B (arXiv:1601.06759,
equations 1 and 2), each a softmax over the levels of a value. A network is a Linen module that gives the logits of all
values at once, `net(images, labels, train)`, and those of one pixel of an image under way by two methods:

    net.above(images, labels, (row,))                   what the rows above tell the pixels of a row, before the first
    net.across(images, labels, above, (row, column))    logits of one pixel, which is told its part of that

These read and write the variable collection "cache", which a call of the first kind fills where it is mutable.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from cvjax import optim
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, advance, check_images, descend, start, variables

Images = Float[Array, "batch height width channels"]
Logits = Float[Array, "batch height width channels levels"]
Labels = Int[Array, " batch"]

# --- likelihood ---------------------------------------------------------------------------------------------------


def quantise(images: Images, levels: int) -> Int[Array, "batch height width channels"]:
    """Rounds images to their levels.

    Args:
      images: in [0, 1].
      levels: of a value.

    Returns:
      Whole numbers from 0 to levels - 1.
    """
    return jnp.round(images * (levels - 1)).astype(jnp.int32)


def log_likelihood(logits: Logits, images: Images) -> Images:
    """Computes log p of each value given all before, in nats; over an image they sum to its log-likelihood.

    Args:
      logits: of each value's levels.
      images: in [0, 1].

    Returns:
      One a value.
    """
    index = quantise(images, logits.shape[-1])
    return jnp.take_along_axis(jax.nn.log_softmax(logits), index[..., None], axis=-1)[..., 0]


def bits_per_dim(logits: Logits, images: Images) -> Float[Array, " batch"]:
    """Computes the negative log-likelihood of each image in bits, by the number of its values.

    Args:
      logits: of each value's levels.
      images: in [0, 1].

    Returns:
      One an image: log2(levels) for a uniform model.
    """
    return -log_likelihood(logits, images).mean(axis=(1, 2, 3)) / math.log(2)


def likeliest_class(
    apply: Callable[[Images, Labels], Logits], images: Images, classes: int, rows: int | None = None
) -> Labels:
    """Finds by Bayes' rule, all classes being as frequent, the class of each image from its upper rows.

    Args:
      apply: (images, labels) -> logits of a class-conditional model.
      images: in [0, 1].
      classes: how many there are.
      rows: how many rows are known; all by default.

    Returns:
      The class under which those are likeliest.
    """

    def known(label):
        logits = apply(images, jnp.full(len(images), label))
        return log_likelihood(logits, images)[:, :rows].sum(axis=(1, 2, 3))

    return lax.map(known, jnp.arange(classes)).argmax(axis=0).astype(jnp.int32)


# --- sampling -----------------------------------------------------------------------------------------------------


def draw_value(
    key: Key[Array, ""], index: int | Int[Array, ""], logits: Float[Array, "batch levels"]
) -> Float[Array, " batch"]:
    """Draws a value of each image by the Gumbel-max trick, with noise that depends on the value's place alone.

    So two ways to the same logits, equal but for rounding, draw the same levels.

    Args:
      key: of the images.
      index: which of an image's values, in order.
      logits: of its levels.

    Returns:
      Values in [0, 1].
    """
    noise = jax.random.gumbel(jax.random.fold_in(key, index), logits.shape, logits.dtype)
    return (logits + noise).argmax(axis=-1) / (logits.shape[-1] - 1)


def sample_naively(key: Key[Array, ""], apply: Callable[[Images], Logits], images: Images, rows: int = 0) -> Images:
    """Draws images value by value, each from the logits of whole images: what `sample` does, by definition.

    Args:
      key: of the draws.
      apply: images -> logits.
      images: in [0, 1]; their first rows are kept.
      rows: how many rows are kept.

    Returns:
      Images in [0, 1].
    """
    _, height, width, channels = images.shape

    def draw(index, images):
        row, column, channel = index // (width * channels), index // channels % width, index % channels
        value = draw_value(key, index, apply(images)[:, row, column, channel])
        return images.at[:, row, column, channel].set(value)

    return lax.fori_loop(rows * width * channels, height * width * channels, draw, images.at[:, rows:].set(0.0))


def sample(
    key: Key[Array, ""], net: nn.Module, params: PyTree, images: Images, labels: Labels | None = None, rows: int = 0
) -> Images:
    """Draws images value by value, computing what each draw changes and no more; jit it.

    Of what the layers made of the values before, each keeps the rows that it sees. The levels are those that
    `sample_naively` draws: their logits are sums in another order, in float32 the same to 1e-5 or better, and a draw in
    100,000 or fewer is so near to a tie that it could differ.

    Args:
      key: of the draws.
      net: as the module's docstring has it.
      params: of the network.
      images: in [0, 1]; their first rows are kept.
      labels: of the images, for class-conditional networks.
      rows: how many rows are kept.

    Returns:
      Images in [0, 1].
    """
    _, height, width, channels = images.shape
    images, known = images.at[:, rows:].set(0.0), images[:, : max(rows, 1)]
    _, filled = net.apply({"params": params}, known, labels, mutable=["cache"])
    cache = filled.get("cache", {})  # a network that sees the image alone has none
    cache = cache if rows else jax.tree.map(jnp.zeros_like, cache)

    def call(method, cache, *arguments):
        outputs, changed = net.apply({"params": params, "cache": cache}, *arguments, method=method, mutable=["cache"])
        return outputs, changed.get("cache", {})

    def draw_row(row, carry):
        images, cache = carry
        above, cache = call("above", cache, images, labels, (row,))

        def draw(index, carry):
            images, cache = carry
            column, channel = index // channels, index % channels
            told = jax.tree.map(lambda wide: lax.dynamic_slice_in_dim(wide, column, 1, axis=2), above)
            logits, cache = call("across", cache, images, labels, told, (row, column))
            value = draw_value(key, row * width * channels + index, logits[:, 0, 0, channel])
            return images.at[:, row, column, channel].set(value), cache

        return lax.fori_loop(0, width * channels, draw, (images, cache))

    return lax.fori_loop(rows, height, draw_row, (images, cache))[0]


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PixelModel:
    """An autoregressive network that learns by likelihood, is averaged, and draws, completes and is judged.

    Attributes:
      name: of its entry in the state's parameters.
      net: as the module's docstring has it, with the attributes `levels` and `classes`.
      shape: height, width, channels of the images.
      ema: share of the averaged parameters that each step keeps.
      tx: the optimiser.
    """

    name: str
    net: nn.Module
    shape: tuple[int, int, int]
    ema: float
    tx: optax.GradientTransformation

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Returns the network under its name."""
        return {self.name: self.net}

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        """Returns what `sample` reads beside the count."""
        return ("label",) if self.net.classes else ()

    def snap(self, images: Images) -> Images:
        """Rounds to the levels: what is told of the values before may be no finer than what they count as."""
        return quantise(images, self.net.levels) / (self.net.levels - 1)

    def labels(self, batch: Batch) -> Labels | None:
        """Returns what the network is told of a batch."""
        return batch["label"] if self.net.classes else None

    def bits(self, params: PyTree, images: Images, labels: Labels | None, **options: Any) -> Float[Array, " batch"]:
        """Computes bits per dimension of each image; options are those of `net.apply`."""
        return bits_per_dim(self.net.apply({"params": params}, images, labels, **options), images)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes parameters and their average."""
        check_images(batch, self.shape)
        networks = {self.name: self.net.init(key, batch["image"], self.labels(batch))}
        return start(networks, {self.name: self.tx.init(networks[self.name]["params"])}, averaged=(self.name,))

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes one step down the bits per dimension."""
        images, labels, name = self.snap(batch["image"]), self.labels(batch), self.name

        def loss_fn(params):
            return self.bits(params, images, labels, train=True, rngs={"dropout": key}).mean(), None

        params, opt, loss, _ = descend(self.tx, loss_fn, state.params[name], state.opt[name])
        return advance(state, {name: params}, {name: opt}, keep=self.ema), {"loss/bits_per_dim": loss}

    @functools.partial(jax.jit, static_argnums=0, static_argnames="rows")
    def draw(
        self, key: Key[Array, ""], state: State, images: Images, labels: Labels | None = None, rows: int = 0
    ) -> Images:
        """Draws what is below the first rows of images, by the averaged parameters."""
        return sample(key, self.net, variables(state, self.name)["params"], images, labels, rows)

    @functools.partial(jax.jit, static_argnums=0, static_argnames="rows")
    def complete(self, key: Key[Array, ""], state: State, images: Images, rows: int) -> Images:
        """Draws the same of whichever class the images are likeliest."""
        images, labels = self.snap(images), None
        if self.net.classes:

            def apply(images, labels):
                return self.net.apply(variables(state, self.name), images, labels)

            labels = likeliest_class(apply, images, self.net.classes, rows)
        return self.draw(key, state, images, labels, rows=rows)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Computes the bits per dimension of held-out images and of samples, one of the class of each."""
        images, labels = self.snap(batch["image"]), self.labels(batch)
        params = variables(state, self.name)["params"]
        samples = self.draw(key, state, jnp.zeros_like(images), labels)
        return {"bits": self.bits(params, images, labels), "sample_bits": self.bits(params, samples, labels)}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes bits_per_dim, sample_bits_per_dim of the model's own samples, and sample_gap between the two."""
        rows = [outputs for _, outputs in rows]
        held_out, own = (float(np.concatenate([r[name] for r in rows]).mean()) for name in ("bits", "sample_bits"))
        return {"bits_per_dim": held_out, "sample_bits_per_dim": own, "sample_gap": abs(own - held_out)}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws a square of samples, a row a class, and lower halves to images whose upper halves are known."""
        draw_key, complete_key = jax.random.split(key)
        half, whole = self.shape[0] // 2, batch["image"][:8, None]
        completed = self.complete(complete_key, state, jnp.repeat(batch["image"][:8], 6, axis=0), rows=half)
        known = whole.at[:, :, half:].set(0.5)
        rows = jnp.concatenate([whole, known, completed.reshape(-1, 6, *self.shape)], axis=1)  # 8 columns
        side = min(self.net.classes or 8, 10)
        labels = jnp.repeat(jnp.arange(side), side) if self.net.classes else None
        samples = self.draw(draw_key, state, jnp.zeros((side**2, *self.shape)), labels)
        return {"samples": samples, "completions": rows.reshape(-1, *self.shape)}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Draws the lower halves of images."""
        return {"image": self.complete(key, state, inputs["image"], rows=self.shape[0] // 2)}

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Draws images of the classes in `label`, or of all classes in turn."""
        count, labels = inputs["count"], None
        if self.net.classes:
            labels = jnp.asarray(inputs.get("label", np.arange(count) % self.net.classes), jnp.int32)
        return {"image": self.draw(key, state, jnp.zeros((count, *self.shape)), labels)}


def make_recipe(name: str, net: nn.Module, shape: Sequence[int], ema: float, optimiser: Mapping[str, Any]) -> Recipe:
    """Makes the recipe of an autoregressive network.

    Args:
      name: as `PixelModel` has it, and so are what follows, except that the optimiser is to be built.
      net: the network.
      shape: height, width, channels of the images.
      ema: share of the averaged parameters that each step keeps.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `PixelModel.score`.
    """
    return Recipe.of(PixelModel(name, net, tuple(shape), ema, optim.build(optimiser)))
