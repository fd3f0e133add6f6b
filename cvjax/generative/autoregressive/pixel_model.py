"""What autoregressive models of pixels share: likelihood, sampling and recipe (van den Oord et al., 2016).

p(image) is the product of p(value | all values before) in raster order, R before G before B (arXiv:1601.06759,
equations 1 and 2), each a softmax over the levels of a value. A network is a Linen module that computes the logits of
all values at once, `net(images, labels, train)`, and for sampling those of one pixel, in two steps:

    net.context(images, labels, (row,))                    from the rows above, once for all pixels of a row
    net.logits(images, labels, context, (row, column))     from its part of the context, and the pixels to its left

Both use the variable collection "cache", which a call for all values fills where the collection is mutable.
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
from cvjax.signature import Count, Share

Images = Float[Array, "batch height width channels"]
Logits = Float[Array, "batch height width channels levels"]
Labels = Int[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes of an autoregressive network.

    Attributes:
      layers: number of residual blocks, gated layers or recurrent layers.
      width: number of their features.
      first_kernel: height and width of the first layer's kernel.
      kernel: height and width of the other layers' kernels; of recurrent layers, the width.
      head: features of the last hidden layer.
      dropout: share of hidden features dropped while training.
    """

    layers: Count = 15
    width: Count = 128
    first_kernel: Count = 7
    kernel: Count = 3
    head: Count = 1024
    dropout: Share = 0.0


# --- likelihood ---------------------------------------------------------------------------------------------------


def quantise(images: Images, levels: int) -> Int[Array, "batch height width channels"]:
    """Returns the nearest levels, 0 to levels - 1, of images in [0, 1]."""
    return jnp.round(images * (levels - 1)).astype(jnp.int32)


def log_likelihood(logits: Logits, images: Images) -> Images:
    """Returns log p of each value given all before, in nats."""
    index = quantise(images, logits.shape[-1])
    return jnp.take_along_axis(jax.nn.log_softmax(logits), index[..., None], axis=-1)[..., 0]


def bits_per_dim(logits: Logits, images: Images) -> Float[Array, " batch"]:
    """Returns the negative log-likelihood of each image in bits, divided by the number of its values."""
    return -log_likelihood(logits, images).mean(axis=(1, 2, 3)) / math.log(2)


def likeliest_class(
    apply: Callable[[Images, Labels], Logits], images: Images, classes: int, rows: int | None = None
) -> Labels:
    """Returns the class under which the first rows of an image (None: all) are likeliest, by Bayes' rule."""

    def log_likelihood_of_rows(label):
        logits = apply(images, jnp.full(len(images), label))
        return log_likelihood(logits, images)[:, :rows].sum(axis=(1, 2, 3))

    return lax.map(log_likelihood_of_rows, jnp.arange(classes)).argmax(axis=0).astype(jnp.int32)


# --- sampling -----------------------------------------------------------------------------------------------------


def draw_value(
    key: Key[Array, ""], index: int | Int[Array, ""], logits: Float[Array, "batch levels"]
) -> Float[Array, " batch"]:
    """Returns a value of each image, drawn by the Gumbel-max trick; the noise depends on key and index alone."""
    noise = jax.random.gumbel(jax.random.fold_in(key, index), logits.shape, logits.dtype)
    return (logits + noise).argmax(axis=-1) / (logits.shape[-1] - 1)


def sample_naively(key: Key[Array, ""], apply: Callable[[Images], Logits], images: Images, rows: int = 0) -> Images:
    """Returns images whose rows after the first are drawn value by value from the logits of whole images."""
    _, height, width, channels = images.shape

    def draw(index, images):
        row, column, channel = index // (width * channels), index // channels % width, index % channels
        value = draw_value(key, index, apply(images)[:, row, column, channel])
        return images.at[:, row, column, channel].set(value)

    return lax.fori_loop(rows * width * channels, height * width * channels, draw, images.at[:, rows:].set(0.0))


