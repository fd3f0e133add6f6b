"""Generative adversarial networks: Goodfellow et al., 2014 (arXiv:1406.2661), in the form of DCGAN.

DCGAN: Radford, Metz & Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, 2016 (arXiv:1511.06434). Two networks, two optimisers, two calls of `descend` in one train step; samples
are drawn from an exponential moving average of the generator.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, DTypeLike, Float, Key

from cvjax import optim
from cvjax.core import Recipe, State, check_images, descend
from cvjax.errors import UserError
from cvjax.metrics import digits, generative
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.signature import Count, Share

# --- nets ---------------------------------------------------------------------------------------------------------

WEIGHTS = nn.initializers.normal(0.02)  # "all weights were initialized from a zero-centered Normal" (section 4)


def scale_around_one(key: Key[Array, ""], shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
    """Draws the scale of batch normalisation from N(1, 0.02), as the authors' code does.

    Args:
      key: of the draw.
      shape: of the scale.
      dtype: of the scale.

    Returns:
      The initial scale.
    """
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def batch_norm(train: bool, name: str | None = None) -> nn.BatchNorm:
    """Makes a batch normalisation with the momentum (0.9 kept) and epsilon of the reference implementations.

    Args:
      train: normalise by the batch's statistics, and update the running ones.
      name: of the module.

    Returns:
      The module.
    """
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, scale_init=scale_around_one, name=name)


class Generator(nn.Module):
    """DCGAN's generator: a projection to 4 x 4, then transposed convolutions that double the size.

    Attributes:
      shape: height, width, channels of the image; height and width are the same, `base` times a power of two.
      width: channels before the last layer; each earlier layer has twice as many (128 at 64 px is the paper's).
      kernel: of the transposed convolutions.
      base: height and width of the projection; 4 is the paper's, smaller gives small images more layers.
    """

    shape: tuple[int, int, int]
    width: int = 128
    kernel: int = 5
    base: int = 4

    @nn.compact
    def __call__(
        self, latent: Float[Array, "batch latent"], train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        """Returns images in [0, 1]; the paper's tanh gives 2 * image - 1."""
        doublings = count_doublings(self.shape, self.base)
        features = self.width * 2 ** (doublings - 1)
        x = nn.Dense(self.base**2 * features, use_bias=False, kernel_init=WEIGHTS)(latent)
        x = nn.relu(batch_norm(train)(x.reshape(-1, self.base, self.base, features)))
        padding = (self.kernel - 1) // 2
        double = dict(kernel=self.kernel, stride=2, padding=padding, output_padding=self.kernel % 2)
        for level in range(doublings - 1)[::-1]:
            x = ConvTranspose(self.width * 2**level, **double, use_bias=False, kernel_init=WEIGHTS)(x)
            x = nn.relu(batch_norm(train)(x))
        x = ConvTranspose(self.shape[2], **double, kernel_init=WEIGHTS)(x)  # no normalisation on the output
        return (nn.tanh(x) + 1) / 2


class Discriminator(nn.Module):
    """DCGAN's discriminator: strided convolutions down to 4 x 4, then one logit.

    Attributes:
      shape: as the generator's.
      width: channels of the first layer; each later layer has twice as many.
      kernel: of the convolutions.
      base: height and width of the last layer, as the generator's.
    """

    shape: tuple[int, int, int]
    width: int = 128
    kernel: int = 5
    base: int = 4

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, " batch"]:
        """Returns one logit an image, high where it looks real."""
        x = 2 * images - 1
        for level in range(count_doublings(self.shape, self.base)):
            halve = dict(kernel=self.kernel, stride=2, padding=(self.kernel - 1) // 2, kernel_init=WEIGHTS)
            x = Conv(self.width * 2**level, **halve, use_bias=level == 0)(x)
            if level > 0:  # no normalisation on the input
                x = batch_norm(train)(x)
            x = nn.leaky_relu(x, 0.2)
        return nn.Dense(1, kernel_init=WEIGHTS)(x.reshape(len(x), -1))[:, 0]


def count_doublings(shape: tuple[int, ...], base: int = 4) -> int:
    """Counts how many times the first layer's size is doubled.

    Args:
      shape: height, width, channels.
      base: height and width of the first layer.

    Returns:
      log2(height / base).

    Raises:
      UserError: not square, or not 2, 4, 8, ... times the base.
    """
    height, width = shape[:2]
    doublings = round(math.log2(height / base)) if height > base > 0 else 0
    if height != width or doublings < 1 or base * 2**doublings != height:
        sizes = ", ".join(str(base * 2**n) for n in range(1, 4))
        raise UserError(
            f"config.recipe.shape={tuple(shape)}: base={base} makes squares of {sizes}, ...: pad or resize."
        )
    return doublings


# --- losses -------------------------------------------------------------------------------------------------------


def discriminator_loss(
    real_logits: Float[Array, " batch"], fake_logits: Float[Array, " batch"], real_label: float = 1.0
) -> Float[Array, ""]:
    """Computes the discriminator's cross-entropy, averaged over each batch (Goodfellow et al., equation 1).

    Args:
      real_logits: of real images.
      fake_logits: of generated ones.
      real_label: the target of real images; .9 is the one-sided smoothing of Salimans et al. (arXiv:1606.03498).

    Returns:
      Mean over real images + mean over generated images, in nats.
    """
    real = optax.sigmoid_binary_cross_entropy(real_logits, jnp.full_like(real_logits, real_label))
    fake = optax.sigmoid_binary_cross_entropy(fake_logits, jnp.zeros_like(fake_logits))
    return real.mean() + fake.mean()


def generator_loss(fake_logits: Float[Array, " batch"]) -> Float[Array, ""]:
    """Computes the non-saturating loss of the generator, -log D(G(z)), averaged (Goodfellow et al., section 3).

    Args:
      fake_logits: of generated images.

    Returns:
      The mean, in nats.
    """
    return optax.sigmoid_binary_cross_entropy(fake_logits, jnp.ones_like(fake_logits)).mean()


# --- measures -----------------------------------------------------------------------------------------------------


def pixel_measures(
    samples: Float[np.ndarray, "samples height width channels"], real: Float[np.ndarray, "images height width channels"]
) -> dict[str, float]:
    """Measures samples of any images without a trained network: a coarse check, not comparable with published figures.

    Args:
      samples: generated images in [0, 1].
      real: held-out real images in [0, 1].

    Returns:
      `fid`: Fréchet distance of 8 x 8 thumbnails; `fid_over_noise`: over that of uniform noise.
    """
    reference = generative.thumbnails(real)
    noise = np.random.default_rng(0).uniform(size=samples.shape)
    fid = generative.fid(generative.thumbnails(samples), reference)
    return {"fid": fid, "fid_over_noise": fid / generative.fid(generative.thumbnails(noise), reference)}


# --- recipe -------------------------------------------------------------------------------------------------------

ADAM = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}  # the paper's, section 4


