"""DeepDream: pictures in which a network sees more of what it already sees in them.

Mordvintsev, Olah & Tyka, Inceptionism: Going Deeper into Neural Networks, 2015: gradient ascent on the energy of some
layers, with steps of equal mean size, at random offsets, from small octaves of the picture to the picture itself. The
control is noise of the size of the dream.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cvjax.core import Batch, Network, Pictures, Recipe, State, start, variables
from cvjax.interpret.layers import check
from cvjax.nets.capture import Activations, Images, activations_of
from cvjax.signature import Count, Natural, Positive, Range

COLUMNS = 8  # images that are drawn
EnergyFn = Callable[[Images], Float[Array, " batch"]]

# --- dreams -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Octaves:
    """How a picture is dreamt on.

    Attributes:
      count: number of octaves; fewer on pictures of which the smallest would be below 16 pixels.
      scale: of the sizes of two octaves that follow one another.
      steps: of the ascent, in each octave.
      step_size: mean change of a pixel by a step.
      jitter: pixels that the picture is moved by at most before a step, along each axis, around the border.
    """

    count: Count = 4
    scale: Annotated[float, Range(1, 8)] = 1.4
    steps: Count = 10
    step_size: Positive = 1.5 / 255
    jitter: Natural = 16

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Returns the sizes of the octaves, smallest first; the last is that of the picture."""
        sizes = [(round(height / self.scale**n), round(width / self.scale**n)) for n in range(self.count)]
        return [size for size in reversed(sizes[1:]) if min(size) >= 16] + [(height, width)]


def energy(activations: Activations) -> Float[Array, " batch"]:
    """Returns the mean square of each image's activations, averaged over the layers."""
    parts = [jnp.square(layer).reshape(len(layer), -1).mean(axis=1) for layer in activations.values()]
    return jnp.stack(parts).mean(axis=0)


def ascend(
    key: Key[Array, ""], energy_fn: EnergyFn, images: Images, steps: int, step_size: float, jitter: int
) -> Images:
    """Returns images after steps up the gradient of their energy, each scaled to a mean change of `step_size`.

    Args:
      jitter: as in `Octaves`.
    """

    def step(images: Images, key: Key[Array, ""]) -> tuple[Images, None]:
        offset = jax.random.randint(key, (2,), -jitter, jitter + 1)
        moved = jnp.roll(images, offset, axis=(1, 2))
        gradient = jax.grad(lambda images: energy_fn(images).sum())(moved)
        size = jnp.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
        moved = jnp.clip(moved + step_size * gradient / (size + 1e-12), 0, 1)
        return jnp.roll(moved, -offset, axis=(1, 2)), None

    return jax.lax.scan(step, images, jax.random.split(key, steps))[0]


def dream(key: Key[Array, ""], energy_fn: EnergyFn, images: Images, octaves: Octaves = Octaves()) -> Images:
    """Returns dreams on images in [0, 1]: what is added to an octave is enlarged and ascended on in the next.

    Args:
      energy_fn: images -> what is to become large in each.
    """
    batch, height, width, channels = images.shape
    sizes = octaves.sizes(height, width)
    detail = jnp.zeros((batch, *sizes[0], channels))
    for size, octave_key in zip(sizes, jax.random.split(key, len(sizes)), strict=True):
        shape = (batch, *size, channels)
        octave = jax.image.resize(images, shape, "linear")
        begun = jnp.clip(octave + jax.image.resize(detail, shape, "linear"), 0, 1)
        detail = ascend(octave_key, energy_fn, begun, octaves.steps, octaves.step_size, octaves.jitter) - octave
    return octave + detail


def zoom(images: Images, factor: float | Float[Array, ""]) -> Images:
    """Returns images enlarged by a factor about their middle, at their size; bilinear."""
    height, width = images.shape[1:3]
    scale = jnp.full(2, factor, jnp.float32)
    shift = jnp.array([height, width]) / 2 * (1 - scale)
    method = dict(method="linear", antialias=False)
    return jax.image.scale_and_translate(images, images.shape, (1, 2), scale, shift, **method)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DeepDream:
    """The dreams of another run's network. The attributes are the arguments of `recipe`."""

    net: Network
    layers: tuple[str, ...]
    octaves: Octaves
    train_step = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that dreams."""
        return {"net": self.net.module}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the network."""
        height, width, channels = batch["image"].shape[1:]
        check(self.net, self.layers, (height, width, channels))
        for size in self.octaves.sizes(height, width)[:-1]:
            check(self.net, self.layers, (*size, channels), "set config.recipe.octaves.count to 1")
        return start({}, {}, frozen={"net": self.net.module.init(key, batch["image"])})

    def energy(self, state: State, images: Images) -> Float[Array, " batch"]:
        """Returns the energy of the layers."""
        return energy(activations_of(self.net.module, self.layers)(variables(state, "net"), images))

    def dream(self, key: Key[Array, ""], state: State, images: Images) -> Images:
        """Dreams on images."""
        return dream(key, functools.partial(self.energy, state), images, self.octaves)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, " batch"]]:
        """Measures the energy before and after a dream, and after noise of the same size."""
        dream_key, noise_key = jax.random.split(key)
        images = batch["image"]
        dreamt = self.dream(dream_key, state, images)
        size = jnp.sqrt(jnp.square(dreamt - images).mean(axis=(1, 2, 3), keepdims=True))
        noisy = jnp.clip(images + size * jax.random.normal(noise_key, images.shape), 0, 1)
        before, after, control = (self.energy(state, one) + 1e-12 for one in (images, dreamt, noisy))  # dead layers
        return {
            "energy_gain": after / before,
            "noise_energy_gain": control / before,
            "rms_change": size.reshape(-1),
        }

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = [outputs for _, outputs in rows]
        values = {name: np.concatenate([outputs[name] for outputs in rows]) for name in rows[0]}
        gains = {name: float(np.exp(np.log(values[name]).mean())) for name in ("energy_gain", "noise_energy_gain")}
        return {**gains, "rms_change": float(values["rms_change"].mean())}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws dreams beside the images that they began with."""
        images = batch["image"][:COLUMNS]
        return {"real": images, "dreams": self._dream(state, key, images)}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Dreams on images."""
        return {"image": self._dream(state, key, inputs["image"])}

    @functools.partial(jax.jit, static_argnums=0)
    def _dream(self, state, key, images):
        return self.dream(key, state, images)


def recipe(net: Network, layers: tuple[str, ...] = ("relu4_2",), octaves: Octaves = Octaves()) -> Recipe:
    """Makes the dreams of a network. Nothing is trained.

    Args:
      net: the network; `config.borrow.net` names it.
      layers: whose energy is raised, as the network's `capture` names them: deeper ones dream of larger things.
      octaves: how a picture is dreamt on.

    Returns:
      The recipe. Figures: energy_gain, the energy of the layers after a dream over that before, a geometric mean;
      noise_energy_gain, the same after noise of the same size; and rms_change, of a pixel.
    """
    return Recipe.of(DeepDream(net, tuple(layers), octaves))
