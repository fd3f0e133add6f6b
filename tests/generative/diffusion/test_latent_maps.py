"""Latent diffusion of codes that are small images: their scale, samplers, tokens, arithmetic, and a frozen codebook."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.generative.autoencoders.latents import Scale
from cvjax.generative.autoencoders.spatial import Architecture as Sizes
from cvjax.generative.autoencoders.spatial import Decoder, Encoder
from cvjax.generative.diffusion import latent
from cvjax.generative.diffusion.drawing import sample_gflops
from cvjax.generative.diffusion.first_stage import FirstStage
from cvjax.generative.diffusion.process import Process
from cvjax.generative.diffusion.samplers import Sampling
from cvjax.generative.diffusion.unet import Architecture, ContextUNet, UNet
from cvjax.ops import flops

SHAPE, KEY = (8, 8, 1), jax.random.key(0)
UNET = Architecture(width=8, multipliers=(1, 2), blocks=1, attention=(), dropout=0.0)


class Shrink(nn.Module):
    """Encodes an image as the posterior of 7 times the means of 2 x 2 pixels, plus 3, with a deviation of 0.01."""

    @nn.compact
    def __call__(self, images):
        scale = self.param("scale", nn.initializers.constant(7.0), ())
        means = scale * nn.avg_pool(images, (2, 2), (2, 2)) + 3
        return means, jnp.full_like(means, 2 * np.log(0.01))


class Enlarge(nn.Module):
    """Decodes such codes."""

    @nn.compact
    def __call__(self, codes):
        scale = self.param("scale", nn.initializers.constant(7.0), ())
        return ((codes - 3) / scale).repeat(2, axis=1).repeat(2, axis=2)


ENCODER, DECODER = Network(Shrink(), SHAPE), Network(Enlarge(), SHAPE)
recipe = functools.partial(
    latent.recipe,
    ENCODER,
    DECODER,
    classes=2,
    unet=UNET,
    process=Process(steps=20, prediction="velocity"),
    sampling=Sampling(steps=4),
    optimiser={"name": "adam", "learning_rate": 2e-3},
)


def draw_batch(key):
    """Flat images, dark ones (class 0) and bright ones (class 1)."""
    label = jnp.arange(32) % 2
    values = jnp.where(label == 1, 0.8, 0.2) + 0.05 * jax.random.normal(key, (32,))
    return {"image": jnp.broadcast_to(values[:, None, None, None], (32, *SHAPE)), "label": label}


@pytest.fixture(scope="module")
def trained():
    made = recipe()
    state = made.init(KEY, draw_batch(KEY))

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda s, key: made.train_step(s, draw_batch(key), key), state, jax.random.split(KEY, 500))

    return made, state, *run(state)


def test_codes_are_scaled_to_unit_deviation_by_what_training_saw_and_the_first_stage_stays(trained):
    made, before, after, metrics = trained
    assert isinstance(made.networks["denoiser"], UNet) and after.extra["codes"].second.shape == ()
    images = jnp.concatenate([draw_batch(key)["image"] for key in jax.random.split(KEY, 20)])
    codes, _ = Shrink().apply(after.frozen["encoder"], images)
    scaled = after.extra["codes"].standardise(codes)
    assert abs(scaled.std() - 1) < 0.02  # of a batch it differs by about 0.02, and the latest twenty count
    np.testing.assert_allclose(scaled.mean(), codes.mean() / codes.std(), rtol=0.02)  # the mean is left
    np.testing.assert_allclose(after.extra["codes"].restore(scaled), codes, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, before.frozen, after.frozen)
    loss = np.asarray(metrics["loss/total"])
    assert loss[-20:].mean() < 0.6 * loss[0]


def test_the_first_scale_is_that_of_the_first_batch():
    codes = 20 + 5 * jax.random.normal(KEY, (4, 3, 3, 2))
    scale = Scale.standard().updated(codes, jnp.int32(0), keep=1.0)
    np.testing.assert_allclose(scale.deviation(), codes.std(), rtol=1e-3)
    later = scale.updated(2 * codes, jnp.int32(90), keep=1.0)
    np.testing.assert_allclose(later.mean, (0.91 + 2 * 0.09) * codes.mean(), rtol=1e-5)


def test_figures(trained):
    made, _, state, _ = trained
    batch = draw_batch(jax.random.key(5))
    figures = made.score([(batch, jax.device_get(jax.jit(made.eval_step)(state, batch, KEY)))])
    assert figures.keys() == {"denoising_error", "squared_error", "gflops_per_sample"}
    assert figures["squared_error"] < 1e-5 and 0 < figures["denoising_error"] < 0.8


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver"])
def test_every_sampler_draws_images_of_the_class(trained, sampler):
    _, _, state, _ = trained
    made = recipe(sampling=Sampling(steps=20, sampler=sampler, **({"eta": 0.0} if sampler == "ddim" else {})))
    label = np.arange(200) % 2
    found = np.asarray(made.sample(state, KEY, {"count": 200, "label": label})["image"])
    assert found.shape == (200, *SHAPE)
    means = found.mean(axis=(1, 2, 3))
    assert means[label == 1].mean() > means[label == 0].mean() + 0.2


def test_the_arithmetic_of_a_sample_is_that_of_its_steps():
    def counted(steps):
        return sample_gflops(recipe(sampling=Sampling(steps=steps)).sample.__self__, SHAPE) * 1e9

    def evaluated(side):
        inputs = (jnp.zeros((1, side, side, 1)), jnp.zeros(1, int), jnp.zeros(1, int))
        params = jax.eval_shape(net.init, KEY, *inputs)
        return flops.count(jax.make_jaxpr(net.apply)(params, *inputs)).total(), (params, *inputs)

    net = UNet(UNET, 2)
    assert counted(7) - counted(3) == 4 * evaluated(4)[0]
    # XLA also counts sums and activations, and leaves out the taps on the padding: of small maps, a third of all.
    once, inputs = evaluated(16)
    compiled = jax.jit(net.apply).lower(*inputs).compile().cost_analysis()["flops"]
    assert 0.9 < compiled / once < 1.5
    guided = recipe(sampling=Sampling(steps=3, guidance=1.0)).sample.__self__
    assert abs(sample_gflops(guided, SHAPE) * 1e9 / counted(3) - 2) < 0.01


def test_a_class_is_read_as_a_token_and_a_context_takes_its_place():
    made = recipe(tokens=6)
    net = made.networks["denoiser"]
    assert isinstance(net, ContextUNet)
    inputs, labels = (jax.random.normal(KEY, (2, 4, 4, 1)), jnp.zeros(2, int)), jnp.array([0, 1])
    params = net.init(KEY, *inputs, labels)["params"]
    keys = iter(jax.random.split(KEY, len(jax.tree.leaves(params))))
    params = {"params": jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params)}
    apply = jax.jit(net.apply)
    read = apply(params, *inputs, labels)
    assert params["params"]["classes"]["embedding"].shape == (3, 6)
    assert not np.allclose(read, apply(params, *inputs, labels[::-1]), atol=1e-3)
    tokens = params["params"]["classes"]["embedding"][labels][:, None]
    np.testing.assert_allclose(apply(params, *inputs, None, tokens), read, atol=1e-6)
    padded = jnp.concatenate([tokens, jnp.full((2, 3, 6), 9.0)], axis=1)  # a longer sequence
    unread = jnp.arange(4)[None].repeat(2, axis=0) > 0
    np.testing.assert_allclose(apply(params, *inputs, None, padded, unread), read, atol=1e-5)
    assert not np.allclose(apply(params, *inputs, None, padded), read, atol=1e-3)
    none = apply(params, *inputs, jnp.full(2, 2))
    np.testing.assert_allclose(apply(params, *inputs), none, atol=1e-6)


def test_the_codebook_is_the_decoder_s():
    sizes = Sizes(width=4, multipliers=(1, 2), blocks=1)
    encoder, decoder = Encoder(sizes, posterior=False), Decoder(sizes, 1, entries=8)
    stage = FirstStage(Network(encoder, SHAPE), Network(decoder, SHAPE))
    stage.check()
    assert stage.code_shape == (4, 4, 3)
    held = decoder.init(KEY, jnp.zeros((1, 4, 4, 3)))
    codes = held["params"]["codebook"][jnp.arange(16).reshape(1, 4, 4) % 8]
    moved = codes + 1e-5 * jax.random.normal(KEY, codes.shape)
    np.testing.assert_array_equal(*(decoder.apply(held, x) for x in (codes, moved)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"classes": None, "tokens": 8}, "without classes there is nothing to read"),
        ({"unet": Architecture(width=8, multipliers=(1, 1, 1, 1))}, "of codes of 4 x 4 x 1, config.recipe.unet"),
        ({"sampling": Sampling(steps=21)}, "only 20 steps"),
        ({"width": 32}, "config.recipe.width=32 would be ignored: codes are small images"),
        ({"sampling": Sampling(steps=4, eta=0.5, sampler="ddpm")}, r'eta=0.5 would be ignored: only sampler="ddim"'),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(UserError, match=message):
        recipe(**arguments)
