"""Borrowed encoders and decoders: what they give becomes codes and images, and pairs that do not fit are named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network, start
from cvjax.errors import UserError
from cvjax.generative.autoencoders import autoencoder, vae
from cvjax.generative.diffusion.first_stage import FirstStage, draw_codes

SHAPE, KEY = (4, 4, 1), jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (3, *SHAPE))
ENCODER, DECODER = autoencoder.Encoder(2, (8,)), autoencoder.Decoder(SHAPE, (8,))
POSTERIOR = vae.Encoder(2, (8,))


class Rows(nn.Module):
    """Gives codes that are neither vectors nor images."""

    def __call__(self, images):
        return images[..., 0]


def network(module, shape=SHAPE):
    return Network(module, shape)


def begin(stage):
    codes, frozen = stage.init(KEY, IMAGES)
    return codes, start({}, {}, frozen=frozen)


@pytest.mark.parametrize("output, activation", [("image", lambda x: np.clip(x, 0, 1)), ("bernoulli", jax.nn.sigmoid)])
def test_an_autoencoder_gives_images_or_logits(output, activation):
    stage = FirstStage(network(ENCODER), network(DECODER), output)
    stage.check()
    codes, state = begin(stage)
    found = stage.encode(KEY, state, IMAGES)
    np.testing.assert_array_equal(found, ENCODER.apply(state.frozen["encoder"], IMAGES))
    assert found.shape == codes.shape == (3, 2)
    outputs = DECODER.apply(state.frozen["decoder"], 5 * found)
    np.testing.assert_allclose(stage.decode(state, 5 * found), activation(outputs), rtol=1e-6)
    assert outputs.min() < 0


@pytest.mark.parametrize("likelihood, outputs", [("bernoulli", 1), ("categorical", 5), ("gaussian", 2)])
def test_a_variational_decoder_gives_the_expected_image(likelihood, outputs):
    decoder = vae.Decoder(SHAPE, outputs, (8,))
    stage = FirstStage(network(POSTERIOR), network(decoder), likelihood)
    stage.check()
    codes, state = begin(stage)
    logits = np.asarray(decoder.apply(state.frozen["decoder"], codes), np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = {
        "bernoulli": 1 / (1 + np.exp(-logits[..., 0])),
        "categorical": (shares * np.arange(outputs) / max(outputs - 1, 1)).sum(axis=-1),
        "gaussian": logits[..., 0].clip(0, 1),
    }
    np.testing.assert_allclose(stage.decode(state, codes), expected[likelihood], atol=1e-6)


def test_codes_are_drawn_from_posteriors_and_activations_are_left_out():
    mean, log_variance = jnp.full((20_000, 1), 3.0), jnp.full((20_000, 1), np.log(4.0))
    codes = draw_codes(KEY, (mean, log_variance))
    assert abs(codes.mean() - 3) < 0.06 and abs(codes.std() - 2) < 0.05  # four deviations
    np.testing.assert_array_equal(draw_codes(KEY, (mean, {"features": mean})), mean)
    np.testing.assert_array_equal(draw_codes(KEY, mean), mean)


@pytest.mark.parametrize(
    "encoder, decoder, output, message",
    [
        (network(ENCODER), network(autoencoder.Decoder(SHAPE, (8,), tied=True)), "image", "tied=False"),
        (network(ENCODER), network(DECODER, (8, 8, 1)), "image", "both from one run"),
        (network(Rows()), network(DECODER), "image", r"vectors or small images; it gives \(4, 4\)"),
        (network(nn.Conv(2, (3, 3))), network(DECODER), "image", r"gives \(4, 4, 1\)|does not take \(4, 4, 2\)"),
        (network(ENCODER), network(nn.Conv(2, (3, 3))), "image", "borrow.decoder: that network does not take"),
        (network(ENCODER), network(DECODER), "categorical", "set image or bernoulli"),
        (network(POSTERIOR), network(vae.Decoder(SHAPE, 5, (8,))), "image", "set bernoulli, categorical or gaussian"),
        (network(ENCODER), network(autoencoder.Decoder((8, 8, 1), (8,)), SHAPE), "image", r"gives \(8, 8, 1\)"),
    ],
)
def test_networks_that_do_not_fit_are_refused(encoder, decoder, output, message):
    with pytest.raises(UserError, match=message):
        FirstStage(encoder, decoder, output).check()
