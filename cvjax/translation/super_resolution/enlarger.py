"""What the systems of super-resolution share: training on pictures made smaller, figures, pictures, and tiles.

Whole pictures of different sizes are evaluated on canvases of one size (the transform `canvas`); beyond a picture its
canvas is mirrored, so that it is shrunk as if it were alone, and networks see mirrors below it and on its right, where
they would see zeros. Sides that are not multiples of the factor are cut, below and on the right. Figures are those of
Timofte et al., NTIRE 2017 Challenge on Single Image Super-Resolution, 2017; eight ways to see a picture are in section
3.4 of Lim et al. (arXiv:1707.02921).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, Shaped

from cvjax.core import Batch, Metrics, Pictures, State, Variables, advance, descend, start, variables
from cvjax.errors import UserError
from cvjax.metrics.image import WINDOW, Convention, psnr, ssim
from cvjax.ops.precision import at_least_float32
from cvjax.ops.resampling import resize, symmetric_indices
from cvjax.ops.tiling import map_tiles
from cvjax.translation.style_losses import means, perceptual_distance, ratios
from cvjax.translation.super_resolution.degradation import Degradation, degrade, fit_factor
from cvjax.translation.super_resolution.details import draw_details

Images = Float[Array, "batch height width channels"]
Image = Float[Array, "height width channels"]
Smaller = Float[Array, "batch rows columns channels"]
Large = Float[Array | np.ndarray, "batch height width channels"]

Picture = Float[np.ndarray, "_ _ channels"]

SHOWN = 4  # pictures that are drawn

# --- losses -------------------------------------------------------------------------------------------------------


def l1_loss(made: Images, truth: Images) -> Float[Array, ""]:
    """Returns the mean absolute difference."""
    return jnp.abs(at_least_float32(made) - truth).mean()


def squared_loss(made: Images, truth: Images) -> Float[Array, ""]:
    """Returns the mean squared difference in the range [-1, 1], four times that of images in [0, 1]."""
    return jnp.square(2 * (at_least_float32(made) - truth)).mean()


LOSSES = {"l1": l1_loss, "mse": squared_loss}

# --- pictures -----------------------------------------------------------------------------------------------------


def mean_of_eight(enlarge: Callable[[Smaller], Images], images: Smaller) -> Images:
    """Returns the mean of a function's results for images mirrored and turned in all eight ways, turned back."""
    flips = ((), (1,), (2,), (1, 2))
    total = 0.0
    for turned in (False, True):
        seen = images.swapaxes(1, 2) if turned else images
        found = enlarge(jnp.concatenate([jnp.flip(seen, axes) for axes in flips]))
        found = sum(jnp.flip(part, axes) for part, axes in zip(jnp.split(found, len(flips)), flips, strict=True))
        total += found.swapaxes(1, 2) if turned else found
    return total / (2 * len(flips))


