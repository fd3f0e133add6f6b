"""Autoencoders: plain, denoising, contractive, sparse and convolutional; the penalties combine.

* denoising: Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, 2008, and Stacked
  Denoising Autoencoders, JMLR 2010 (masking, salt-and-pepper and Gaussian corruption);
* contractive: Rifai et al., Contractive Auto-Encoders: Explicit Invariance During Feature Extraction, 2011;
* sparse: Ng, Sparse Autoencoder, CS294A lecture notes, 2011 (KL to a target activation), or L1;
* convolutional: Masci et al., Stacked Convolutional Auto-Encoders, 2011: the code is a small map of features.

The optimum without hidden layers and with linear codes is the principal subspace (Baldi & Hornik, 1989).
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, Shaped

from cvjax import optim
from cvjax.core import (
    Batch,
    Metrics,
    Params,
    Pictures,
    Recipe,
    State,
    Variables,
    advance,
    check_images,
    descend,
    start,
    variables,
)
from cvjax.errors import UserError
from cvjax.generative.autoencoders import evaluation, latents
from cvjax.generative.autoencoders.penalties import jacobian_norm, kl_sparsity, sigmoid_jacobian_norm
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.ops.corruption import Corruption, corrupt
from cvjax.signature import Count, Range

Activation = Literal["linear", "relu", "sigmoid", "tanh", "elu"]
Loss = Literal["squared_error", "cross_entropy"]
Sparsity = Literal["none", "kl", "l1"]
Images = Float[Array, "batch height width channels"]
Codes = Float[Array, "batch codes"]
Networks = Mapping[str, Variables]  # of the encoder and the decoder
Rows = dict[str, Shaped[Array, "batch ..."]]

ACTIVATIONS = {"linear": lambda x: x, "relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": nn.tanh, "elu": nn.elu}

# --- nets ---------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Maps images to codes; the attributes are arguments of `recipe`.

    Where convolutional, each hidden layer halves height and width, and the code is the flattened output of a last 3 x 3
    convolution with `latent` channels.
    """

    latent: int
    hidden: tuple[int, ...] = ()
    activation: Activation = "relu"
    code_activation: Activation = "linear"
    convolutional: bool = False

    @nn.compact
    def __call__(self, images: Images) -> Codes:
        """Returns the codes."""
        act, x = ACTIVATIONS[self.activation], images if self.convolutional else images.reshape(len(images), -1)
        for index, width in enumerate(self.hidden):
            layer = Conv(width, 4, 2, 1, name=f"layer{index}") if self.convolutional else _dense(width, index)
            x = act(layer(x))
        last = Conv(self.latent, 3, 1, 1, name="code") if self.convolutional else nn.Dense(self.latent, name="code")
        return ACTIVATIONS[self.code_activation](last(x)).reshape(len(images), -1)


