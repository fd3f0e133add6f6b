"""Variational autoencoder: Kingma & Welling, Auto-Encoding Variational Bayes, 2014 (arXiv:1312.6114).

Beta weighs the divergence (Higgins et al., beta-VAE, ICLR 2017). Beside the plain bound, there is the tighter one of
Burda et al., Importance Weighted Autoencoders, 2016 (arXiv:1509.00519).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, advance, check_images, descend, start, variables
from cvjax.errors import UserError
from cvjax.generative.autoencoders import latents
from cvjax.generative.autoencoders.likelihoods import Likelihood, Outputs, dequantise, expected_image, log_likelihood
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.signature import Count, Range, Share

Images = Float[Array, "batch height width channels"]
Latents = Float[Array, "batch latent"]
Nats = Float[Array, " batch"]

# --- nets ---------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """q(z | x): maps images to the mean and log-variance of their latents.

    Attributes:
      convolutional: False: dense layers with tanh (the paper's appendix C); True: stride-2 convolutions with ReLU.
      dropout: share of hidden units dropped while training.
    """

    latent: int
    hidden: tuple[int, ...]
    convolutional: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[Latents, Latents]:
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
    """p(x | z): maps latents to `outputs` parameters of each pixel's distribution; `hidden` is used in reverse."""

    shape: tuple[int, int, int]
    outputs: int
    hidden: tuple[int, ...]
    convolutional: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, latent: Latents, train: bool = False) -> Outputs:
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


def gaussian_kl(mean: Latents, log_variance: Latents) -> Latents:
    """Returns KL(N(mean, variance) || N(0, 1)) of each latent, in nats (appendix B)."""
    return 0.5 * (jnp.exp(log_variance) + mean**2 - 1.0 - log_variance)


def importance_bound(log_weights: Float[Array, "samples batch"]) -> Nats:
    """Returns the bound on log p(x) by weights p(x, z) / q(z | x), in nats (Burda et al., equation 8)."""
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))


