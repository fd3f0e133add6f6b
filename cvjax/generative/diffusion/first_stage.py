"""A frozen encoder and decoder, the first stage of Rombach et al., 2022 (arXiv:2112.10752), section 3.1."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax.core import Network, State, Variables, variables
from cvjax.errors import UserError
from cvjax.generative.autoencoders.likelihoods import Likelihood, expected_image

Output = Literal["image"] | Likelihood
Images = Float[Array, "batch height width channels"]
Codes = Float[Array, "batch codes"] | Float[Array, "batch rows columns code"]


@dataclasses.dataclass(frozen=True)
class FirstStage:
    """Images to codes and back, by networks in `State.frozen`.

    The encoder gives codes, or the (mean, log-variance) of a posterior; codes are vectors or small images. The decoder
    gives images, which are clipped, if `output` is "image", else the parameters of that likelihood; "bernoulli" is also
    for logits trained by cross-entropy.
    """

    encoder: Network
    decoder: Network
    output: Output = "image"

    def init(self, key: Key[Array, ""], images: Images) -> tuple[Codes, dict[str, Variables]]:
        """Returns codes, and placeholders for the borrowed variables."""
        encoder_key, decoder_key, draw_key = jax.random.split(key, 3)
        outputs, encoder = self.encoder.module.init_with_output(encoder_key, images)
        codes = draw_codes(draw_key, outputs)
        return codes, {"encoder": encoder, "decoder": self.decoder.module.init(decoder_key, codes)}

    def encode(self, key: Key[Array, ""], state: State, images: Images) -> Codes:
        """Returns codes; of a variational encoder, draws from the posteriors."""
        return draw_codes(key, self.encoder.module.apply(variables(state, "encoder"), images))

    def decode(self, state: State, codes: Codes) -> Images:
        """Returns images in [0, 1]."""
        return as_images(self.output, self.decoder.module.apply(variables(state, "decoder"), codes))

    @functools.cached_property
    def code_shape(self) -> tuple[int, ...]:
        """The shape of a code; a UserError if the encoder gives neither vectors nor small images."""
        images = jax.ShapeDtypeStruct((1, *self.encoder.shape), jnp.float32)
        key = jax.random.key(0)
        codes = _trace("encoder", lambda x: draw_codes(key, self.encoder.module.init_with_output(key, x)[0]), images)
        if codes.ndim not in (2, 4):
            raise UserError(
                f"config.borrow.encoder: codes are to be vectors or small images; it gives {codes.shape[1:]}."
            )
        return codes.shape[1:]

    def check(self) -> None:
        """Raises a UserError if two networks do not fit together, or have another `output`."""
        shape = tuple(self.encoder.shape)
        if getattr(self.decoder.module, "tied", False):
            raise UserError(
                "config.borrow.decoder: its kernels are the encoder's (tied=True), so that it does not work alone: "
                "borrow from an autoencoder with tied=False."
            )
        if tuple(self.decoder.shape) != shape:
            raise UserError(
                f"config.borrow: the encoder was trained on images {shape}, the decoder on "
                f"{tuple(self.decoder.shape)}: borrow both from one run."
            )
        key, codes = jax.random.key(0), jax.ShapeDtypeStruct((1, *self.code_shape), jnp.float32)
        found = _trace("decoder", lambda x: self.decoder.module.init_with_output(key, x)[0], codes)
        ranks = {"image": (4,), "bernoulli": (4, 5)}.get(self.output, (5,))
        if found.shape[1:4] != shape or found.ndim not in ranks:
            kind = "image or bernoulli" if found.ndim == 4 else "bernoulli, categorical or gaussian"
            raise UserError(
                f"config.recipe.decoder_output={self.output!r}, but for images {shape} the decoder gives "
                f"{found.shape[1:]}: set {kind}, whichever the autoencoder was trained by."
            )


def draw_codes(
    key: Key[Array, ""], outputs: Float[Array, "batch ..."] | tuple[Float[Array, "batch ..."], Any]
) -> Float[Array, "batch ..."]:
    """Returns the codes in an encoder's outputs: codes, (codes, activations) or (mean, log-variance) to draw from."""
    if not isinstance(outputs, tuple):
        return outputs
    first, second = outputs
    if isinstance(second, Mapping):
        return first
    return first + jnp.exp(second / 2) * jax.random.normal(key, first.shape)


def as_images(output: Output, outputs: Float[Array, "batch height width channels ..."]) -> Images:
    """Returns a decoder's outputs as images in [0, 1]; of a likelihood, the expected images."""
    if output == "image":
        return jnp.clip(outputs, 0.0, 1.0)
    return expected_image(output, outputs if outputs.ndim == 5 else outputs[..., None])


def _trace(name: str, function: Any, example: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Traces a borrowed network, which may be of any kind and fail in any way."""
    try:
        return jax.eval_shape(function, example)
    except Exception as error:
        raise UserError(
            f"config.borrow.{name}: that network does not take {example.shape[1:]}: {type(error).__name__}: {error}"
        ) from error