def recipe(
    shape: tuple[Count, Count, Count],
    latent: Count = 100,
    width: Count = 128,
    kernel: Count = 5,
    base: Count = 4,
    real_label: Share = 1.0,
    ema: Share = 0.999,
    measure: Literal["digits", "pixels"] = "pixels",
    samples_per_example: Count = 2,
    generator_optimiser: Mapping[str, Any] = ADAM,
    discriminator_optimiser: Mapping[str, Any] = ADAM,
) -> Recipe:
    """Makes a DCGAN.

    Args:
      shape: height, width, channels of the images.
      latent: dimensions of z, uniform in [-1, 1] as in the paper.
      width: channels of the layers nearest the image, in both networks.
      kernel: of all convolutions.
      base: height and width of the smallest layer, in both networks; the images are 2, 4, 8, ... times as large.
      real_label: target of real images in the discriminator's loss.
      ema: share of the averaged generator that each step keeps; (1 + step) / (10 + step) where that is less.
      measure: "digits": FID and more by the frozen digit classifier (8 x 8 grey images);
        "pixels": Fréchet distance of images averaged down to 8 x 8, for any images.
      samples_per_example: how many samples are drawn for each image of the evaluation split.
      generator_optimiser: as `cvjax.optim.build` takes it.
      discriminator_optimiser: likewise; two time scales are two learning rates.

    Returns:
      The recipe. Its figures are those of `measure`, and `fid_over_raw`: FID of the averaged generator over that of the
      raw one.

    Raises:
      UserError: sizes that DCGAN cannot make.
    """
    count_doublings(shape, base)
    if measure == "digits" and tuple(shape) != (8, 8, 1):
        raise UserError(f'config.recipe.measure="digits" judges 8 x 8 grey images, not {tuple(shape)}.')
    generator = Generator(tuple(shape), width, kernel, base)
    discriminator = Discriminator(tuple(shape), width, kernel, base)
    generator_tx, discriminator_tx = optim.build(generator_optimiser), optim.build(discriminator_optimiser)

    def draw_latent(key, count):
        return jax.random.uniform(key, (count, latent), minval=-1.0, maxval=1.0)

    def train_apply(net, params, stats, inputs):
        outputs, new = net.apply({"params": params, "batch_stats": stats}, inputs, train=True, mutable=["batch_stats"])
        return outputs, new["batch_stats"]

    def init(key, batch):
        check_images(batch, shape)
        keys = jax.random.split(key)
        g = generator.init(keys[0], jnp.zeros((1, latent)))
        d = discriminator.init(keys[1], jnp.zeros((1, *shape)))
        opt = {"generator": generator_tx.init(g["params"]), "discriminator": discriminator_tx.init(d["params"])}
        extra = {
            "batch_stats": {"generator": g.get("batch_stats", {}), "discriminator": d.get("batch_stats", {})},
            "ema": {"generator": jax.tree.map(jnp.copy, dict(g))},
        }
        params = {"generator": g["params"], "discriminator": d["params"]}
        return State(step=jnp.int32(0), params=params, opt=opt, extra=extra)

    def train_step(state, batch, key):
        z = draw_latent(key, len(batch["image"]))  # one draw for both networks: the forward pass is shared
        stats = state.extra["batch_stats"]
        fake, _ = train_apply(generator, state.params["generator"], stats["generator"], z)

        def d_loss(params):
            real_logits, d_stats = train_apply(discriminator, params, stats["discriminator"], batch["image"])
            fake_logits, d_stats = train_apply(discriminator, params, d_stats, fake)  # a batch of its own
            return discriminator_loss(real_logits, fake_logits, real_label), (real_logits, fake_logits, d_stats)

        d_params, d_opt, d_value, (real_logits, fake_logits, d_stats) = descend(
            discriminator_tx, d_loss, state.params["discriminator"], state.opt["discriminator"]
        )

        def g_loss(params):
            fake, g_stats = train_apply(generator, params, stats["generator"], z)
            logits, _ = train_apply(discriminator, d_params, d_stats, fake)
            return generator_loss(logits), g_stats

        g_params, g_opt, g_value, g_stats = descend(
            generator_tx, g_loss, state.params["generator"], state.opt["generator"]
        )
        latest = {"params": g_params, "batch_stats": g_stats}  # statistics belong to parameters: averaged alike
        average = optim.moving_average(state.extra["ema"]["generator"], latest, state.step, ema)
        state = State(
            step=state.step + 1,
            params={"generator": g_params, "discriminator": d_params},
            opt={"generator": g_opt, "discriminator": d_opt},
            extra={"batch_stats": {"generator": g_stats, "discriminator": d_stats}, "ema": {"generator": average}},
        )
        return state, {
            "loss/discriminator": d_value,
            "loss/generator": g_value,
            "probability/real": jax.nn.sigmoid(real_logits).mean(),
            "probability/fake": jax.nn.sigmoid(fake_logits).mean(),
        }

    def generate_both(state, z):
        """Draws the same latents by the averaged generator and by the raw one."""
        raw = {"params": state.params["generator"], "batch_stats": state.extra["batch_stats"]["generator"]}
        return generator.apply(state.extra["ema"]["generator"], z), generator.apply(raw, z)

    def eval_step(state, batch, key):
        rows = len(batch["image"])
        z = draw_latent(key, rows * samples_per_example)
        split = (rows, samples_per_example, *shape)
        averaged, raw = generate_both(state, z)
        return {"samples": averaged.reshape(split), "raw_samples": raw.reshape(split)}

    def score(rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        rows = list(rows)
        real = np.concatenate([batch["image"] for batch, _ in rows])
        samples, raw = (
            np.concatenate([outputs[name].reshape(-1, *shape) for _, outputs in rows])
            for name in ("samples", "raw_samples")
        )
        judge = digits.evaluate if measure == "digits" else lambda images: pixel_measures(images, real)
        figures, raw_fid = judge(samples), judge(raw)["fid"]
        return {**figures, "raw_fid": raw_fid, "fid_over_raw": figures["fid"] / raw_fid}

    draw_both = jax.jit(generate_both)

    def visualise(state, batch, key):
        averaged, raw = draw_both(state, draw_latent(key, 64))
        return {"samples": averaged, "raw_samples": raw, "real": batch["image"][:64]}

    def predict(state, inputs):
        stats = state.extra["batch_stats"]["discriminator"]
        variables = {"params": state.params["discriminator"], "batch_stats": stats}
        return {"logit": discriminator.apply(variables, inputs["image"])}

    def sample(state, key, count):
        return {"image": draw_both(state, draw_latent(key, count))[0]}

    controls = digits.controls if measure == "digits" else None
    return Recipe(init, train_step, eval_step, score, visualise, predict, sample, controls)
