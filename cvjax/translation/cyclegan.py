"""CycleGAN: translation between two kinds of images, there and back, learnt without pairs.

Zhu, Park, Isola & Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017
(arXiv:1703.10593): networks of appendix 7.2, objective of section 3, training of section 4. Generators are those of
Johnson et al., 2016 (arXiv:1603.08155).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from cvjax import optim
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, advance, descend, start, variables
from cvjax.errors import UserError
from cvjax.losses import adversarial
from cvjax.metrics import plots
from cvjax.metrics.translation import above_controls, decibels, detail_correlation, similarities, trivial_figures
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.nets.patch_gan import Field, PatchGAN, check_field, normalise
from cvjax.ops.padding import pad_to_multiple, reflect
from cvjax.ops.precision import at_least_float32
from cvjax.ops.resampling import magnify, resize
from cvjax.signature import Count, Natural, NonNegative
from cvjax.translation.image_pool import new_pool, query_pool

Images = Float[Array, "batch height width channels"]
Logits = Float[Array, "batch rows columns"]
Params = Mapping[str, PyTree]  # of both generators, or of both discriminators, by name

STRIDE = 4  # a size that this divides comes out of a generator as it went in
DIRECTIONS = ("a_to_b", "b_to_a")  # the generators, and the labels of `predict`
SHOWN = 6  # rows of pictures

# --- networks -----------------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Two halvings, residual blocks at a quarter of the size, two doublings: images in [0, 1] -> images in [0, 1].

    c7s1-64, d128, d256, R256 ..., u128, u64, c7s1-3 of appendix 7.2. All padding but that of the changes of size
    mirrors the border; instance normalisation has no parameters; kernels are drawn from N(0, .02).

    Attributes:
      width: channels of the first convolution; each halving doubles them.
      blocks: number of residual blocks, the paper's 6 for 128 pixels and 9 for 256 and more.
      resize: double by nearest neighbours and a 3x3 convolution, not by transposed ones, against checkerboards.
    """

    width: int = 64
    blocks: int = 9
    resize: bool = False

    @nn.compact
    def __call__(self, images: Images) -> Float[Array, "batch rows columns channels"]:
        """Translates images; a size that 4 does not divide is rounded up."""
        init = nn.initializers.normal(0.02)
        conv = functools.partial(Conv, kernel_init=init)

        def normed(x, name):
            return nn.relu(normalise(x, "instance", False, f"norm_{name}"))

        x = normed(conv(self.width, 7, name="conv_0")(reflect(2 * images - 1, 3)), "conv_0")
        for level in (1, 2):
            x = conv(self.width * 2**level, 3, 2, 1, name=f"down_{level}")(x)
            x = normed(x, f"down_{level}")
        for block in range(self.blocks):
            inner = normed(conv(x.shape[-1], 3, name=f"block_{block}_0")(reflect(x, 1)), f"block_{block}_0")
            inner = conv(x.shape[-1], 3, name=f"block_{block}_1")(reflect(inner, 1))
            x += normalise(inner, "instance", False, f"norm_block_{block}_1")
        for level in (1, 0):
            features = self.width * 2**level
            if self.resize:
                x = reflect(magnify(x, 2), 1)
                x = conv(features, 3, name=f"up_{level}")(x)
            else:
                x = ConvTranspose(features, 3, 2, 1, 1, kernel_init=init, name=f"up_{level}")(x)
            x = normed(x, f"up_{level}")
        x = conv(images.shape[-1], 7, name="image")(reflect(x, 3))
        return (nn.tanh(at_least_float32(x)) + 1) / 2


# --- losses -----------------------------------------------------------------------------------------------------------


def absolute_error(truth: Images, images: Images) -> Float[Array, " batch"]:
    """Returns the mean absolute difference of images in [0, 1], on the scale of [-1, 1], on which lambda is defined."""
    return 2 * jnp.abs(at_least_float32(truth) - images).mean(axis=(1, 2, 3))


