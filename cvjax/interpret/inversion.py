"""Images that have the code of a given image: Mahendran & Vedaldi, Understanding Deep Image Representations, 2015.

arXiv:1412.0035. The loss is the squared distance of the codes over the squared norm of the given one (equation 4), and
natural images are preferred by the alpha norm and the total variation (section 2.1). Both are means over pixels in the
units of the paper's sequel (Visualizing Deep Convolutional Neural Networks Using Natural Pre-Images, 2016, section 4),
so that their weights do not depend on the size of the images. Where a code leaves much open, several starts find
several images.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Array, Float, Key

from cvjax.core import Batch, Network, Pictures, Recipe, State, start, variables
from cvjax.errors import UserError
from cvjax.interpret.layers import check
from cvjax.interpret.top_patches import sheet
from cvjax.losses.variation import total_variation
from cvjax.nets.capture import Images, activations_of
from cvjax.signature import Count, NonNegative, Positive

Code = Float[Array, "batch ..."]
ROWS = 4  # images that are drawn
FIGURES = ("code_error", "psnr", "spread")

# --- loss ---------------------------------------------------------------------------------------------------------


def code_error(code: Code, target: Code) -> Float[Array, " batch"]:
    """Returns |code - target|^2 / |target|^2 of each image: 0 is equal, 1 is as far as an empty code.

    Where the target is 0 everywhere, it is not divided.
    """
    axes = tuple(range(1, code.ndim))
    size = jnp.square(target).sum(axis=axes)
    return jnp.square(code - target).sum(axis=axes) / jnp.where(size > 0, size, 1)


def alpha_norm(
    images: Images, alpha: float = 6.0, mean: float | Float[Array, "..."] = 0.5, unit: float = 80 / 255
) -> Float[Array, " batch"]:
    """Returns the mean over pixels of (|image - mean| / unit) ** alpha, where |.| is over the colours.

    Args:
      mean: is subtracted: one number, or a colour.
      unit: a usual distance from the mean.
    """
    lengths = jnp.square((images - mean) / unit).sum(axis=-1)
    lengths = lengths if alpha >= 2 else lengths + 1e-8  # finite gradients at the mean
    return (lengths ** (alpha / 2)).mean(axis=(1, 2))


def variation(images: Images, beta: float = 2.0, unit: float = 80 / 255 / 6.5) -> Float[Array, " batch"]:
    """Returns the mean over pixels of the total variation, in units of a usual difference of neighbours."""
    return total_variation(images / unit, beta) / (images.shape[1] * images.shape[2])


# --- descent ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Descent:
    """How images are found.

    Attributes:
      steps: of Adam.
      learning_rate: at the first step, in the image's range [0, 1]; it falls to 0 along a cosine.
      alpha, beta: of `alpha_norm` and `variation`.
      alpha_weight, variation_weight: of these two in the loss, beside the code's error.
      deviation: of the noise around grey that is started from.
    """

    steps: Count = 200
    learning_rate: Positive = 0.03
    alpha: Positive = 6.0
    beta: Positive = 2.0
    alpha_weight: NonNegative = 1e-3
    variation_weight: NonNegative = 5e-4
    deviation: NonNegative = 0.1


def invert(
    key: Key[Array, ""],
    code_fn: Callable[[Images], Code],
    target: Code,
    shape: tuple[int, int, int],
    descent: Descent = Descent(),
) -> tuple[Images, Float[Array, " steps"]]:
    """Finds images of a shape whose codes are `target`, starting from noise, in one scan.

    Returns the images, in [0, 1], and the sum of their losses before each step. Map it over keys by `jax.vmap` for
    several starts.

    Args:
      descent: steps and weights.
    """
    images = 0.5 + descent.deviation * jax.random.normal(key, (len(target), *shape))
    tx = optax.adam(optax.cosine_decay_schedule(descent.learning_rate, descent.steps))

    def loss(images: Images) -> Float[Array, ""]:
        natural = descent.alpha_weight * alpha_norm(images, descent.alpha)
        natural += descent.variation_weight * variation(images, descent.beta)
        return (code_error(code_fn(images), target) + natural).sum()

    def step(carry: tuple, _: None) -> tuple:
        images, opt = carry
        value, gradient = jax.value_and_grad(loss)(images)
        updates, opt = tx.update(gradient, opt)
        return (jnp.clip(optax.apply_updates(images, updates), 0, 1), opt), value

    (images, _), values = jax.lax.scan(step, (jnp.clip(images, 0, 1), tx.init(images)), length=descent.steps)
    return images, values


def psnr(found: Float[Array, "*starts batch h w c"], images: Images) -> Float[Array, "*starts batch"]:
    """Returns the peak signal-to-noise ratio of images in [0, 1], in dB."""
    return -10 * jnp.log10(jnp.square(found - images).mean(axis=(-3, -2, -1)) + 1e-12)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Inversion:
    """The inversion of another run's network. The attributes are the arguments of `recipe`."""

    net: Network
    layers: tuple[str, ...]
    starts: int
    descent: Descent
    train_step = None
    shows_outputs = True

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that is inverted."""
        return {"net": self.net.module}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the network."""
        check(self.net, self.layers, batch["image"].shape[1:])
        return start({}, {}, frozen={"net": self.net.module.init(key, batch["image"])})

    def invert_layer(
        self, key: Key[Array, ""], state: State, images: Images, layer: str
    ) -> tuple[Float[Array, "starts batch height width channels"], Float[Array, "starts batch"]]:
        """Returns what each start finds for the codes of images in one layer, and the errors of the codes."""
        read = functools.partial(activations_of(self.net.module, (layer,)), variables(state, "net"))

        def code_fn(images: Images) -> Code:
            return read(images)[layer]

        target = code_fn(images)
        keys = jax.random.split(key, self.starts)
        found, _ = jax.vmap(lambda key: invert(key, code_fn, target, images.shape[1:], self.descent))(keys)
        return found, jax.vmap(lambda found: code_error(code_fn(found), target))(found)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Inverts images from each layer; returns errors, PSNR and how far the starts lie apart, by layer.

        Also the `inversions` of the first start from each layer, and those of all `starts` from the last.
        """
        images, rows = batch["image"], {"code_error": [], "psnr": [], "spread": [], "inversions": []}
        for layer, layer_key in zip(self.layers, jax.random.split(key, len(self.layers)), strict=True):
            found, errors = self.invert_layer(layer_key, state, images, layer)
            rows["code_error"].append(errors.mean(axis=0))
            rows["psnr"].append(psnr(found, images).mean(axis=0))
            rows["spread"].append(jnp.sqrt(found.var(axis=0).mean(axis=(1, 2, 3))))
            rows["inversions"].append(found[0])
        stacked = {name: jnp.stack(values, axis=1) for name, values in rows.items()}
        return stacked | {"starts": found.swapaxes(0, 1)}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = [{name: outputs[name] for name in FIGURES} for _, outputs in rows]
        means = {name: np.concatenate([outputs[name] for outputs in rows]).mean(axis=0) for name in FIGURES}
        figures = {}
        if len(self.layers) > 1:
            figures["psnr_by_depth"] = float(scipy.stats.spearmanr(range(len(self.layers)), means["psnr"]).statistic)
            figures["psnr_drop"] = float(means["psnr"][0] - means["psnr"][-1])
        figures["code_error"] = float(means["code_error"].max())
        for name, values in means.items():
            figures |= {f"{name}/{layer}": float(value) for layer, value in zip(self.layers, values, strict=True)}
        return figures

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""], outputs: Batch) -> Pictures:
        """Draws images with what the first start finds from every layer, and what all starts find from the last."""
        images = np.asarray(batch["image"][:ROWS])[:, None]
        groups = {name: np.asarray(outputs[name][:ROWS]) for name in ("inversions", "starts")}
        return {name: _rgb_sheet({"image": images, name: found}) for name, found in groups.items()}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Returns the `image` found for the code of each image in the last layer."""
        return {"image": self._invert(state, key, inputs["image"], self.layers[-1])[0]}

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _invert(self, state, key, images, layer):
        return self.invert_layer(key, state, images, layer)[0]


def _rgb_sheet(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return sheet({name: np.broadcast_to(part, (*part.shape[:-1], 3)) for name, part in columns.items()})


def recipe(
    net: Network,
    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_2", "relu4_2", "relu5_2"),
    starts: Count = 2,
    descent: Descent = Descent(),
) -> Recipe:
    """Makes the inversion of a network's layers. Nothing is trained.

    Args:
      net: the network; `config.borrow.net` names it.
      layers: whose codes are inverted, from the first to the deepest, as the network's `capture` names them.
      starts: number of random starts for each image and layer.
      descent: how images are found.

    Returns:
      The recipe. Figures: code_error/<layer>, psnr/<layer>, and spread/<layer>, the standard deviation of a pixel over
      the starts; code_error, the largest of these; psnr_by_depth, the rank correlation of a layer's place and its PSNR,
      -1 if that falls from layer to layer; and psnr_drop, in dB, from the first layer to the last.

    Raises:
      UserError: a layer is named twice.
    """
    if len(set(layers)) < len(layers):
        raise UserError(f"config.recipe.layers={tuple(layers)}: a layer is there twice.")
    return Recipe.of(Inversion(net, tuple(layers), starts, descent))
