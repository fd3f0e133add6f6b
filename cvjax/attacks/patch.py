"""A universal patch that makes a classifier see one class wherever it lies: Brown et al., Adversarial Patch, 2017.

arXiv:1712.09665, section 2: the expected log-probability of the target over images, places, sizes and angles, all drawn
again at every step, is maximised over the pixels of the patch. Its region may be a disc or worn: the frame of glasses
(Sharif et al., Accessorize to a Crime, 2016, whose smoothness term is here too) or a shirt (Xu et al., Adversarial
T-shirt!, 2020; arXiv:1910.11099), without that paper's model of creases. Beside it lies a patch of random pixels.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, Shaped

from cvjax import optim
from cvjax.attacks.attack import COLUMNS, Attack, Images, check_sizes, columns
from cvjax.attacks.regions import Mask, Region, mask_of
from cvjax.core import Batch, Metrics, Network, Pictures, Recipe, State, advance, descend, start, variables
from cvjax.errors import UserError, number_of
from cvjax.losses.variation import total_variation
from cvjax.metrics import plots, robustness
from cvjax.ops.drawing import label_text
from cvjax.signature import Count, Natural, NonNegative, Range

Print = Float[Array, "rows columns channels"]  # a patch, in [0, 1]
Numbers = Float[Array, "*batch"]
ANGLES = 3  # at which success is measured, from none to the largest

# --- patches ------------------------------------------------------------------------------------------------------


@flax.struct.dataclass
class Placement:
    """Where patches lie: one in each image.

    Attributes:
      y, x: the centre, in pixels.
      scale: pixels of the image per pixel of the patch.
      angle: in radians, clockwise.
    """

    y: Numbers
    x: Numbers
    scale: Numbers
    angle: Numbers


def scale_for(area: Float[Array, "*batch"], mask: Mask, height: int, width: int) -> Float[Array, "*batch"]:
    """Returns the scale at which the region of a mask has a share `area` of an image's pixels."""
    return jnp.sqrt(area * height * width / mask.sum())


def draw_placement(
    key: Key[Array, ""], area: Numbers, angle: Numbers, mask: Mask, height: int, width: int
) -> Placement:
    """Returns random places at which the patches lie inside of the images, if they are small enough.

    Args:
      area: shares of the image that they cover.
      angle: by which they are turned, in radians.
    """
    y_key, x_key = jax.random.split(key)
    scale = scale_for(area, mask, height, width)
    cos, sin = jnp.abs(jnp.cos(angle)), jnp.abs(jnp.sin(angle))
    rows, cols = (scale * size / 2 for size in mask.shape)
    halves = (rows * cos + cols * sin, cols * cos + rows * sin)  # of the box around the turned patch
    centres = []
    for axis_key, half, size in zip((y_key, x_key), halves, (height, width), strict=True):
        room = jnp.maximum(size / 2 - half, 0)
        centres.append(size / 2 + room * jax.random.uniform(axis_key, area.shape, minval=-1, maxval=1))
    return Placement(*centres, scale, angle)


def paste(images: Images, patch: Print, mask: Mask, place: Placement) -> Images:
    """Returns images with a patch over each, turned, scaled and shifted, read bilinearly; differentiable in the patch.

    Images and patch are in [0, 1], and so is what comes out.

    Args:
      mask: how much of each of the patch's pixels is printed; outside of it there is nothing.
    """
    _, height, width, _ = images.shape
    grid_y, grid_x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    printed = jnp.concatenate([patch * mask[..., None], mask[..., None]], axis=-1)

    def one(image, place):
        dy, dx = (grid_y - place.y) / place.scale, (grid_x - place.x) / place.scale
        cos, sin = jnp.cos(place.angle), jnp.sin(place.angle)
        y = cos * dy - sin * dx + mask.shape[0] / 2 - 0.5  # of the patch's pixels, whose centres are whole
        x = sin * dy + cos * dx + mask.shape[1] / 2 - 0.5
        drawn = bilinear(printed, y, x)
        return jnp.clip(image * (1 - drawn[..., -1:]) + drawn[..., :-1], 0, 1)  # it may be rounded to more than 1

    return jax.vmap(one)(images, place)


