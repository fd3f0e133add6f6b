"""Variational autoencoder: Kingma & Welling, Auto-Encoding Variational Bayes, 2014 (arXiv:1312.6114).

One network pair, one loss. The likelihood is Bernoulli, categorical over grey levels, or Gaussian; beta weighs the
divergence (Higgins et al., beta-VAE, ICLR 2017). Judged in bits per dimension, with the tighter bound of Burda et
al., Importance Weighted Autoencoders, 2016 (arXiv:1509.00519), beside it.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cvjax import optim
from cvjax.core import Recipe, State, check_images, descend
from cvjax.errors import UserError
from cvjax.generative import latents
from cvjax.metrics import digits
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.signature import Count, Range, Share

Likelihood = Literal["bernoulli", "categorical", "gaussian"]

# --- nets ---------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """q(z | x): an image to the mean and log-variance of its latent.

    Attributes:
      latent: latent dimensions.
      hidden: widths of the hidden layers.
      convolutional: False: dense layers with tanh (the paper's appendix C); True: stride-2 convolutions with ReLU.
      dropout: share of hidden units dropped while training.
    """

    latent: int
    hidden: tuple[int, ...]
    convolutional: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Returns (mean, log-variance)."""
        x = 2 * images - 1
        if self.convolutional:
            for width in self.hidden:
                x = nn.relu(Conv(width, kernel=4, stride=2, padding=1)(x))
        x = x.reshape(len(x), -1)
        if not self.convolutional:
            for width in self.hidden:
                x = nn.tanh(nn.Dense(width)(x))
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.latent, name="mean")(x), nn.Dense(self.latent, name="log_variance")(x)