class Decoder(nn.Module):
    """Maps codes to logits of images, or to images; the attributes are arguments of `recipe`."""

    shape: tuple[int, int, int]
    hidden: tuple[int, ...] = ()
    activation: Activation = "relu"
    convolutional: bool = False
    tied: bool = False

    @nn.compact
    def __call__(self, codes: Codes, kernels: Sequence[Float[Array, "_ _"]] = ()) -> Images:
        """Returns the images; tied layers take the encoder's `kernels`, in its order."""
        act, x = ACTIVATIONS[self.activation], codes
        if self.convolutional:
            scale = 2 ** len(self.hidden)
            x = x.reshape(len(x), self.shape[0] // scale, self.shape[1] // scale, -1)
            x = act(Conv(self.hidden[-1], 3, 1, 1, name="code")(x))
            widths = (self.shape[2], *self.hidden[:-1])
            for index in reversed(range(len(widths))):
                x = ConvTranspose(widths[index], 4, 2, 1, name=f"layer{index}")(x)
                x = act(x) if index else x
            return x
        widths = (math.prod(self.shape), *self.hidden)
        for index in reversed(range(len(widths))):
            if self.tied:
                x = x @ kernels[index].T + self.param(f"bias{index}", nn.initializers.zeros, (widths[index],))
            else:
                x = _dense(widths[index], index)(x)
            x = act(x) if index else x
        return x.reshape(len(x), *self.shape)


def _dense(width: int, index: int) -> nn.Dense:
    return nn.Dense(width, name=f"layer{index}")


def encoder_kernels(params: Params) -> list[Float[Array, "_ _"]]:
    """Returns the kernels of a dense encoder, first layer first."""
    names = [f"layer{index}" for index in range(len(params) - 1)]
    return [params[name]["kernel"] for name in (*names, "code")]


# --- losses -------------------------------------------------------------------------------------------------------


def squared_error(images: Images, outputs: Images) -> Float[Array, " batch"]:
    """Returns |x - y|^2 / 2 of each image, summed over pixels: a Gaussian's cross-entropy up to a constant."""
    return 0.5 * jnp.square(images - outputs).sum(axis=(1, 2, 3))


def cross_entropy(images: Images, logits: Images) -> Float[Array, " batch"]:
    """Returns the binary cross-entropy of each image in nats, summed over pixels (Vincent et al. 2008, equation 2)."""
    return -(images * jax.nn.log_sigmoid(logits) + (1 - images) * jax.nn.log_sigmoid(-logits)).sum(axis=(1, 2, 3))


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The recipe's functions; the attributes are the networks and arguments of `recipe`, with the optimiser built."""

    encoder: Encoder
    decoder: Decoder
    loss: Loss
    corruption: Corruption
    corruption_level: float
    contractive: float
    sparsity: Sparsity
    sparsity_weight: float
    sparsity_target: float
    tx: optax.GradientTransformation
    label_names: tuple[str, ...] = ()

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Returns both networks by name."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    def read(self, state: State) -> Networks:
        """Returns the variables of both networks."""
        return {name: variables(state, name) for name in self.networks}

    def encode(self, networks: Networks, images: Images) -> Codes:
        """Encodes images."""
        return self.encoder.apply(networks["encoder"], images)

    def decode_logits(self, networks: Networks, codes: Codes) -> Images:
        """Decodes codes to logits for cross-entropy, else to images that are not clipped."""
        kernels = encoder_kernels(networks["encoder"]["params"]) if self.decoder.tied else ()
        return self.decoder.apply(networks["decoder"], codes, kernels)

    def decode(self, networks: Networks, codes: Codes) -> Images:
        """Decodes codes to images in [0, 1]."""
        outputs = self.decode_logits(networks, codes)
        return jax.nn.sigmoid(outputs) if self.loss == "cross_entropy" else jnp.clip(outputs, 0.0, 1.0)

    def penalties(self, networks: Networks, images: Images, codes: Codes) -> Metrics:
        """Computes the weighted penalties of images and their codes."""
        terms, net = {}, self.encoder
        if self.contractive:
            if not net.hidden and not net.convolutional and net.code_activation == "sigmoid":
                norm = sigmoid_jacobian_norm(codes, networks["encoder"]["params"]["code"]["kernel"])
            else:
                norm = jacobian_norm(functools.partial(self.encode, networks), images)
            terms["contractive"] = self.contractive * norm.mean()
        if self.sparsity == "kl":
            terms["sparsity"] = self.sparsity_weight * kl_sparsity(codes, self.sparsity_target).sum()
        elif self.sparsity == "l1":
            terms["sparsity"] = self.sparsity_weight * jnp.abs(codes).sum(axis=1).mean()
        return terms

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises both networks, their optimiser and the moments of the codes."""
        check_images(batch, self.decoder.shape)
        encoder_key, decoder_key = jax.random.split(key)
        codes, encoder = self.encoder.init_with_output(encoder_key, batch["image"])
        kernels = encoder_kernels(encoder["params"]) if self.decoder.tied else ()
        networks = {"encoder": encoder, "decoder": self.decoder.init(decoder_key, codes, kernels)}
        opt = {"autoencoder": self.tx.init({name: held["params"] for name, held in networks.items()})}
        return start(networks, opt, extra={"codes": latents.Moments.standard(codes.shape[1])})

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the error of clean images reconstructed from corrupted ones, plus the penalties."""
        noisy = corrupt(key, batch["image"], self.corruption, self.corruption_level)
        error = cross_entropy if self.loss == "cross_entropy" else squared_error

        def loss_fn(params):
            networks = {name: {"params": value} for name, value in params.items()}
            codes = self.encode(networks, noisy)
            reconstruction = error(batch["image"], self.decode_logits(networks, codes)).mean()
            terms = {"reconstruction": reconstruction, **self.penalties(networks, noisy, codes)}
            return sum(terms.values()), terms

        params, opt, total, terms = descend(self.tx, loss_fn, state.params, state.opt["autoencoder"])
        metrics = {"loss/total": total, **{f"loss/{name}": value for name, value in terms.items()}}
        codes = self.encode(self.read(state), batch["image"])  # of clean images, whatever the corruption
        extra = {"codes": state.extra["codes"].updated(codes, state.step)}
        return advance(state, params, {"autoencoder": opt}, extra=extra), metrics

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> Rows:
        """Computes the rows that `evaluation.figures` takes."""
        networks, images = self.read(state), batch["image"]
        encode, decode = functools.partial(self.encode, networks), functools.partial(self.decode, networks)
        codes = encode(images)
        outputs = self.decode_logits(networks, codes)  # not clipped, as principal components are not
        reconstruction = jax.nn.sigmoid(outputs) if self.loss == "cross_entropy" else outputs
        rows = evaluation.quantised(decode, codes, state.extra["codes"])
        rows |= {"code": codes, "reconstruction": reconstruction}
        rows["squared_error"] = jnp.square(images - reconstruction).mean(axis=(1, 2, 3))
        if self.contractive or not self.encoder.convolutional:
            rows["jacobian_norm"] = jacobian_norm(encode, images)
        if self.corruption != "none":
            noisy = corrupt(key, images, self.corruption, self.corruption_level)
            rows |= {"noisy": noisy, "denoised": decode(encode(noisy))}
        return rows

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes `evaluation.figures`."""
        batch, outputs = evaluation.gather(rows)
        linear = not self.encoder.hidden and self.encoder.code_activation == "linear" and self.loss == "squared_error"
        return evaluation.figures(batch, outputs, linear)

    @functools.partial(jax.jit, static_argnums=0)
    def decoded_pictures(self, key: Key[Array, ""], state: State, batch: Batch) -> tuple[Pictures, Rows]:
        """Draws reconstructions, samples, interpolations and traversals; returns the rows of `eval_step` too."""
        networks, images = self.read(state), batch["image"]
        encode, decode = functools.partial(self.encode, networks), functools.partial(self.decode, networks)
        codes = encode(images)
        columns = [images, decode(codes)]
        if self.corruption != "none":
            noisy = corrupt(key, images, self.corruption, self.corruption_level)
            columns = [jnp.clip(noisy, 0, 1), decode(encode(noisy)), images]
        triples = jnp.stack([column[:32] for column in columns], axis=1).reshape(-1, *images.shape[1:])
        shown = latents.pictures(decode, codes, state.extra["codes"])
        shown |= {"reconstructions": triples, "samples": decode(state.extra["codes"].sample(key, 64))}
        return shown, self.eval_step(state, batch, key)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws reconstructions, samples, the latent space, compression, retrieval and denoising."""
        shown, rows = self.decoded_pictures(key, state, batch)
        return shown | latents.latent_map(rows["code"], batch, self.label_names) | evaluation.pictures(batch, rows)

    @functools.partial(jax.jit, static_argnums=0)
    def reconstruct(self, state: State, images: Images) -> Rows:
        """Encodes and decodes images."""
        networks = self.read(state)
        codes = self.encode(networks, images)
        return {"image": self.decode(networks, codes), "code": codes}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> Rows:
        """Returns reconstructions and codes."""
        return self.reconstruct(state, inputs["image"])

    @functools.partial(jax.jit, static_argnums=0, static_argnames="count")
    def draw(self, key: Key[Array, ""], state: State, count: int) -> Images:
        """Decodes codes drawn from the Gaussian with their moments."""
        return self.decode(self.read(state), state.extra["codes"].sample(key, count))

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Draws images from a Gaussian fitted to the codes of the training set."""
        return {"image": self.draw(key, state, count=inputs["count"])}


def recipe(
    shape: tuple[Count, Count, Count],
    latent: Count = 32,
    hidden: tuple[Count, ...] = (),
    activation: Activation = "relu",
    code_activation: Activation = "linear",
    convolutional: bool = False,
    tied: bool = False,
    loss: Loss = "squared_error",
    corruption: Corruption = "none",
    corruption_level: Annotated[float, Range(0)] = 0.25,
    contractive: Annotated[float, Range(0)] = 0.0,
    sparsity: Sparsity = "none",
    sparsity_weight: Annotated[float, Range(0)] = 3.0,
    sparsity_target: Annotated[float, Range(1e-6, 1)] = 0.05,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
    label_names: tuple[str, ...] = (),
) -> Recipe:
    """Makes an autoencoder.

    Args:
      shape: height, width, channels of the images.
      latent: width of the code, or the number of its channels where convolutional.
      hidden: widths of the hidden layers; the decoder uses them in reverse.
      activation: of the hidden layers.
      code_activation: of the code; the papers on denoising, contractive and sparse autoencoders use "sigmoid".
      convolutional: whether hidden layers are convolutions.
      tied: the decoder uses the encoder's kernels, transposed, as in Vincent et al. and Rifai et al.
      loss: "squared_error" with linear outputs, or "cross_entropy" with sigmoid ones (Vincent et al., Rifai et al.).
      corruption: of the encoder's inputs while training; the target is the clean image.
      corruption_level: as `corrupt` takes it. Vincent et al. 2010 search .05 to .5 for Gaussian noise, else .1 to .4.
      contractive: weight of the squared Frobenius norm of the encoder's Jacobian; Rifai et al. choose it by validation.
      sparsity: "kl" of each unit's mean activation, for sigmoid codes, or "l1" of the codes.
      sparsity_weight: weight of the sparsity penalty; 3 in Ng's notes for "kl".
      sparsity_target: target of the mean activation for "kl"; .05 in Ng's notes.
      optimiser: as `cvjax.optim.build` takes it.
      label_names: names of the classes in the map of latents; by default those of the dataset.

    Returns:
      The recipe. Its figures are those of `evaluation.figures`, with jacobian_norm for dense and contractive encoders.

    Raises:
      UserError: arguments that do not go together.
    """
    shape, hidden = tuple(shape), tuple(hidden)
    _check(shape, hidden, convolutional, tied, code_activation, corruption, corruption_level, sparsity)
    tx = optim.build(optimiser)
    encoder = Encoder(latent, hidden, activation, code_activation, convolutional)
    decoder = Decoder(shape, hidden, activation, convolutional, tied)
    penalties = contractive, sparsity, sparsity_weight, sparsity_target
    names = tuple(label_names)
    return Recipe.of(Autoencoder(encoder, decoder, loss, corruption, corruption_level, *penalties, tx, names))


def _check(shape, hidden, convolutional, tied, code_activation, corruption, corruption_level, sparsity) -> None:
    """Refuses arguments that do not go together."""
    if convolutional and (not hidden or any(size % 2 ** len(hidden) for size in shape[:2])):
        raise UserError(
            f"config.recipe.shape={tuple(shape)} cannot be halved by hidden={tuple(hidden)}: a convolutional "
            "autoencoder needs a hidden layer or more, and a height and width that each of them can halve: pad or "
            "resize the images."
        )
    if convolutional and tied:
        raise UserError("config.recipe.tied=True: convolutions cannot be tied; set tied or convolutional to False.")
    if sparsity == "kl" and code_activation != "sigmoid":
        raise UserError(
            f'config.recipe.sparsity="kl" needs codes in [0, 1]: set code_activation="sigmoid", not '
            f'{code_activation!r}, or sparsity="l1".'
        )
    if corruption in ("masking", "salt_and_pepper") and corruption_level > 1:
        raise UserError(f"config.recipe.corruption_level={corruption_level}: {corruption} replaces a share, at most 1.")
