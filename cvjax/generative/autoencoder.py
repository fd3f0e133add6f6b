"""Autoencoders: an image through a bottleneck and back, and what keeps the code from being a mere copy.

One recipe; each penalty is an argument, and they combine:

* denoising: Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, 2008, and Stacked
  Denoising Autoencoders, JMLR 2010 (masking, salt-and-pepper and Gaussian corruption);
* contractive: Rifai et al., Contractive Auto-Encoders: Explicit Invariance During Feature Extraction, 2011;
* sparse: Ng, Sparse Autoencoder, CS294A lecture notes, 2011 (KL to a target activation), or L1;
* convolutional: Masci et al., Stacked Convolutional Auto-Encoders, 2011: the code is a small map of features.

Without hidden layers and with linear codes the best one is the principal subspace (Baldi & Hornik, 1989).
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cvjax import optim
from cvjax.core import Recipe, State, check_images, descend
from cvjax.errors import UserError
from cvjax.generative import latents, uses
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.ops.corruption import Corruption, corrupt
from cvjax.signature import Count, Range

Activation = Literal["linear", "relu", "sigmoid", "tanh", "elu"]
Images = Float[Array, "batch height width channels"]
Codes = Float[Array, "batch codes"]

ACTIVATIONS = {"linear": lambda x: x, "relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": nn.tanh, "elu": nn.elu}

# --- nets ---------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """An image to its code.

    Attributes:
      latent: width of the code; where convolutional, its channels.
      hidden: widths of the layers between.
      activation: of these layers.
      code_activation: of the code.
      convolutional: False: dense layers; True: each hidden layer is a convolution that halves height and width, and
        the code is what a last one, 3 x 3, makes of the smallest map, flattened.
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
    """A code to the logits of an image, or to the image itself.

    Attributes:
      shape: height, width, channels of the image.
      hidden: the encoder's widths; used in reverse.
      activation: of the hidden layers.
      convolutional: as the encoder.
      tied: whether dense layers have the encoder's kernels, transposed, and only biases of their own.
    """

    shape: tuple[int, int, int]
    hidden: tuple[int, ...] = ()
    activation: Activation = "relu"
    convolutional: bool = False
    tied: bool = False

    @nn.compact
    def __call__(self, codes: Codes, kernels: Sequence[Float[Array, "_ _"]] = ()) -> Images:
        """Returns the images; `kernels` are those of the encoder's layers, in its order, where they are tied."""
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


def encoder_kernels(params: Mapping[str, Any]) -> list[Float[Array, "_ _"]]:
    """Lists the kernels of a dense encoder, from the image to the code.

    Args:
      params: of an `Encoder`.

    Returns:
      One kernel a layer.
    """
    names = [f"layer{index}" for index in range(len(params) - 1)]
    return [params[name]["kernel"] for name in (*names, "code")]


# --- losses -------------------------------------------------------------------------------------------------------


def squared_error(images: Images, outputs: Images) -> Float[Array, " batch"]:
    """Computes |x - y|^2 / 2 of each image, summed over pixels: a Gaussian's cross-entropy up to a constant.

    Args:
      images: in [0, 1].
      outputs: the reconstructions.

    Returns:
      One error an image.
    """
    return 0.5 * jnp.square(images - outputs).sum(axis=(1, 2, 3))


def cross_entropy(images: Images, logits: Images) -> Float[Array, " batch"]:
    """Computes -sum x log y + (1 - x) log(1 - y), y = sigmoid(logits), of each image (Vincent et al. 2008, equation 2).

    Args:
      images: in [0, 1].
      logits: of the reconstructions.

    Returns:
      One error an image, in nats.
    """
    return -(images * jax.nn.log_sigmoid(logits) + (1 - images) * jax.nn.log_sigmoid(-logits)).sum(axis=(1, 2, 3))


def jacobian_norm(encode: Callable[[Images], Codes], images: Images) -> Float[Array, " batch"]:
    """Computes the squared Frobenius norm of the code's Jacobian by the image, exactly, for any encoder.

    Args:
      encode: treats each image by itself.
      images: where.

    Returns:
      |dh / dx|_F^2 of each image (Rifai et al., equation 1).
    """

    def of_one(image):
        return jnp.square(jax.jacrev(lambda x: encode(x[None])[0])(image)).sum()

    return jax.vmap(of_one)(images)


def sigmoid_jacobian_norm(codes: Codes, kernel: Float[Array, "inputs codes"]) -> Float[Array, " batch"]:
    """Computes the same for one dense layer with sigmoid codes: no more work than the layer itself.

    Args:
      codes: h = sigmoid(x W + b).
      kernel: W.

    Returns:
      sum_j (h_j (1 - h_j))^2 sum_i W_ij^2 of each image (Rifai et al., equation 2).
    """
    return jnp.square(codes * (1 - codes)) @ jnp.square(kernel).sum(axis=0)