def sample(
    key: Key[Array, ""], net: nn.Module, params: PyTree, images: Images, labels: Labels | None = None, rows: int = 0
) -> Images:
    """Returns images drawn value by value with cached activations, except the first `rows` rows, which are kept.

    Jit it. The levels are those of `sample_naively`: the logits are sums in another order, equal to 1e-5 in float32, so
    that fewer than one draw in 100,000 is close enough to a tie to differ.
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
        context, cache = call("context", cache, images, labels, (row,))

        def draw(index, carry):
            images, cache = carry
            column, channel = index // channels, index % channels
            part = jax.tree.map(lambda wide: lax.dynamic_slice_in_dim(wide, column, 1, axis=2), context)
            logits, cache = call("logits", cache, images, labels, part, (row, column))
            value = draw_value(key, row * width * channels + index, logits[:, 0, 0, channel])
            return images.at[:, row, column, channel].set(value), cache

        return lax.fori_loop(0, width * channels, draw, (images, cache))

    return lax.fori_loop(rows, height, draw_row, (images, cache))[0]


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PixelModel:
    """The recipe's functions; its attributes are the arguments of `make_recipe`, with the optimiser built."""

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
        """Returns the inputs of `sample` beside the count."""
        return ("label",) if self.net.classes else ()

    def quantised(self, images: Images) -> Images:
        """Rounds images to the levels: the network must not see finer values than those that the likelihood is of."""
        return quantise(images, self.net.levels) / (self.net.levels - 1)

    def labels(self, batch: Batch) -> Labels | None:
        """Returns the labels of a batch, for class-conditional networks."""
        return batch["label"] if self.net.classes else None

    def bits(self, params: PyTree, images: Images, labels: Labels | None, **options: Any) -> Float[Array, " batch"]:
        """Computes bits per dimension of each image; options are those of `net.apply`."""
        return bits_per_dim(self.net.apply({"params": params}, images, labels, **options), images)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network, its optimiser and its average."""
        check_images(batch, self.shape)
        networks = {self.name: self.net.init(key, batch["image"], self.labels(batch))}
        return start(networks, {self.name: self.tx.init(networks[self.name]["params"])}, averaged=(self.name,))

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes one step down the bits per dimension."""
        images, labels, name = self.quantised(batch["image"]), self.labels(batch), self.name

        def loss_fn(params):
            return self.bits(params, images, labels, train=True, rngs={"dropout": key}).mean(), None

        params, opt, loss, _ = descend(self.tx, loss_fn, state.params[name], state.opt[name])
        return advance(state, {name: params}, {name: opt}, keep=self.ema), {"loss/bits_per_dim": loss}

    @functools.partial(jax.jit, static_argnums=0, static_argnames="rows")
    def draw(
        self, key: Key[Array, ""], state: State, images: Images, labels: Labels | None = None, rows: int = 0
    ) -> Images:
        """Draws all rows of images but the first."""
        return sample(key, self.net, variables(state, self.name)["params"], images, labels, rows)

    @functools.partial(jax.jit, static_argnums=0, static_argnames="rows")
    def complete(self, key: Key[Array, ""], state: State, images: Images, rows: int) -> Images:
        """Draws all rows of images but the first, of the class under which those are likeliest."""
        images, labels = self.quantised(images), None
        if self.net.classes:

            def apply(images, labels):
                return self.net.apply(variables(state, self.name), images, labels)

            labels = likeliest_class(apply, images, self.net.classes, rows)
        return self.draw(key, state, images, labels, rows=rows)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Computes the bits per dimension of the images and of samples, one of each image's class."""
        images, labels = self.quantised(batch["image"]), self.labels(batch)
        params = variables(state, self.name)["params"]
        samples = self.draw(key, state, jnp.zeros_like(images), labels)
        return {"bits": self.bits(params, images, labels), "sample_bits": self.bits(params, samples, labels)}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Averages the bits per dimension."""
        rows = [outputs for _, outputs in rows]
        held_out, own = (float(np.concatenate([r[name] for r in rows]).mean()) for name in ("bits", "sample_bits"))
        return {"bits_per_dim": held_out, "sample_bits_per_dim": own, "sample_gap": abs(own - held_out)}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws samples, a class in each row, and completions of images from their upper halves."""
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
    """Returns the recipe of an autoregressive network, trained by maximum likelihood.

    Its figures are bits_per_dim of the evaluation split, sample_bits_per_dim of the model's own samples, and
    sample_gap, the difference of the two. The network has the attributes `levels` and `classes`.

    Args:
      ema: share of the averaged network that each step keeps; (1 + step) / (10 + step) at first, where that is less.
    """
    return Recipe.of(PixelModel(name, net, tuple(shape), ema, optim.build(optimiser)))
