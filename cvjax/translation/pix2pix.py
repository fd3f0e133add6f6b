"""pix2pix: images translated into images by a conditional GAN and an L1 loss, learnt from pairs.

Isola, Zhu, Zhou & Efros, Image-to-Image Translation with Conditional Adversarial Networks, 2017 (arXiv:1611.07004): the
U-Net of appendix 6.1.1, the PatchGAN of 6.1.2, the objective of equation 4, and the training of section 3.3. Doubling
by nearest neighbours and convolutions: Odena, Dumoulin & Olah, Deconvolution and Checkerboard Artifacts, 2016.
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
from jaxtyping import Array, Float, Key, PyTree, Shaped

from cvjax import core, optim
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, descend, variables
from cvjax.errors import UserError
from cvjax.losses.adversarial import cross_entropy_discriminator_loss, cross_entropy_generator_loss
from cvjax.metrics import plots
from cvjax.metrics.translation import score_pictures
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.nets.patch_gan import Field, PatchGAN, check_field, normalise
from cvjax.nets.players import Player, advance, get_player, train_apply
from cvjax.ops.padding import pad_to_multiple
from cvjax.ops.precision import at_least_float32
from cvjax.ops.resampling import magnify
from cvjax.ops.tiling import fit_tile, map_tiles
from cvjax.signature import Count, NonNegative, Share

TestMode = Literal["published", "running"]
Images = Float[Array, "batch height width channels"]
Sources = Float[Array, "batch height width bands"]
Painted = Float[Array, "batch height width _"]
Large = Float[Array | np.ndarray, "batch height width _"]

WIDEST = 8  # most channels of a level, in multiples of the first one's
DROPPED = 3  # blocks of the decoder with dropout
LARGEST = 8_000_000  # pixels of a picture that goes whole: about 2 GB at the paper's width, without `resize`
SHOWN, COLUMNS = 6, 12  # rows and columns of pictures that are drawn at most

# --- networks -----------------------------------------------------------------------------------------------------


class UNetGenerator(nn.Module):
    """The U-Net of the paper, from images to images in [-1, 1], its kernels drawn from N(0, .02).

    The encoder halves `depth` times, by 4x4 convolutions of stride 2 with leaky ReLUs of slope .2 between them; the
    decoder doubles as often, and sees its own features behind those of the encoder at the same size. Batch
    normalisation comes after all convolutions but the first, the innermost (whose single place, alone in its batch, it
    would make 0) and the last, which alone has a bias. Dropout is in the first three blocks of the decoder, as in the
    paper and its code; the authors' later port to PyTorch has it in the second to the fourth.

    Attributes:
      depth: 8 for images of 256 pixels, 7 for 128. Sides are multiples of 2^depth.
      width: channels of the first level; each further one has twice as many, up to eight times.
      channels: of the images that come out.
      dropout: share of the features that are dropped, which is the generator's only noise.
      resize: double by nearest neighbours and a 3x3 convolution, not by transposed 4x4 ones, against checkerboards.
    """

    depth: int = 8
    width: int = 64
    channels: int = 3
    dropout: float = 0.5
    resize: bool = False

    @nn.compact
    def __call__(self, images: Sources, train: bool = False) -> Images:
        """Translates images; when training, by the batch's own statistics and with dropout."""
        height, width = images.shape[1:3]
        if height % self.divisor or width % self.divisor:
            raise UserError(
                f"images of {height}x{width}: a U-Net that halves {self.depth} times needs sides that are multiples of "
                f"{self.divisor} = 2^{self.depth}. Resize or crop in data.transforms, or set config.recipe.depth."
            )
        x, skips = images, []
        draw = nn.initializers.normal(0.02)
        for level in range(self.depth):
            x = nn.leaky_relu(x, 0.2) if level else x
            down = Conv(self.features(level), 4, 2, 1, use_bias=False, kernel_init=draw, name=f"down_{level}")
            x = down(x)
            if 0 < level < self.depth - 1:
                x = normalise(x, "batch", train, name=f"down_norm_{level}")
            skips.append(x)
        x = skips.pop()
        for level in reversed(range(1, self.depth)):
            x = self.double(nn.relu(x), self.features(level - 1), False, f"up_{level}")
            x = normalise(x, "batch", train, name=f"up_norm_{level}")
            if level >= self.depth - DROPPED:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = jnp.concatenate([skips.pop(), x], axis=-1)
        return jnp.tanh(self.double(nn.relu(x), self.channels, True, "up_0"))

    def features(self, level: int) -> int:
        """Returns the channels of a level of the encoder."""
        return self.width * min(2**level, WIDEST)

    @property
    def divisor(self) -> int:
        """What the sides of images are multiples of."""
        return 2**self.depth

    @property
    def reach(self) -> int:
        """Pixels to either side that a pixel may see: two of the innermost level on the way up, and one down."""
        return 3 * self.divisor

    def double(self, x: Float[Array, "batch rows columns features"], features: int, bias: bool, name: str) -> Images:
        """Doubles the size of features, inside of `__call__`."""
        options = dict(use_bias=bias, kernel_init=nn.initializers.normal(0.02), name=name)
        if self.resize:
            return Conv(features, 3, padding=1, **options)(magnify(x, 2))
        return ConvTranspose(features, 4, 2, 1, **options)(x)