def kl_sparsity(codes: Codes, target: float) -> Float[Array, " codes"]:
    """Computes KL(target || mean activation) of each unit as a coin's (Ng, section 3).

    Args:
      codes: in [0, 1]; their mean is over the batch, and kept 1e-6 off 0 and 1 so that the divergence is finite.
      target: mean activation wished for.

    Returns:
      One divergence a unit, in nats.
    """
    mean = jnp.clip(codes.mean(axis=0), 1e-6, 1 - 1e-6)
    return jax.scipy.special.rel_entr(target, mean) + jax.scipy.special.rel_entr(1 - target, 1 - mean)


# --- recipe -------------------------------------------------------------------------------------------------------


def recipe(
    shape: tuple[Count, Count, Count],
    latent: Count = 32,
    hidden: tuple[Count, ...] = (),
    activation: Activation = "relu",
    code_activation: Activation = "linear",
    convolutional: bool = False,
    tied: bool = False,
    loss: Literal["squared_error", "cross_entropy"] = "squared_error",
    corruption: Corruption = "none",
    corruption_level: Annotated[float, Range(0)] = 0.25,
    contractive: Annotated[float, Range(0)] = 0.0,
    sparsity: Literal["none", "kl", "l1"] = "none",
    sparsity_weight: Annotated[float, Range(0)] = 3.0,
    sparsity_target: Annotated[float, Range(1e-6, 1)] = 0.05,
    measure: Literal["none", "digits"] = "none",
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
) -> Recipe:
    """Makes an autoencoder.

    Args:
      shape: height, width, channels of the images.
      latent: width of the code; where convolutional, its channels.
      hidden: widths of the encoder's hidden layers; the decoder's in reverse.
      activation: of the hidden layers.
      code_activation: of the code; "sigmoid" in the papers on denoising, contractive and sparse ones.
      convolutional: convolutions of stride 2 in place of dense layers.
      tied: the decoder's kernels are the encoder's, transposed, as in Vincent et al. and Rifai et al.
      loss: "squared_error" with linear outputs, or "cross_entropy" with sigmoid ones (Vincent et al., Rifai et al.).
      corruption: of the images that training encodes; the reconstruction is held against the clean ones.
      corruption_level: see `corrupt`. Vincent et al. 2010 search .05 to .5 for Gaussian noise, .1 to .4 for the others.
      contractive: weight of the squared Frobenius norm of the encoder's Jacobian; Rifai et al. choose it by validation.
      sparsity: "kl" of each unit's mean activation, for sigmoid codes, or "l1" of the codes.
      sparsity_weight: of that penalty; 3 in Ng's notes for "kl".
      sparsity_target: mean activation that "kl" asks for; .05 in Ng's notes.
      measure: "digits" measures the uses of the code, and shows what principal components reach as controls.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures: squared_error, mean over images and pixels in [0, 1], and what else `uses.code_figures` has;
      jacobian_norm of dense encoders and contractive ones. With a corruption, those of `uses.denoising_figures`; with
      `measure`, those of `uses.digit_figures`.

    Raises:
      UserError: arguments that exclude one another.
    """
    _check(shape, hidden, convolutional, tied, code_activation, corruption, corruption_level, sparsity)
    if measure == "digits" and tuple(shape) != (8, 8, 1):
        raise UserError(f'config.recipe.measure="digits" judges 8 x 8 grey images, not {tuple(shape)}.')
    tx = optim.build(optimiser)
    encoder = Encoder(latent, tuple(hidden), activation, code_activation, convolutional)
    decoder = Decoder(tuple(shape), tuple(hidden), activation, convolutional, tied)
    closed_form = not hidden and not convolutional and code_activation == "sigmoid"
    linear = not hidden and code_activation == "linear" and loss == "squared_error"
    losses = {"squared_error": squared_error, "cross_entropy": cross_entropy}

    def encode(params, images):
        return encoder.apply({"params": params["encoder"]}, images)

    def decode_logits(params, codes):
        kernels = encoder_kernels(params["encoder"]) if tied else ()
        return decoder.apply({"params": params["decoder"]}, codes, kernels)

    def decode(params, codes):
        """Returns images in [0, 1]."""
        outputs = decode_logits(params, codes)
        return jax.nn.sigmoid(outputs) if loss == "cross_entropy" else jnp.clip(outputs, 0.0, 1.0)

    def penalties(params, images, codes):
        terms = {}
        if contractive:
            norm = (
                sigmoid_jacobian_norm(codes, params["encoder"]["code"]["kernel"])
                if closed_form
                else jacobian_norm(functools.partial(encode, params), images)
            )
            terms["contractive"] = contractive * norm.mean()
        if sparsity == "kl":
            terms["sparsity"] = sparsity_weight * kl_sparsity(codes, sparsity_target).sum()
        elif sparsity == "l1":
            terms["sparsity"] = sparsity_weight * jnp.abs(codes).sum(axis=1).mean()
        return terms

    def init(key, batch):
        check_images(batch, shape)
        encoder_key, decoder_key = jax.random.split(key)
        codes, variables = encoder.init_with_output(encoder_key, batch["image"])
        kernels = encoder_kernels(variables["params"]) if tied else ()
        params = {
            "encoder": variables["params"],
            "decoder": decoder.init(decoder_key, codes, kernels)["params"],
        }
        extra = {"codes": latents.Moments.standard(codes.shape[1])}
        return State(step=jnp.int32(0), params=params, opt={"autoencoder": tx.init(params)}, extra=extra)

    def train_step(state, batch, key):
        images = batch["image"]
        noisy = corrupt(key, images, corruption, corruption_level)

        def loss_fn(params):
            codes = encode(params, noisy)
            reconstruction = losses[loss](images, decode_logits(params, codes)).mean()
            terms = {"reconstruction": reconstruction, **penalties(params, noisy, codes)}
            return sum(terms.values()), (codes, terms)

        params, opt, total, (codes, terms) = descend(tx, loss_fn, state.params, state.opt["autoencoder"])
        metrics = {"loss/total": total, **{f"loss/{name}": value for name, value in terms.items()}}
        extra = {"codes": state.extra["codes"].updated(codes, state.step)}
        return State(state.step + 1, params, {"autoencoder": opt}, extra), metrics

    def eval_step(state, batch, key):
        params, images = state.params, batch["image"]
        noise_key, sample_key = jax.random.split(key)
        codes = encode(params, images)
        outputs = decode_logits(params, codes)  # of a linear decoder not clipped, as principal components are not
        reconstruction = jax.nn.sigmoid(outputs) if loss == "cross_entropy" else outputs
        rows = {"code": codes, "squared_error": jnp.square(images - reconstruction).mean(axis=(1, 2, 3))}
        if contractive or not convolutional:
            rows["jacobian_norm"] = jacobian_norm(functools.partial(encode, params), images)
        if corruption != "none":
            noisy = corrupt(noise_key, images, corruption, corruption_level)
            rows |= {"noisy": jnp.clip(noisy, 0, 1), "denoised": decode(params, encode(params, noisy))}
        if measure == "digits":
            both = functools.partial(encode, params), functools.partial(decode, params)
            rows |= {"reconstruction": reconstruction, **uses.outputs(sample_key, *both, codes, state.extra["codes"])}
        return rows

    def score(rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        rows = list(rows)
        batch, outputs = (
            {name: np.concatenate([row[side][name] for row in rows]) for name in rows[0][side]} for side in (0, 1)
        )
        figures = uses.code_figures(outputs)
        if corruption != "none":
            figures |= uses.denoising_figures(batch["image"], outputs["noisy"], outputs["denoised"])
        if measure == "digits":
            figures |= uses.digit_figures(batch, outputs, linear)
        return figures

    def draw(state, key, count):
        return decode(state.params, state.extra["codes"].sample(key, count))

    @jax.jit
    def show(state, batch, key):
        params, images, codes = state.params, batch["image"], encode(state.params, batch["image"])
        columns = [images, decode(params, codes)]
        if corruption != "none":
            noisy = corrupt(key, images, corruption, corruption_level)
            columns = [jnp.clip(noisy, 0, 1), decode(params, encode(params, noisy)), images]
        few = jnp.stack([column[:32] for column in columns], axis=1).reshape(-1, *images.shape[1:])
        shown = latents.pictures(functools.partial(decode, params), codes, state.extra["codes"])
        shown |= {"reconstructions": few, "samples": draw(state, key, 64)}
        return shown, eval_step(state, batch, key) if measure == "digits" else {"code": codes}

    def visualise(state, batch, key):
        shown, rows = show(state, batch, key)
        shown |= latents.latent_map(rows["code"], batch)
        return shown | (uses.pictures(rows, batch) if measure == "digits" else {})

    def predict(state, inputs):
        codes = encode(state.params, inputs["image"])
        return {"image": decode(state.params, codes), "code": codes}

    def sample(state, key, count):
        return {"image": draw(state, key, count)}

    codes = latent * (math.prod(shape[:2]) // 4 ** len(hidden) if convolutional else 1)
    controls = functools.partial(uses.controls, codes) if measure == "digits" else None
    return Recipe(init, train_step, eval_step, score, visualise, predict, sample, controls)


def _check(shape, hidden, convolutional, tied, code_activation, corruption, corruption_level, sparsity) -> None:
    """Refuses arguments that exclude one another."""
    if convolutional and (not hidden or any(size % 2 ** len(hidden) for size in shape[:2])):
        raise UserError(
            f"config.recipe.shape={tuple(shape)} cannot be halved by hidden={tuple(hidden)}: a convolutional "
            "autoencoder needs a hidden layer or more, and sizes that can be halved as often: pad or resize the images."
        )
    if convolutional and tied:
        raise UserError("config.recipe.tied=True: convolutions have kernels of their own; set one of the two to False.")
    if sparsity == "kl" and code_activation != "sigmoid":
        raise UserError(
            f'config.recipe.sparsity="kl" takes codes for probabilities: set code_activation="sigmoid", not '
            f'{code_activation!r}, or sparsity="l1".'
        )
    if corruption in ("masking", "salt_and_pepper") and corruption_level > 1:
        raise UserError(f"config.recipe.corruption_level={corruption_level}: {corruption} replaces a share, at most 1.")