def fooling_loss(logits: Logits) -> Float[Array, ""]:
    """Returns the mean squared distance of the logits of translations to 1; unlike the discriminators', not halved."""
    return 2 * adversarial.least_squares_generator_loss(logits)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CycleGAN:
    """The recipe's functions; the attributes are the arguments of `recipe`, with the networks and optimisers built.

    `State.extra` has the pools of translations, `pool_a` of those that look like A and `pool_b`.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    cycle: float
    identity: float
    pool: int
    paired: bool
    longest: int
    predict_inputs = ("label",)
    shown_classes = DIRECTIONS
    any_size = True

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The generators of both directions, and the discriminators of what is real among A and among B."""
        generators = dict.fromkeys(DIRECTIONS, self.generator)
        return generators | dict.fromkeys(("discriminator_a", "discriminator_b"), self.discriminator)

    def check(self, batch: Batch) -> None:
        """Raises a UserError if a batch does not have two kinds of images of a size that the networks take."""
        if "also_image" not in batch:
            raise UserError(
                "CycleGAN needs two kinds of images: set data.also, such as also=dict(folder=ZEBRAS) beside "
                'folder=HORSES, or also=dict(name="shapes/striped").'
            )
        shape, other = (batch[name].shape[1:] for name in ("image", "also_image"))
        if {shape[2], other[2]} == {1, 3}:
            grey = "data" if shape[2] == 1 else "data.also"
            raise UserError(
                f'the images of {grey} are grey, the others have colours: put dict(op="grayscale", channels=3), which '
                f"repeats the grey, first into {grey}.transforms and {grey}.eval_transforms."
            )
        if shape != other:
            raise UserError(
                f"the images are {shape}, those of data.also {other}: give both the same size and channels by "
                "data.transforms and data.also.transforms, and by those of evaluation."
            )
        sides = shape[:2]
        check_field(self.discriminator.field, sides)
        if min(sides) < 2 * STRIDE:
            raise UserError(f"images of {sides[0]}x{sides[1]} are too small for the generators: at least 8x8 pixels.")
        if any(side % STRIDE for side in sides):
            up = "x".join(str(-(-side // STRIDE) * STRIDE) for side in sides)
            raise UserError(
                f"images of {sides[0]}x{sides[1]} do not come out of the generators at their size: sides are multiples "
                f"of {STRIDE} in training. Resize or crop them to {up} by data.transforms and data.also.transforms."
            )

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their optimisers and empty pools."""
        self.check(batch)
        image = batch["image"][:1]
        keys = jax.random.split(key, len(self.networks))
        held = {name: net.init(k, image) for k, (name, net) in zip(keys, self.networks.items(), strict=True)}
        params = {name: network["params"] for name, network in held.items()}
        opt = {
            "generators": self.generator_tx.init(_only(params, DIRECTIONS)),
            "discriminators": self.discriminator_tx.init(_only(params, ("discriminator_a", "discriminator_b"))),
        }
        shape = batch["image"].shape[1:]
        return start(held, opt, extra={name: new_pool(self.pool, shape) for name in ("pool_a", "pool_b")})

    def translate(self, params: Params, direction: str, images: Images) -> Images:
        """Applies a generator."""
        return self.generator.apply({"params": params[direction]}, images)

    def judge(self, params: Params, kind: str, images: Images) -> Logits:
        """Applies the discriminator of A ("a") or of B ("b")."""
        return self.discriminator.apply({"params": params[f"discriminator_{kind}"]}, 2 * images - 1, train=True)

    def translate_all(self, params: Params, a: Images, b: Images) -> dict[str, Images]:
        """Returns translations, `fake_a` and `fake_b`, their translations back, `cycled_a` and `cycled_b`, and more.

        With the identity's loss also `same_a` and `same_b`: what the generator into a kind makes of that kind itself.
        Images of a batch do not see one another, so what one generator takes goes through it together.
        """
        made = {}
        for kind, direction, source, own in (("b", "a_to_b", a, b), ("a", "b_to_a", b, a)):
            if self.identity and self.cycle:
                together = self.translate(params, direction, jnp.concatenate([source, own]))
                made[f"fake_{kind}"], made[f"same_{kind}"] = together[: len(source)], together[len(source) :]
            else:
                made[f"fake_{kind}"] = self.translate(params, direction, source)
        made["cycled_a"] = self.translate(params, "b_to_a", made["fake_b"])
        made["cycled_b"] = self.translate(params, "a_to_b", made["fake_a"])
        return made

    def generators_loss(
        self, params: Params, discriminators: Params, a: Images, b: Images
    ) -> tuple[Float[Array, ""], tuple[dict[str, Images], Metrics]]:
        """Returns the loss of both generators, equation 3 with the identity's of section 5.2, translations and parts.

        The parts have no weights.
        """
        made, total, parts = self.translate_all(params, a, b), 0.0, {}
        for kind, real in (("a", a), ("b", b)):
            fooling = fooling_loss(self.judge(discriminators, kind, made[f"fake_{kind}"]))
            back = absolute_error(real, made[f"cycled_{kind}"]).mean()
            total += fooling + self.cycle * back
            parts |= {f"loss/generator_{kind}": fooling, f"loss/cycle_{kind}": back}
            if f"same_{kind}" in made:
                parts[f"loss/identity_{kind}"] = absolute_error(real, made[f"same_{kind}"]).mean()
                total += self.cycle * self.identity * parts[f"loss/identity_{kind}"]
        return total, (made, parts)

    def discriminators_loss(
        self, params: Params, real: Mapping[str, Images], fake: Mapping[str, Images]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum of both discriminators' halved losses, and each; `real` and `fake` have images of a and b."""
        parts = {}
        for kind in ("a", "b"):
            logits = self.judge(params, kind, jnp.concatenate([real[kind], fake[kind]]))
            halves = logits[: len(real[kind])], logits[len(real[kind]) :]
            parts[f"loss/discriminator_{kind}"] = adversarial.least_squares_discriminator_loss(*halves)
        return sum(parts.values()), parts

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Updates both generators, then both discriminators on those translations or on earlier ones of the pools."""
        a, b = batch["image"], batch["also_image"]
        names = {"generators": DIRECTIONS, "discriminators": ("discriminator_a", "discriminator_b")}
        players = {who: _only(state.params, keys) for who, keys in names.items()}

        def loss_fn(params):
            return self.generators_loss(params, players["discriminators"], a, b)

        generators, generators_opt, total, (made, parts) = descend(
            self.generator_tx, loss_fn, players["generators"], state.opt["generators"]
        )
        fake, pools = {}, {}
        for kind, pool_key in zip(("a", "b"), jax.random.split(key), strict=True):
            pool = state.extra[f"pool_{kind}"]
            fake[kind], pools[f"pool_{kind}"] = query_pool(pool_key, pool, made[f"fake_{kind}"])

        def discriminators_fn(params):
            return self.discriminators_loss(params, {"a": a, "b": b}, fake)

        discriminators, discriminators_opt, _, judged = descend(
            self.discriminator_tx, discriminators_fn, players["discriminators"], state.opt["discriminators"]
        )
        opt = {"generators": generators_opt, "discriminators": discriminators_opt}
        state = advance(state, {**generators, **discriminators}, opt, extra=pools)
        return state, {"loss/total": total, **parts, **judged}

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Translates both kinds there and back."""
        made = {"translation": batch["image"], "also_translation": batch["also_image"]}
        made = {name: self.repaint(state, way, made[name]) for name, way in zip(made, DIRECTIONS, strict=True)}
        return made | {
            "cycled": self.repaint(state, "b_to_a", made["translation"]),
            "also_cycled": self.repaint(state, "a_to_b", made["also_translation"]),
        }

    def repaint(self, state: State, direction: str, images: Images) -> Images:
        """Translates images of any size: padded by reflection to a multiple of 4, and cropped."""
        padded, (rows, columns) = pad_to_multiple(images, STRIDE, least=2 * STRIDE)
        return self.generator.apply(variables(state, direction), padded)[:, rows, columns]

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        found: dict[str, list] = {}
        a, b = [], []

        def add(name: str, values: Float[np.ndarray, " batch"]) -> None:
            found.setdefault(name, []).append(values)

        for batch, outputs in rows:
            real, also = batch["image"], batch["also_image"]
            add("cycle_psnr", decibels(real, outputs["cycled"]))
            add("cycle_psnr", decibels(also, outputs["also_cycled"]))
            if not self.paired:
                continue
            if real.shape != also.shape:
                raise UserError(
                    "config.recipe.paired=True: row i of data.also.eval_split has to be the truth of row i of "
                    "data.eval_split, but their numbers or sizes differ. Set it to False for unpaired images."
                )
            a, b = [*a, real], [*b, also]
            for name, truth, made in (
                ("a_to_b", also, outputs["translation"]),
                ("b_to_a", real, outputs["also_translation"]),
            ):
                for measure, values in similarities(truth, made).items():
                    add(f"{measure}_{name}", values)
                add(f"detail_{name}", detail_correlation(truth, made))
        figures = {name: float(np.concatenate(values).mean()) for name, values in found.items()}
        figures |= trivial_figures(np.concatenate(a), np.concatenate(b)) if a else {}
        return figures | above_controls(figures)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws held-out images of both kinds, their translations, and these translated back."""
        shown = {name: batch[name][:SHOWN] for name in ("image", "also_image")}
        made = jax.device_get(self._translate_both(state, shown))
        pictures = {}
        for name, title, real, there, back in (
            ("a_to_b", ("A", "to B", "and back"), "image", "translation", "cycled"),
            ("b_to_a", ("B", "to A", "and back"), "also_image", "also_translation", "also_cycled"),
        ):
            columns = [np.asarray(shown[real]), made[there], made[back]]
            if self.paired and shown["image"].shape == shown["also_image"].shape:
                truth = np.asarray(shown["also_image" if real == "image" else "image"])
                columns, title = [*columns, truth], (*title, "truth")
            images = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
            pictures[name] = plots.draw_gallery(images, [*title] * len(columns[0]), columns=len(columns))
        return pictures

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Translates images of any size: from A to B, or from B to A where `label` is 1, "b_to_a".

        Those with a side above `longest` are made smaller first.
        """
        images = inputs["image"]
        sides = images.shape[1:3]
        if max(sides) > self.longest:
            size = tuple(max(1, round(side * self.longest / max(sides))) for side in sides)
            images = resize(jnp.asarray(images), size, "bilinear")  # stays in [0, 1]
        labels = jnp.asarray(inputs.get("label", np.zeros(len(images), np.int32)))
        return {"image": self._predict(state, images, labels)}

    @functools.partial(jax.jit, static_argnums=0)
    def _translate_both(self, state, shown):
        return self.eval_step(state, shown, jax.random.key(0))

    @functools.partial(jax.jit, static_argnums=0)
    def _predict(self, state, images, labels):
        made = [
            jax.lax.cond(  # a generator that no row asks for is not run
                (labels == label).any(),
                functools.partial(self.repaint, state, direction),
                jnp.zeros_like,
                images,
            )
            for label, direction in enumerate(DIRECTIONS)
        ]
        return jnp.where((labels == 1)[:, None, None, None], made[1], made[0])


def _only(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names}


def recipe(
    width: Count = 64,
    blocks: Natural = 9,
    resize: bool = False,
    discriminator_width: Count = 64,
    field: Field = 70,
    cycle: NonNegative = 10.0,
    identity: NonNegative = 0.5,
    pool: Natural = 50,
    paired: bool = False,
    longest: Count = 1024,
    generator_optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5},
    discriminator_optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5},
) -> Recipe:
    """Makes a CycleGAN: images of the dataset (A) become like those of `data.also` (B), and the other way round.

    Args:
      width: channels of the generators' first convolution.
      blocks: residual blocks of a generator; the paper has 6 for images of 128 pixels and 9 from 256 on.
      resize: the generators double by nearest neighbours and convolutions, against checkerboards.
      discriminator_width: channels of the discriminators' first convolution.
      field: side in pixels of the patches that the discriminators judge.
      cycle: lambda, weight of the way there and back beside the discriminators; images count on the scale of [-1, 1].
      identity: weight, times lambda, of the loss that leaves B alone on the way from A to B, and A on the way back; 0
        for none. It keeps colours.
      pool: number of earlier translations that the discriminators may get in the place of new ones; 0 for none.
      paired: row i of the evaluation split of `data.also` is the truth of row i of the dataset's. Only figures use it.
        Two folders need a folder test/ each, with files of the same names.
      longest: longest side in pixels of what `apply` makes; larger pictures are made smaller. Memory grows with
        its square: at the paper's width, 3000 x 4000 pixels would take 15 GB.
      generator_optimiser: of both generators, as `cvjax.optim.build` takes it.
      discriminator_optimiser: of both discriminators.

    Returns:
      The recipe. Figure: cycle_psnr, dB of images that were translated there and back. If paired also psnr_a_to_b and
      psnr_b_to_a, dB of translations beside the truth; ssim_a_to_b and ssim_b_to_a; detail_a_to_b and detail_b_to_a,
      correlations of their detail with the truth's, by `cvjax.metrics.translation`. Beside these, what is reached from
      A to B without training: identity_psnr and identity_ssim by the images themselves; flat_psnr by the mean colour of
      B; recoloured_psnr, recoloured_ssim and recoloured_detail by the best affine change of colours, fitted to the
      truth itself. psnr_over_input, ssim_over_input, psnr_over_recoloured and ssim_over_recoloured are by how much the
      translations from A to B are above these.
    """
    generator = Generator(width, blocks, resize)
    discriminator = PatchGAN(field, discriminator_width, "instance")
    optimisers = optim.build(generator_optimiser), optim.build(discriminator_optimiser)
    return Recipe.of(CycleGAN(generator, discriminator, *optimisers, cycle, identity, pool, paired, longest))