def bilinear(
    image: Float[Array, "rows columns channels"], y: Float[Array, "height width"], x: Float[Array, "height width"]
) -> Float[Array, "height width channels"]:
    """Returns the values of an image between its pixels, and 0 outside of it."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    y, x = (jnp.clip(place + 1, 0, size + 1) for place, size in zip((y, x), image.shape[:2], strict=True))
    top, left = (jnp.clip(jnp.floor(place), 0, size) for place, size in zip((y, x), image.shape[:2], strict=True))
    down, right = (y - top)[..., None], (x - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


class Patch(nn.Module):
    """A patch whose pixels are its parameters, by way of a sigmoid; the attributes are its shape.

    They are float32 in any precision, as images are: bfloat16 would round a bright pixel to a multiple of 1 / 256.
    """

    rows: int
    columns: int
    channels: int

    @nn.compact
    def __call__(self) -> Print:
        """Returns the patch, in [0, 1]."""
        shape = (self.rows, self.columns, self.channels)
        return nn.sigmoid(self.param("pixels", nn.initializers.normal(1.0), shape))


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PatchAttack(Attack):
    """The attack on another run's classifier. The attributes come from `recipe`'s arguments."""

    net: Patch
    region: Region
    target: int
    areas: tuple[float, ...]
    angle: float
    smoothness: float
    tx: optax.GradientTransformation
    predict_inputs = ()
    shows_outputs = True

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The patch, and the classifier that it attacks."""
        return {"patch": self.net, **super().networks}

    @property
    def mask(self) -> Mask:
        """The region on the patch."""
        return mask_of(self.region, self.net.columns)

    @property
    def angles(self) -> tuple[float, ...]:
        """Angles at which success is measured."""
        return tuple(np.linspace(0, self.angle, ANGLES).tolist()) if self.angle else (0.0,)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the patch and makes room for the classifier."""
        patch_key, classifier_key = jax.random.split(key)
        frozen = super().init(classifier_key, batch).frozen
        first = self.net.init(patch_key)
        return start({"patch": first}, {"patch": self.tx.init(first["params"])}, frozen=frozen)

    def place(self, key: Key[Array, ""], images: Images) -> Placement:
        """Draws areas, angles and places for training."""
        area_key, angle_key, place_key = jax.random.split(key, 3)
        batch, height, width, _ = images.shape
        area = jax.random.uniform(area_key, (batch,), minval=min(self.areas), maxval=max(self.areas))
        angle = jax.random.uniform(angle_key, (batch,), minval=-self.angle, maxval=self.angle)
        return draw_placement(place_key, area, angle, self.mask, height, width)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step up the log-probability of the target on images with the patch."""
        images = batch["image"]
        where, target = self.place(key, images), jnp.full(len(images), self.target)

        def loss_fn(params):
            patch = self.net.apply({"params": params})
            logits = self.classify(state, paste(images, patch, self.mask, where))
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()
            return loss + self.smoothness * total_variation(patch, mask=self.mask) / self.mask.sum(), (loss, logits)

        held = state.params["patch"], state.opt["patch"]
        params, opt, _, (loss, logits) = descend(self.tx, loss_fn, *held)
        metrics = {"loss/target": loss, "success": (logits.argmax(axis=-1) == self.target).mean()}
        return advance(state, {"patch": params}, {"patch": opt}), metrics

    def patches(self, key: Key[Array, ""], state: State) -> dict[str, Print]:
        """Returns the patch, and the control of random pixels."""
        made = self.net.apply(variables(state, "patch"))
        return {"patch": made, "random_patch": jax.random.uniform(key, made.shape)}

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Finds out which images are taken for the target with each patch, at every area and angle."""
        images = batch["image"]
        _, height, width, _ = images.shape
        patch_key, place_key = jax.random.split(key)
        grid = jnp.stack(jnp.meshgrid(jnp.array(self.areas), jnp.array(self.angles), indexing="ij"), -1).reshape(-1, 2)
        patches = self.patches(patch_key, state)

        def at(settings):
            area, angle = (jnp.full(len(images), value) for value in settings)
            where = draw_placement(place_key, area, angle, self.mask, height, width)
            pasted = {name: paste(images, patch, self.mask, where) for name, patch in patches.items()}
            return {name: self.classify(state, some).argmax(axis=-1) == self.target for name, some in pasted.items()}

        found = {
            name: rows.T.reshape(len(images), len(self.areas), len(self.angles))
            for name, rows in jax.lax.map(at, grid).items()
        }
        return {"right": self.classify(state, images).argmax(axis=-1) == batch["label"], **found}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = list(rows)
        self.check_rows(rows)
        counted = np.concatenate([batch["label"] for batch, _ in rows]) != self.target
        found = columns(rows)
        figures = {"accuracy": float(found.pop("right").mean())}
        return figures | robustness.patch_figures(found, counted, self.areas, self.angles)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""], outputs: Batch) -> Pictures:
        """Draws the patch, images that wear it, and success over size beside that of a random patch."""
        patch = np.asarray(self._print(state))
        worn = np.where(self.mask[..., None] > 0.5, patch, 1.0)
        images, place_key = batch["image"][:COLUMNS], jax.random.fold_in(key, 1)
        labels, sure = jax.device_get(self.decide(state, attacked := self._paste(state, images, place_key)))
        texts = self.captions(labels, sure)
        pictures = {
            "patch": plots.draw_gallery(
                worn[None], [f"{self.region} for {label_text(self.target, self.classifier.classes)}"], 2
            ),
            "patched": plots.draw_gallery(np.asarray(attacked), texts, COLUMNS, labels == self.target),
        }
        rows = jax.device_get(outputs)
        counted = np.asarray(batch["label"]) != self.target
        curves = {
            name.replace("_", " "): (np.array(self.areas), rows[name][counted].mean(axis=(0, 2)))
            for name in ("patch", "random_patch")
        }
        axes = "share of the image that the patch covers", "share taken for the target"
        return pictures | {"patch_success": plots.draw_curves(curves, number_of(int(counted.sum()), "image"), *axes)}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Puts the patch on images, at places and angles drawn at random, in the largest size.

        Returns the `image`, what it is classified as, `label` and `probability`, and the `clean_label`.
        """
        clean, _ = self.decide(state, inputs["image"])
        image = self._paste(state, inputs["image"], key)
        label, probability = self.decide(state, image)
        return {"image": image, "label": label, "probability": probability, "clean_label": clean}

    @functools.partial(jax.jit, static_argnums=0)
    def _print(self, state):
        return self.net.apply(variables(state, "patch"))

    @functools.partial(jax.jit, static_argnums=0)
    def _paste(self, state, images, key):
        angle_key, place_key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, (len(images),), minval=-self.angle, maxval=self.angle)
        area = jnp.full(len(images), max(self.areas))
        where = draw_placement(place_key, area, angle, self.mask, *images.shape[1:3])
        return paste(images, self._print(state), self.mask, where)