def l1_loss(images: Images, truth: Images) -> Float[Array, ""]:
    """Returns the mean absolute difference over images, pixels and channels (equation 3)."""
    return jnp.abs(at_least_float32(images) - at_least_float32(truth)).mean()


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pix2Pix:
    """The recipe's functions. Sources and targets are what the networks see of a batch, in [-1, 1]."""

    generator: UNetGenerator
    discriminator: PatchGAN
    adversarial: float
    l1: float
    conditional: bool
    test_mode: TestMode
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    recoloured: bool = False
    largest: int = LARGEST
    any_size = True

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks, or the generator where the objective is L1 alone."""
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return networks if self.adversarial else {"generator": self.generator}

    # Where another system sees its images otherwise, it overrides these six.

    def check(self, batch: Batch) -> None:
        """Raises a UserError if a batch has no targets, or ones that do not suit the images or the generator."""
        if "target" not in batch:
            raise UserError(
                'pix2pix learns pairs: set data.images={"target": FOLDER} to a folder of files of the same names, '
                'or to "left" or "right" where files show both.'
            )
        shape, wanted = batch["target"].shape[1:], (*batch["image"].shape[1:3], self.generator.channels)
        if shape[:2] != wanted[:2]:
            raise UserError(f"the images are {wanted[0]}x{wanted[1]}, but their targets {shape[0]}x{shape[1]}.")
        if shape[2] != wanted[2]:
            raise UserError(
                f"the targets' channels are {shape[2]}, but config.recipe.channels={wanted[2]}: set it to {shape[2]}."
            )

    def source(self, images: Images) -> Sources:
        """Returns what the generator sees of images."""
        return 2 * images - 1

    def target(self, batch: Batch) -> Images:
        """Returns what the generator should make."""
        return 2 * batch["target"] - 1

    def truth(self, batch: Batch) -> Shaped[Array | np.ndarray, "batch height width channels"]:
        """Returns the true pictures, in [0, 1]."""
        return batch["target"]

    def pictures(self, source: Sources, made: Images) -> Painted:
        """Returns what the generator made as pictures in [0, 1]."""
        return (made + 1) / 2

    def seen(self, images: Images) -> Painted:
        """Returns what the generator sees as pictures in [0, 1]."""
        return images

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks and their optimisers."""
        self.check(batch)
        keys, source = jax.random.split(key), self.source(batch["image"][:1])
        held = {"generator": self.generator.init(keys[0], source)}
        opt = {"generator": self.generator_tx.init(held["generator"]["params"])}
        if self.adversarial:
            check_field(self.discriminator.field, source.shape[1:3])
            target = jnp.zeros((*source.shape[:3], self.generator.channels))
            held["discriminator"] = self.discriminator.init(keys[1], self.judged(source, target))
            opt["discriminator"] = self.discriminator_tx.init(held["discriminator"]["params"])
        return core.start(held, opt)

    def judged(self, source: Sources, image: Images) -> Float[Array, "batch height width _"]:
        """Returns what the discriminator sees: a pair, or the second image alone."""
        return jnp.concatenate([source, image], axis=-1) if self.conditional else image

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Updates the discriminator, then the generator against the new discriminator, on the same pairs."""
        g_key, d_key = jax.random.split(key)
        source, target = self.source(batch["image"]), self.target(batch)
        players, metrics = {name: get_player(state, name) for name in self.networks}, {}
        if self.adversarial:
            params, _, stats = players["generator"]
            made, _ = train_apply(g_key, self.generator, params, stats, source)
            stepped = self.discriminator_step(d_key, players["discriminator"], source, target, made)
            players["discriminator"], metrics = stepped
        players["generator"], losses = self.generator_step(g_key, d_key, players, source, target)
        return advance(state, players), metrics | losses

    def discriminator_step(
        self, key: Key[Array, ""], discriminator: Player, source: Sources, target: Images, made: Images
    ) -> tuple[Player, Metrics]:
        """Takes a step down half the cross-entropy; real and generated pairs are batches of their own.

        Returns the discriminator and metrics from before the update.
        """

        def loss_fn(params):
            real, stats = self.judge(key, params, discriminator.stats, source, target)
            fake, stats = self.judge(key, params, stats, source, made)
            loss = cross_entropy_discriminator_loss(real, fake) / 2  # so that it learns more slowly (section 3.3)
            means = {name: jax.nn.sigmoid(logits).mean() for name, logits in {"real": real, "fake": fake}.items()}
            return loss, (stats, {f"probability/{name}": mean for name, mean in means.items()})

        params, opt, loss, (stats, metrics) = descend(
            self.discriminator_tx, loss_fn, discriminator.params, discriminator.opt
        )
        return Player(params, opt, stats), {"loss/discriminator": loss, **metrics}

    def judge(
        self, key: Key[Array, ""], params: PyTree, stats: PyTree, source: Sources, image: Images
    ) -> tuple[Float[Array, "batch rows columns"], PyTree]:
        """Returns the logits of patches and the discriminator's new batch statistics."""
        return train_apply(key, self.discriminator, params, stats, self.judged(source, image))

    def generator_step(
        self,
        key: Key[Array, ""],
        judge_key: Key[Array, ""],
        players: Mapping[str, Player],
        source: Sources,
        target: Images,
    ) -> tuple[Player, Metrics]:
        """Takes a step down the adversarial loss and L1; returns the generator and its losses before the update."""
        generator = players["generator"]

        def loss_fn(params):
            made, stats = train_apply(key, self.generator, params, generator.stats, source)
            losses = {"l1": l1_loss(made, target)}
            total = self.l1 * losses["l1"]
            if self.adversarial:
                judge, _, judging = players["discriminator"]
                logits, _ = self.judge(judge_key, judge, judging, source, made)
                losses["adversarial"] = cross_entropy_generator_loss(logits)
                total += self.adversarial * losses["adversarial"]
            return total, (stats, losses)

        params, opt, total, (stats, losses) = descend(self.generator_tx, loss_fn, generator.params, generator.opt)
        metrics = {f"loss/{name}": loss for name, loss in losses.items()}
        return Player(params, opt, stats), {"loss/generator": total, **metrics}

    def translate(self, key: Key[Array, ""], state: State, source: Sources) -> Images:
        """Applies the generator in its test mode; no image changes what another one becomes."""
        held = variables(state, "generator")
        if self.test_mode == "running":
            return self.generator.apply(held, source)

        def alone(number, one):  # is a batch of its own
            keys = {"dropout": jax.random.fold_in(key, number)}
            made, _ = self.generator.apply(held, one[None], train=True, mutable=["batch_stats"], rngs=keys)
            return made[0]

        return jax.vmap(alone)(jnp.arange(len(source)), source)

    def paint(self, key: Key[Array, ""], state: State, images: Images) -> Painted:
        """Translates images, whose sides suit the generator, into pictures."""
        source = self.source(images)
        return self.pictures(source, self.translate(key, state, source))

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Translates the images, padded and cropped as by `predict`."""
        padded, (rows, columns) = pad_to_multiple(batch["image"], self.generator.divisor)
        return {"image": self.paint(key, state, padded)[:, rows, columns]}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        found = ((self.truth(batch), outputs["image"], batch.get("image")) for batch, outputs in rows)
        return score_pictures(found, self.recoloured)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws held-out images as the generator sees them, each beside its translation and the truth."""
        shown = {name: value[: SHOWN * COLUMNS // 3] for name, value in batch.items()}
        made = self.predict(state, {"image": shown["image"]}, key)["image"]
        seen = self.seen(shown["image"]), made, self.truth(shown)
        images, made, truth = (np.asarray(x) for x in jax.device_get(seen))
        if "valid" in shown:  # the others pad a small split
            images, made, truth = (x[np.asarray(shown["valid"])] for x in (images, made, truth))
        beside = [np.broadcast_to(x, (*x.shape[:3], 3)) for x in (images, made, truth)]
        pictures = np.stack(beside, axis=1).reshape(-1, *beside[0].shape[1:])
        captions = ["input", "output", "truth"] * len(made)
        return {"translations": plots.draw_gallery(pictures, captions, COLUMNS)}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Large]:
        """Translates images at their own size, which are padded by reflection for the generator and cropped after.

        Those of more than `largest` pixels go in tiles with all that the generator sees around them: inside they become
        what the whole would. Raises a UserError for such pictures in the published test, or if tiles are larger.
        """
        images, divisor = inputs["image"], self.generator.divisor
        height, width = images.shape[1:3]
        padded, (rows, columns) = pad_to_multiple(images, divisor)  # tiles too: a U-Net allows only shifts by it
        if height * width <= self.largest or isinstance(images, jax.core.Tracer):
            return {"image": self._paint(state, padded, key, 0)[:, rows, columns]}
        if self.test_mode == "published":
            raise UserError(
                f"a picture of {height}x{width} has more than config.recipe.largest={self.largest} pixels, and "
                "test_mode=published has no tiles: it normalises a picture by all of it. Make it smaller first, or "
                "train with test_mode=running."
            )
        margin = self.generator.reach
        tile = fit_tile(self.largest, margin, divisor)
        if not tile:
            raise UserError(
                f"config.recipe.largest={self.largest}: a picture of {height}x{width} needs tiles with margins; set it "
                f"to {(2 * margin + divisor) ** 2} or more, or make the picture smaller."
            )
        see = lambda window: self._paint(state, jnp.asarray(window), key, margin)  # noqa: E731
        made = np.stack([map_tiles(see, image, tile, margin) for image in np.asarray(padded)])
        return {"image": made[:, rows, columns]}

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def _paint(self, state, images, key, margin):
        made = self.paint(key, state, images)
        return made[:, margin : made.shape[1] - margin, margin : made.shape[2] - margin]


def check_objective(adversarial: float, l1: float) -> None:
    """Raises a UserError if there is nothing to learn."""
    if not (adversarial or l1):
        raise UserError("config.recipe.adversarial=0 and config.recipe.l1=0: at least one weight must be above 0.")


def recipe(
    depth: Count = 8,
    width: Count = 64,
    channels: Count = 3,
    dropout: Share = 0.5,
    resize: bool = False,
    field: Field = 70,
    discriminator_width: Count = 64,
    conditional: bool = True,
    adversarial: NonNegative = 1.0,
    l1: NonNegative = 100.0,
    test_mode: TestMode = "published",
    recoloured: bool = False,
    largest: Count = LARGEST,
    generator_optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5},
    discriminator_optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5},
) -> Recipe:
    """Makes pix2pix; a batch's `image` is translated into its `target`, which `data.images` names.

    Args:
      depth: how often the generator halves: 8 for 256 pixels, 7 for 128. Sides of images are multiples of 2^depth.
      width: channels of the generator's first level.
      channels: of the targets.
      dropout: share of the features dropped in the generator's decoder.
      resize: the generator doubles by nearest neighbours and convolutions, against checkerboards.
      field: side in pixels of the patches that the discriminator judges.
      discriminator_width: channels of the discriminator's first layer.
      conditional: the discriminator sees the image beside its target or translation.
      adversarial: weight of the generator's adversarial loss; 0 trains no discriminator.
      l1: weight of the absolute difference, of images in [-1, 1].
      test_mode: "published" normalises each image by its own statistics, as a batch of one, and keeps the dropout on;
        "running" has the statistics of training and no dropout. Either way no image changes another one's translation.
      recoloured: measure the best change of colours as well, which needs all held-out pictures in memory.
      largest: pixels of a picture that `apply` translates whole; larger ones go in tiles; "published" refuses them.
      generator_optimiser, discriminator_optimiser: as `cvjax.optim.build` takes them.

    Returns:
      The recipe. Figures of held-out pairs: psnr in dB, at most 100, and ssim, of all channels rounded to 8 bits;
      psnr_over_input and ssim_over_input, by how much they are above those of the inputs, if these have the same
      channels; l1, the absolute difference of pictures in [0, 1]; of pictures in colour, saturation_distance, how far
      the distribution of their chroma is from the truth's, in units of Lab. If `recoloured`, also recoloured_psnr and
      recoloured_ssim, of inputs recoloured by the best affine map, fitted to the truth itself, and psnr_over_recoloured
      and ssim_over_recoloured, by how much translations are above them.
    """
    check_objective(adversarial, l1)
    generator = UNetGenerator(depth, width, channels, dropout, resize)
    optimisers = optim.build(generator_optimiser), optim.build(discriminator_optimiser)
    discriminator = PatchGAN(field, discriminator_width)
    values = adversarial, l1, conditional, test_mode, *optimisers, recoloured, largest
    return Recipe.of(Pix2Pix(generator, discriminator, *values))