def sizes_inside(batch: Batch, scale: int) -> Int[Array, "batch 2"]:
    """Returns height and width of the pictures on their canvases, down to a multiple of `scale`.

    The map `inside` of the transform `canvas` says where a picture is; without it, a picture is all of its image.
    """
    images = batch["image"]
    if "inside" in batch:
        inside = batch["inside"][..., 0] > 0.5
        sides = jnp.stack([inside.any(axis=2).sum(axis=1), inside.any(axis=1).sum(axis=1)], axis=1)
    else:
        sides = jnp.broadcast_to(jnp.array(images.shape[1:3]), (len(images), 2))
    return (sides // scale * scale).astype(jnp.int32)


def mirror_beyond(image: Image, size: Int[Array, "2"]) -> Image:
    """Returns an image whose rows below a height, and columns beyond a width, mirror those before."""
    rows, columns = (
        symmetric_indices(jnp.arange(side), jnp.maximum(kept, 1))
        for side, kept in zip(image.shape[:2], size, strict=True)
    )
    return image[rows][:, columns]


# --- the system ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Enlarger:
    """The recipe's functions; the attributes are the arguments of the recipes, with the optimiser built.

    `net` takes images in [0, 1] of any size, and `train`; its property `reach` says how far a pixel is seen.
    """

    net: nn.Module
    scale: int
    degradation: Degradation
    loss: Literal["l1", "mse"]
    tx: optax.GradientTransformation
    tile: int
    self_ensemble: bool
    name = "enlarger"
    any_size = True

    def __post_init__(self):
        """Checks the degradation."""
        self.degradation.check()

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that enlarges."""
        return {self.name: self.net}

    @property
    def convention(self) -> Convention:
        """What PSNR and SSIM compare."""
        return Convention("y", border=self.scale)

    @property
    def margin(self) -> int:
        """Pixels around a tile that are computed with it: all that the network sees."""
        return self.net.reach

    def check(self, batch: Batch) -> None:
        """Raises a UserError for training images that are too small, on canvases, or of channels that JPEG has not."""
        height, width, channels = batch["image"].shape[1:]
        if self.degradation.jpeg[1] > 0 and channels not in (1, 3):
            raise UserError(
                f"config.recipe.degradation.jpeg={self.degradation.jpeg}: JPEG has 1 or 3 channels, these images have "
                f"{channels}; (0, 0) is none."
            )
        if min(height, width) < self.scale:
            raise UserError(
                f"images of {height}x{width} cannot be made {self.scale} times smaller: make them larger by "
                'data.transforms, such as dict(op="random_crop", size=96).'
            )
        if "inside" in batch:
            raise UserError(
                'data.transforms: the transform "canvas" is for data.eval_transforms; train on crops, such as '
                f'dict(op="random_crop", size={48 * self.scale}).'
            )

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network."""
        self.check(batch)
        held = self.net.init(key, self._one_small(batch))
        return start({self.name: held}, opt={self.name: self.tx.init(held["params"])})

    def _one_small(self, batch: Batch) -> Images:
        """An image of the size that the network takes."""
        height, width, channels = batch["image"].shape[1:]
        return jnp.zeros((1, height // self.scale, width // self.scale, channels))

    def enlarge(self, held: Variables, low: Smaller) -> Images:
        """Returns images enlarged, not clipped to [0, 1]."""
        apply = functools.partial(self.net.apply, held)
        return mean_of_eight(apply, low) if self.self_ensemble else apply(low)

    def pairs(self, key: Key[Array, ""], batch: Batch) -> tuple[Images, Smaller]:
        """Returns a batch's images, and the same made smaller."""
        truth = fit_factor(batch["image"], self.scale)
        return truth, degrade(key, truth, self.scale, self.degradation)

    def make(self, state: State, params: Mapping, low: Smaller) -> tuple[Images, Mapping]:
        """Returns images enlarged as in training, and the new batch statistics, if any."""
        held = {**variables(state, self.name, averaged=False), "params": params}
        made, changed = self.net.apply(held, low, train=True, mutable=["batch_stats"])
        return made, changed.get("batch_stats", {})

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the mean difference of enlarged images from the true ones."""
        truth, low = self.pairs(key, batch)

        def loss_fn(params):
            made, stats = self.make(state, params, low)
            return LOSSES[self.loss](made, truth), stats

        params, opt, loss, stats = descend(self.tx, loss_fn, state.params[self.name], state.opt[self.name])
        return advance(state, {self.name: params}, {self.name: opt}, {self.name: stats}), {"loss/total": loss}

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Makes each image smaller and large again: by the network, `image`, and by interpolations.

        `size` has height and width of each picture on its canvas. Images are worked on one after another, and those
        that only pad the batch are left out.
        """
        images, sizes = fit_factor(batch["image"], self.scale), sizes_inside(batch, self.scale)
        held = variables(state, self.name)

        def one(key, image, size):
            low = degrade(key, mirror_beyond(image, size)[None], self.scale, self.degradation)
            whole = image.shape[:2]
            found = {kernel: resize(low, whole, kernel) for kernel in ("bicubic", "lanczos")}
            return {name: value[0] for name, value in ({"image": self.enlarge(held, low), "low": low} | found).items()}

        def one_or_none(arguments):
            *given, valid = arguments
            shapes = jax.eval_shape(one, *given)
            none = lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)  # noqa: E731
            return jax.lax.cond(valid, lambda: one(*given), none)

        keys, valid = jax.random.split(key, len(images)), batch.get("valid", jnp.ones(len(images), bool))
        return {**jax.lax.map(one_or_none, (keys, images, sizes, valid)), "size": sizes}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `edsr.recipe`, each the mean over pictures."""
        return means([self.measure(*picture) for batch, outputs in rows for picture in cut(batch, outputs)])

    def check_size(self, truth: Picture) -> None:
        """Raises a UserError for a held-out picture that is too small to be measured."""
        height, width = truth.shape[:2]
        least = least_side(self.scale)
        if min(height, width) < least:
            raise UserError(
                f"a held-out picture of {height}x{width} is too small to be measured, each side needs {least} pixels. "
                f'Which it is, data.eval_transforms says with dict(op="canvas", size=..., least={least}).'
            )

    def measure(self, truth: Picture, found: Mapping[str, Picture]) -> dict[str, Float[np.ndarray, "1"]]:
        """Returns the figures of one picture, found in several ways: "image", "bicubic", "lanczos"."""
        self.check_size(truth)
        by_psnr, by_ssim = (
            {name: measure(truth[None], picture[None], self.convention) for name, picture in found.items()}
            for measure in (psnr, ssim)
        )
        figures = {
            "psnr_y": by_psnr["image"],
            "ssim_y": by_ssim["image"],
            "psnr_bicubic": by_psnr["bicubic"],
            "psnr_lanczos": by_psnr["lanczos"],
            "psnr_over_bicubic": by_psnr["image"] - by_psnr["bicubic"],
            "psnr_over_lanczos": by_psnr["image"] - by_psnr["lanczos"],
            "ssim_over_bicubic": by_ssim["image"] - by_ssim["bicubic"],
        }
        distance = perceptual_distance()
        if distance is None:
            return figures
        seen = {name: distance(truth[None], np.clip(found[name], 0, 1)[None]) for name in ("image", "bicubic")}
        return figures | {"lpips": seen["image"], "lpips_over_bicubic": ratios(seen["image"], seen["bicubic"])}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws held-out pictures, and a detail of each as interpolated, as found and as it is."""
        first = {name: value[:SHOWN] for name, value in batch.items() if name in ("image", "inside", "valid")}
        outputs = jax.device_get(self._eval_step(state, first, key))
        kept = jax.device_get(first.get("valid", jnp.ones(len(first["image"]), bool)))
        shown = [pair for pair, there in zip(cut(jax.device_get(first), outputs), kept, strict=True) if there]
        for truth, _ in shown:
            self.check_size(truth)
        return {"enlarged": draw_details(shown, self.scale, self.convention)}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Large]:
        """Enlarges images of any size; those much larger than a tile in tiles, beyond whose borders they are mirrored.

        A tile is computed with the margin that the network sees, so that inside the picture nothing shows where tiles
        meet; only within that margin of the border do results differ from those of the whole, which is framed by zeros.
        """
        images, margin = inputs["image"], self.margin
        height, width, channels = images.shape[1:]
        if isinstance(images, jax.core.Tracer) or max(height, width) <= self.tile + 2 * margin:
            return {"image": self._enlarge(state, jnp.asarray(images), 0)}
        large = np.empty((len(images), self.scale * height, self.scale * width, channels), np.float32)
        see = lambda window: self._enlarge(state, jnp.asarray(window), margin)  # noqa: E731
        for image, out in zip(np.asarray(images), large, strict=True):
            map_tiles(see, image, self.tile, margin, self.scale, out=out)
        return {"image": large}

    @functools.partial(jax.jit, static_argnums=0)
    def _eval_step(self, state, batch, key):
        return self.eval_step(state, batch, key)

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def _enlarge(self, state, low, margin):
        made, cut_off = self.enlarge(variables(state, self.name), low), self.scale * margin
        made = made[:, cut_off : made.shape[1] - cut_off, cut_off : made.shape[2] - cut_off]
        return jnp.clip(made, 0, 1)


def least_side(scale: int) -> int:
    """Returns the least side of a picture to be measured: SSIM's window between borders, a multiple of `scale`."""
    return -(-(WINDOW + 2 * scale) // scale) * scale


def cut(batch: Mapping, outputs: Mapping) -> list[tuple[Picture, dict[str, Picture]]]:
    """Returns each picture and what was found of it, without the rest of the canvas."""
    pictures = []
    for row, (height, width) in enumerate(outputs["size"].tolist()):
        found = {name: outputs[name][row, :height, :width] for name in ("bicubic", "lanczos", "image")}
        pictures.append((batch["image"][row, :height, :width], found))
    return pictures