class Decoder(nn.Module):
    """p(x | z): a latent to the parameters of each pixel's distribution.

    Attributes:
      shape: height, width, channels of the image.
      outputs: parameters of one pixel's distribution.
      hidden: the encoder's widths; used in reverse.
      convolutional: as the encoder.
      dropout: as the encoder.
    """

    shape: tuple[int, int, int]
    outputs: int
    hidden: tuple[int, ...]
    convolutional: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, latent: Float[Array, "batch latent"], train: bool = False
    ) -> Float[Array, "batch height width channels outputs"]:
        """Returns logits (Bernoulli, categorical) or mean and log-variance (Gaussian) on the last axis."""
        height, width, channels = self.shape
        x = latent
        if not self.convolutional:
            for size in self.hidden[::-1]:
                x = nn.tanh(nn.Dense(size)(x))
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(height * width * channels * self.outputs)(x)
        else:
            scale = 2 ** len(self.hidden)
            x = nn.relu(nn.Dense(height // scale * (width // scale) * self.hidden[-1])(x))
            x = x.reshape(len(x), height // scale, width // scale, self.hidden[-1])
            for size in self.hidden[-2::-1]:
                x = nn.relu(ConvTranspose(size, kernel=4, stride=2, padding=1)(x))
            x = ConvTranspose(channels * self.outputs, kernel=4, stride=2, padding=1)(x)
        return x.reshape(len(x), height, width, channels, self.outputs)


# --- losses -------------------------------------------------------------------------------------------------------


def gaussian_kl(
    mean: Float[Array, "batch latent"], log_variance: Float[Array, "batch latent"]
) -> Float[Array, "batch latent"]:
    """Computes KL(N(mean, variance) || N(0, 1)) of each latent, in nats (appendix B).

    Args:
      mean: of the posterior.
      log_variance: of the posterior.

    Returns:
      One divergence a latent; the loss sums them.
    """
    return 0.5 * (jnp.exp(log_variance) + mean**2 - 1.0 - log_variance)


def log_likelihood(
    likelihood: Likelihood,
    outputs: Float[Array, "batch height width channels outputs"],
    images: Float[Array, "batch height width channels"],
    levels: int,
) -> Float[Array, " batch"]:
    """Computes log p(image | latent) in nats, summed over pixels and channels.

    Args:
      likelihood: "bernoulli" (a bound on the likelihood of binary images only), "categorical" over `levels` grey
        levels, or "gaussian", a density on the images times levels - 1, so that a grey level is one unit wide.
      outputs: what the decoder gives: 1 logit, `levels` logits, or (mean, log-variance) a pixel.
      images: in [0, 1]. For "gaussian", dequantised (see `dequantise`), the density bounds the discrete likelihood.
      levels: grey levels.

    Returns:
      One log-likelihood an image.
    """
    if likelihood == "bernoulli":
        logits = outputs[..., 0]
        pixels = images * jax.nn.log_sigmoid(logits) + (1 - images) * jax.nn.log_sigmoid(-logits)
    elif likelihood == "categorical":
        index = jnp.round(images * (levels - 1)).astype(jnp.int32)
        pixels = jnp.take_along_axis(jax.nn.log_softmax(outputs), index[..., None], axis=-1)[..., 0]
    else:
        mean, log_variance = outputs[..., 0], outputs[..., 1]
        pixels = -0.5 * (math.log(2 * math.pi) + log_variance + (images - mean) ** 2 / jnp.exp(log_variance))
        pixels -= math.log(levels - 1)
    return pixels.sum(axis=(1, 2, 3))


def expected_image(
    likelihood: Likelihood, outputs: Float[Array, "batch height width channels outputs"]
) -> Float[Array, "batch height width channels"]:
    """Computes E[image | latent] in [0, 1].

    Args:
      likelihood: as in `log_likelihood`.
      outputs: what the decoder gives.

    Returns:
      The mean image of each latent.
    """
    if likelihood == "bernoulli":
        return jax.nn.sigmoid(outputs[..., 0])
    if likelihood == "categorical":
        return jax.nn.softmax(outputs) @ jnp.linspace(0.0, 1.0, outputs.shape[-1])
    return jnp.clip(outputs[..., 0], 0.0, 1.0)


def dequantise(
    key: Key[Array, ""], images: Float[Array, "batch height width channels"], levels: int
) -> Float[Array, "batch height width channels"]:
    """Adds uniform noise one grey level wide, so that a density bounds the discrete likelihood (Theis et al. 2016).

    Args:
      key: of the noise.
      images: in [0, 1]; rounded to the nearest of the grey levels first.
      levels: grey levels.

    Returns:
      Images in [-0.5, levels - 0.5] / (levels - 1).
    """
    noise = jax.random.uniform(key, images.shape, minval=-0.5, maxval=0.5)
    return (jnp.round(images * (levels - 1)) + noise) / (levels - 1)


def importance_bound(log_weights: Float[Array, "samples batch"]) -> Float[Array, " batch"]:
    """Computes the importance-weighted bound on log p(x) in nats (Burda et al., equation 8).

    Args:
      log_weights: log p(x, z) - log q(z | x) of each sample z.

    Returns:
      log of the mean weight, one an image; the more samples, the tighter.
    """
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))


# --- recipe -------------------------------------------------------------------------------------------------------


def recipe(
    shape: tuple[Count, Count, Count],
    latent: Count = 20,
    hidden: tuple[Count, ...] = (500,),
    convolutional: bool = False,
    dropout: Share = 0.0,
    likelihood: Likelihood = "bernoulli",
    levels: Annotated[int, Range(2)] = 256,
    binarise: bool = False,
    beta: float = 1.0,
    importance_samples: Count = 100,
    measure: Literal["none", "digits"] = "none",
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
) -> Recipe:
    """Makes a variational autoencoder.

    Args:
      shape: height, width, channels of the images.
      latent: latent dimensions.
      hidden: widths of the encoder's hidden layers; the decoder's in reverse.
      convolutional: stride-2 convolutions in place of dense layers.
      dropout: share of the dense hidden units dropped while training.
      likelihood: of the pixels: "bernoulli", "categorical" or "gaussian".
      levels: grey levels of the images.
      binarise: draw each pixel from a Bernoulli of its grey value, anew at every step.
      beta: weight of the divergence; only 1 is a bound.
      importance_samples: of the evaluation's tighter bound.
      measure: "digits" measures samples of the prior by the frozen classifier, and shows what simple densities of the
        digits reach, as controls.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures: bits_per_dim (the negative bound), iwae_bits_per_dim and iwae_gain (how much tighter),
      kl (nats), active_units (latents whose posterior mean varies by more than .01 over the test set); with `measure`,
      those of samples by `latents.sample_figures`.

    Raises:
      UserError: a likelihood that there is not, or sizes below 1.
    """
    outputs = {"bernoulli": 1, "categorical": levels, "gaussian": 2}.get(likelihood)
    if outputs is None or latent < 1 or levels < 2:
        raise UserError(f"config.recipe: likelihood={likelihood!r}, latent={latent}, levels={levels} cannot be built.")
    if convolutional and any(size % 2 ** len(hidden) for size in shape[:2]):
        raise UserError(f"config.recipe.shape={shape} cannot be halved {len(hidden)} times: pad or resize the images.")
    tx = optim.build(optimiser)
    encoder = Encoder(latent, tuple(hidden), convolutional, dropout)
    decoder = Decoder(tuple(shape), outputs, tuple(hidden), convolutional, dropout)
    bits = 1 / (math.prod(shape) * math.log(2))  # bits per dimension in one nat per image

    def decode(params, z):
        return decoder.apply({"params": params["decoder"]}, z)

    def observe(key, images):
        """Draws what the likelihood speaks of: binary, or continuous, or the images as they are."""
        if binarise:
            return jax.random.bernoulli(key, images).astype(images.dtype)
        return dequantise(key, images, levels) if likelihood == "gaussian" else images

    def init(key, batch):
        check_images(batch, shape)
        encoder_key, decoder_key = jax.random.split(key)
        params = {
            "encoder": encoder.init(encoder_key, batch["image"])["params"],
            "decoder": decoder.init(decoder_key, jnp.zeros((1, latent)))["params"],
        }
        return State(step=jnp.int32(0), params=params, opt={"vae": tx.init(params)}, extra={})

    def train_step(state, batch, key):
        observe_key, noise_key, encoder_key, decoder_key = jax.random.split(key, 4)
        images = observe(observe_key, batch["image"])

        def loss_fn(params):
            posterior = {"params": params["encoder"]}
            mean, log_variance = encoder.apply(posterior, images, train=True, rngs={"dropout": encoder_key})
            z = mean + jnp.exp(log_variance / 2) * jax.random.normal(noise_key, mean.shape)
            pixels = decoder.apply({"params": params["decoder"]}, z, train=True, rngs={"dropout": decoder_key})
            reconstruction = -log_likelihood(likelihood, pixels, images, levels).mean()
            divergence = gaussian_kl(mean, log_variance).sum(axis=1).mean()
            return reconstruction + beta * divergence, (reconstruction, divergence)

        params, opt, loss, (reconstruction, divergence) = descend(tx, loss_fn, state.params, state.opt["vae"])
        metrics = {
            "loss/total": loss,
            "loss/reconstruction": reconstruction,
            "loss/kl": divergence,
            "bits/bits_per_dim": (reconstruction + divergence) * bits,
        }
        return state.replace(step=state.step + 1, params=params, opt={"vae": opt}), metrics

    def eval_step(state, batch, key):
        observe_key, sample_key = jax.random.split(key)
        images = observe(observe_key, batch["image"])
        mean, log_variance = encoder.apply({"params": state.params["encoder"]}, images)
        divergence = gaussian_kl(mean, log_variance)

        def one_sample(key):
            noise = jax.random.normal(key, mean.shape)
            z = mean + jnp.exp(log_variance / 2) * noise
            log_p_x = log_likelihood(likelihood, decode(state.params, z), images, levels)
            log_ratio = 0.5 * (noise**2 + log_variance - z**2).sum(axis=1)  # log p(z) - log q(z | x)
            return log_p_x, log_p_x + log_ratio

        # The plain bound takes its own samples and the exact divergence, so that it checks the tighter one.
        elbo_keys, iwae_keys = jax.random.split(sample_key, (2, importance_samples))
        log_p_x, _ = jax.lax.map(one_sample, elbo_keys[:10])
        _, log_weights = jax.lax.map(one_sample, iwae_keys)
        nats = jnp.stack([log_p_x.mean(axis=0) - divergence.sum(axis=1), importance_bound(log_weights)], axis=1)
        rows = {"bits": -nats * bits, "divergence": divergence, "mean": mean}
        if measure == "digits":
            z = jax.random.normal(jax.random.fold_in(key, 1), (2 * len(images), latent))
            rows["samples"] = expected_image(likelihood, decode(state.params, z)).reshape(-1, 2, *shape)
        return rows

    def score(rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        rows = [outputs for _, outputs in rows]
        bounds, divergence, mean = (np.concatenate([r[name] for r in rows]) for name in ("bits", "divergence", "mean"))
        elbo, iwae = bounds.mean(axis=0, dtype=np.float64)
        samples = np.concatenate([r["samples"] for r in rows]).reshape(-1, *shape) if measure == "digits" else None
        return {
            "bits_per_dim": float(elbo),
            "iwae_bits_per_dim": float(iwae),
            "iwae_gain": float(elbo - iwae),
            "kl": float(divergence.sum(axis=1).mean()),
            "active_units": float((mean.var(axis=0) > 0.01).sum()),
            **({} if samples is None else latents.sample_figures(samples)),
        }

    @jax.jit
    def reconstruct(params, images):
        mean, _ = encoder.apply({"params": params["encoder"]}, images)
        return from_prior(params, mean)

    @jax.jit
    def from_prior(params, z):
        return expected_image(likelihood, decode(params, z))

    @jax.jit
    def show(state, batch, key):
        mean, _ = encoder.apply({"params": state.params["encoder"]}, batch["image"])
        draw, images = functools.partial(from_prior, state.params), batch["image"]
        pairs = jnp.stack([images[:32], draw(mean[:32])], axis=1).reshape(-1, *images.shape[1:])
        shown = latents.pictures(draw, mean, latents.Moments.standard(latent))
        samples = draw(jax.random.normal(key, (64, latent)))
        return {"reconstructions": pairs, "samples": samples, **shown}, mean

    def visualise(state, batch, key):
        shown, mean = show(state, batch, key)
        return shown | latents.latent_map(mean, batch)

    def predict(state, inputs):
        return {"image": reconstruct(state.params, inputs["image"])}

    def sample(state, key, count):
        return {"image": from_prior(state.params, jax.random.normal(key, (count, latent)))}

    controls = digits.density_controls if measure == "digits" else None
    return Recipe(init, train_step, eval_step, score, visualise, predict, sample, controls)