def bounds(
    key: Key[Array, ""], log_p_x: Callable[[Latents], Nats], mean: Latents, log_variance: Latents, samples: int
) -> Float[Array, "batch 2"]:
    """Returns the plain (equation 10) and the importance-weighted lower bound on log p(x) of each image, in nats.

    `log_p_x` takes one latent per image. `samples` are those of the tighter bound; the plain one uses 10 at most.
    """

    def one_sample(key):
        noise = jax.random.normal(key, mean.shape)
        z = mean + jnp.exp(log_variance / 2) * noise
        likelihood = log_p_x(z)
        log_ratio = 0.5 * (noise**2 + log_variance - z**2).sum(axis=1)  # log p(z) - log q(z | x)
        return likelihood, likelihood + log_ratio

    # The plain bound has its own samples and uses the exact divergence, which makes it a check of the tighter one.
    elbo_keys, iwae_keys = jax.random.split(key, (2, samples))
    likelihoods, _ = jax.lax.map(one_sample, elbo_keys[:10])
    _, log_weights = jax.lax.map(one_sample, iwae_keys)
    elbo = likelihoods.mean(axis=0) - gaussian_kl(mean, log_variance).sum(axis=1)
    return jnp.stack([elbo, importance_bound(log_weights)], axis=1)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class VAE:
    """The recipe's functions; the attributes are the networks and arguments of `recipe`, with the optimiser built."""

    encoder: Encoder
    decoder: Decoder
    likelihood: Likelihood
    levels: int
    binarise: bool
    beta: float
    importance_samples: int
    tx: optax.GradientTransformation
    label_names: tuple[str, ...] = ()

    @property
    def bits(self) -> float:
        """Bits per dimension in one nat per image."""
        return 1 / (math.prod(self.decoder.shape) * math.log(2))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Returns both networks by name."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    def observe(self, key: Key[Array, ""], images: Images) -> Images:
        """Draws binary or dequantised images, where the likelihood is of such."""
        if self.binarise:
            return jax.random.bernoulli(key, images).astype(images.dtype)
        return dequantise(key, images, self.levels) if self.likelihood == "gaussian" else images

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises both networks and their optimiser."""
        check_images(batch, self.decoder.shape)
        encoder_key, decoder_key = jax.random.split(key)
        networks = {
            "encoder": self.encoder.init(encoder_key, batch["image"]),
            "decoder": self.decoder.init(decoder_key, jnp.zeros((1, self.encoder.latent))),
        }
        return start(networks, {"vae": self.tx.init({name: held["params"] for name, held in networks.items()})})

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the negative bound, from one latent per image, with the divergence weighted by beta."""
        observe_key, noise_key, encoder_key, decoder_key = jax.random.split(key, 4)
        images = self.observe(observe_key, batch["image"])

        def loss_fn(params):
            encoder, decoder = {"params": params["encoder"]}, {"params": params["decoder"]}
            mean, log_variance = self.encoder.apply(encoder, images, train=True, rngs={"dropout": encoder_key})
            z = mean + jnp.exp(log_variance / 2) * jax.random.normal(noise_key, mean.shape)
            pixels = self.decoder.apply(decoder, z, train=True, rngs={"dropout": decoder_key})
            reconstruction = -log_likelihood(self.likelihood, pixels, images, self.levels).mean()
            divergence = gaussian_kl(mean, log_variance).sum(axis=1).mean()
            return reconstruction + self.beta * divergence, (reconstruction, divergence)

        params, opt, loss, (reconstruction, divergence) = descend(self.tx, loss_fn, state.params, state.opt["vae"])
        metrics = {"loss/total": loss, "loss/reconstruction": reconstruction, "loss/kl": divergence}
        metrics["bits/bits_per_dim"] = (reconstruction + divergence) * self.bits
        return advance(state, params, {"vae": opt}), metrics

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Computes both bounds in bits per dimension, the divergence and the posterior mean of each image."""
        observe_key, sample_key = jax.random.split(key)
        images = self.observe(observe_key, batch["image"])
        mean, log_variance = self.encoder.apply(variables(state, "encoder"), images)

        def log_p_x(z):
            return log_likelihood(self.likelihood, self.decode(state, z), images, self.levels)

        nats = bounds(sample_key, log_p_x, mean, log_variance, self.importance_samples)
        return {"bits": -nats * self.bits, "divergence": gaussian_kl(mean, log_variance), "mean": mean}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Averages bounds and divergence, and counts the active latents."""
        rows = [outputs for _, outputs in rows]
        both, divergence, mean = (np.concatenate([r[name] for r in rows]) for name in ("bits", "divergence", "mean"))
        elbo, iwae = both.mean(axis=0, dtype=np.float64)
        return {
            "bits_per_dim": float(elbo),
            "iwae_bits_per_dim": float(iwae),
            "iwae_gain": float(elbo - iwae),
            "kl": float(divergence.sum(axis=1).mean()),
            "active_units": float((mean.var(axis=0) > 0.01).sum()),
        }

    def decode(self, state: State, z: Latents) -> Outputs:
        """Decodes latents to the parameters of each pixel's distribution."""
        return self.decoder.apply(variables(state, "decoder"), z)

    @functools.partial(jax.jit, static_argnums=0)
    def reconstruct(self, state: State, images: Images) -> Images:
        """Decodes the posterior means of images."""
        mean, _ = self.encoder.apply(variables(state, "encoder"), images)
        return self.from_prior(state, mean)

    @functools.partial(jax.jit, static_argnums=0)
    def from_prior(self, state: State, z: Latents) -> Images:
        """Decodes latents to mean images."""
        return expected_image(self.likelihood, self.decode(state, z))

    @functools.partial(jax.jit, static_argnums=0)
    def decoded_pictures(self, key: Key[Array, ""], state: State, batch: Batch) -> tuple[Pictures, Latents]:
        """Draws reconstructions, samples, interpolations and traversals; returns the posterior means too."""
        mean, _ = self.encoder.apply(variables(state, "encoder"), batch["image"])
        draw, images = functools.partial(self.from_prior, state), batch["image"]
        pairs = jnp.stack([images[:32], draw(mean[:32])], axis=1).reshape(-1, *images.shape[1:])
        shown = latents.pictures(draw, mean, latents.Moments.standard(self.encoder.latent))
        samples = draw(jax.random.normal(key, (64, self.encoder.latent)))
        return {"reconstructions": pairs, "samples": samples, **shown}, mean

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws reconstructions, samples of the prior, and the latent space."""
        shown, mean = self.decoded_pictures(key, state, batch)
        return shown | latents.latent_map(mean, batch, self.label_names)

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Reconstructs images."""
        return {"image": self.reconstruct(state, inputs["image"])}

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Draws images from the prior."""
        return {"image": self.from_prior(state, jax.random.normal(key, (inputs["count"], self.encoder.latent)))}


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
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
    label_names: tuple[str, ...] = (),
) -> Recipe:
    """Makes a variational autoencoder.

    Args:
      shape: height, width, channels of the images.
      latent: number of latents.
      hidden: widths of the encoder's hidden layers; the decoder uses them in reverse.
      convolutional, dropout: as in `Encoder`.
      likelihood: of the pixels, as in `log_likelihood`.
      levels: number of grey levels.
      binarise: draw each pixel from a Bernoulli of its grey value at every step.
      beta: weight of the divergence; the loss is a bound for 1 only.
      importance_samples: number of samples of the tighter bound.
      optimiser: as `cvjax.optim.build` takes it.
      label_names: names of the classes in the map of latents; by default those of the dataset.

    Returns:
      The recipe. Its figures are bits_per_dim (the negative bound), iwae_bits_per_dim and their difference iwae_gain,
      kl (nats) and active_units (latents whose posterior mean has a variance over .01 on the evaluation split).

    Raises:
      UserError: arguments that do not go together.
    """
    outputs = {"bernoulli": 1, "categorical": levels, "gaussian": 2}.get(likelihood)
    if outputs is None or latent < 1 or levels < 2:
        raise UserError(f"config.recipe: likelihood={likelihood!r}, latent={latent}, levels={levels} cannot be built.")
    if convolutional and (not hidden or any(size % 2 ** len(hidden) for size in shape[:2])):
        raise UserError(
            f"config.recipe.shape={tuple(shape)} cannot be halved by hidden={tuple(hidden)}: a convolutional encoder "
            "needs a hidden layer or more, and a height and width that each can halve: pad or resize the images."
        )
    if binarise and likelihood != "bernoulli":
        raise UserError(
            f'config.recipe.binarise=True makes binary images: set likelihood="bernoulli", not {likelihood!r}.'
        )
    encoder = Encoder(latent, tuple(hidden), convolutional, dropout)
    decoder = Decoder(tuple(shape), outputs, tuple(hidden), convolutional, dropout)
    tx = optim.build(optimiser)
    names = tuple(label_names)
    return Recipe.of(VAE(encoder, decoder, likelihood, levels, binarise, beta, importance_samples, tx, names))