def recipe(
    classifier: Network,
    target: Natural = 0,
    region: Region = "disc",
    size: Count = 32,
    areas: tuple[Annotated[float, Range(1e-4, 1)], ...] = (0.05, 0.1, 0.2, 0.3),
    angle: Annotated[float, Range(0, 3.2)] = 0.4,
    smoothness: NonNegative = 0.0,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 0.1},
) -> Recipe:
    """Makes a patch that leads a classifier of another run to one class.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it.
      target: number of the class that images with the patch should be taken for.
      region: where the patch is printed.
      size: pixels of the patch from left to right.
      areas: shares of the image that a patch covers where success is measured; training draws them evenly from the
        smallest to the largest.
      angle: largest turn either way, in radians.
      smoothness: weight of the patch's total variation.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures, over the images of other classes: patch_success_<area>, the share that is taken for the
      target, over three angles, and patch_turned_<angle>, over the areas; the same of random_patch, one of random
      pixels; accuracy of the classifier on the images as they are.

    Raises:
      UserError: a target that is not one of the classifier's classes; no areas, or two that share their first three
        digits.
    """
    classes = len(classifier.classes)
    if classes and target >= classes:
        raise UserError(f"config.recipe.target={target}: the classifier has {classes} classes, 0 to {classes - 1}.")
    rows, cols = mask_of(region, size).shape
    net = Patch(rows, cols, classifier.shape[-1])
    areas = check_sizes("areas", areas)
    return Recipe.of(PatchAttack(classifier, net, region, target, areas, angle, smoothness, optim.build(optimiser)))
