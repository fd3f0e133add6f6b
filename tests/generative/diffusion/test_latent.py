"""Latent diffusion of codes in two clusters: moments, classes, guidance, edits, and the best linear denoiser."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.generative.diffusion import latent
from cvjax.generative.diffusion.process import Process, diffuse
from cvjax.generative.diffusion.samplers import Sampling
from cvjax.generative.diffusion.unet import Architecture

SHAPE, KEY = (4, 4, 1), jax.random.key(0)


class Halves(nn.Module):
    """Encodes an image as the mean of its upper half and that of its lower half, times a scale."""

    @nn.compact
    def __call__(self, images):
        return self.param("scale", nn.initializers.ones, ()) * images.reshape(len(images), 2, 8).mean(axis=2)


class Paint(nn.Module):
    """Paints both halves."""

    @nn.compact
    def __call__(self, codes):
        scale = self.param("scale", nn.initializers.ones, ())
        return (codes / scale).repeat(8, axis=1).reshape(len(codes), *SHAPE)


ENCODER, DECODER = Network(Halves(), SHAPE), Network(Paint(), SHAPE)
recipe = functools.partial(
    latent.recipe, ENCODER, DECODER, width=32, blocks=1, optimiser={"name": "adam", "learning_rate": 3e-3}
)
PROCESS, SAMPLING = Process(steps=50, prediction="velocity"), Sampling(steps=25)


def draw_batch(key):
    """Images with a bright upper half (class 0), or a bright lower half (class 1)."""
    label_key, noise_key = jax.random.split(key)
    label = jax.random.bernoulli(label_key, 0.5, (64,)).astype(jnp.int32)
    codes = jnp.where(label[:, None] == jnp.arange(2), 0.7, 0.2) + 0.03 * jax.random.normal(noise_key, (64, 2))
    return {"image": Paint().apply({"params": {"scale": 1.0}}, codes), "label": label}


def train(made, steps):
    """Trains, the encoder's codes being 20 times as large as what it is initialised to."""
    state = made.init(KEY, draw_batch(KEY))
    state = state.replace(frozen={name: {"params": {"scale": jnp.float32(20)}} for name in ("encoder", "decoder")})

    @jax.jit
    def run(state):
        return jax.lax.scan(
            lambda s, key: made.train_step(s, draw_batch(key), key), state, jax.random.split(KEY, steps)
        )

    return run(state)


@pytest.fixture(scope="module")
def conditional():
    made = recipe(classes=2, process=PROCESS, sampling=SAMPLING, label_dropout=0.3)
    return made, *train(made, 600)


def classes_of(images):
    """The class that images are of, or -1 of what lies between."""
    upper, lower = np.asarray(images).reshape(len(images), 2, 8).mean(axis=2).T
    return np.where(abs(upper - lower) < 0.35, -1, (lower > upper).astype(int))


def test_training_measures_moments_averages_the_denoiser_and_leaves_the_rest_alone(conditional):
    made, state, metrics = conditional
    codes = 20 * np.concatenate(
        [Halves().apply({"params": {"scale": 1.0}}, draw_batch(key)["image"]) for key in jax.random.split(KEY, 50)]
    )
    np.testing.assert_allclose(state.extra["codes"].mean, codes.mean(axis=0), rtol=0.05)
    np.testing.assert_allclose(state.extra["codes"].deviation(), codes.std(axis=0), rtol=0.05)
    assert state.frozen["encoder"]["params"]["scale"] == 20 and int(state.step) == 600
    assert state.average.keys() == {"denoiser"} and made.networks.keys() == {"denoiser", "encoder", "decoder"}
    loss = np.asarray(metrics["loss/total"])
    assert loss[0] > 0.8 and loss[-50:].mean() < 0.35


def test_figures_are_beside_the_best_linear_denoiser(conditional):
    made, state, _ = conditional
    batch = draw_batch(jax.random.key(5))
    rows = jax.device_get(jax.jit(made.eval_step)(state, batch, KEY))
    figures = made.score([(batch, rows)])
    assert figures["error_over_gaussian"] < 0.8
    assert figures["squared_error"] < 1e-4  # painted halves are encoded without loss
    idle = state.replace(average={}, params=jax.tree.map(jnp.zeros_like, state.params))
    figures = made.score([(batch, jax.device_get(jax.jit(made.eval_step)(idle, batch, KEY)))])
    expected = PROCESS.alpha_bars[2::5].mean()  # of velocity 0 and codes of unit deviation, at ten levels
    assert abs(figures["denoising_error"] / expected - 1) < 0.1 and figures["error_over_gaussian"] > 1.05


def test_samples_are_of_their_class_and_without_one_of_all(conditional):
    made, state, _ = conditional
    labels = np.arange(200) % 2
    found = made.sample(state, KEY, {"count": 200, "label": labels})["image"]
    assert found.shape == (200, *SHAPE) and (classes_of(found) == labels).mean() > 0.97
    np.testing.assert_array_equal(found, made.sample(state, KEY, {"count": 200, "label": labels})["image"])
    shares = np.bincount(classes_of(made.sample(state, KEY, {"count": 200})["image"]) + 1, minlength=3) / 200
    assert shares[0] < 0.1 and shares[1:].min() > 0.3
    assert made.sample_inputs == made.predict_inputs == ("label", "guidance")


def test_guidance_moves_samples_away_from_the_other_class(conditional):
    made, state, _ = conditional
    guided = recipe(classes=2, process=PROCESS, sampling=dataclasses.replace(SAMPLING, guidance=3.0))
    labels, gaps, images = np.arange(200) % 2, [], {}
    for name, system, given in (("none", made, {}), ("of all", guided, {}), ("of each", made, {"guidance": 3.0})):
        further = {"label": labels} | {key: np.full(200, weight) for key, weight in given.items()}
        drawn = images[name] = system.sample(state, KEY, {"count": 200, **further})["image"]
        upper, lower = drawn.reshape(200, 2, 8).mean(axis=2).T
        gaps.append(np.where(labels == 1, lower - upper, upper - lower).mean())
    assert gaps[1] > gaps[0] + 0.01
    np.testing.assert_allclose(images["of each"], images["of all"], atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "log_linear"])
def test_samples_are_drawn_by_the_noise_of_training(schedule):
    process = Process(steps=8, schedule=schedule, log_snr=(3.0, -1.0))
    made = recipe(process=process, sampling=Sampling(steps=4, eta=0.0))
    state = made.init(KEY, draw_batch(KEY))  # its denoiser sees no noise, so that each step only rescales
    drawn, _ = made.sample.__self__.draw(KEY, state, 400, None)
    noise = state.extra["codes"].standardise(drawn)
    expected = process.shares[6] ** -0.5  # the first of the steps that are visited
    assert noise.std() == pytest.approx(expected, rel=0.1)


def test_edits_change_more_the_stronger_they_are(conditional):
    _, state, _ = conditional
    image, changes = draw_batch(jax.random.key(6))["image"], []
    for strength in (0.0, 0.16, 1.0):
        made = recipe(classes=2, process=PROCESS, sampling=SAMPLING, strength=strength)
        edited = made.predict(state, {"image": image}, KEY)["image"]
        changes.append(float(jnp.square(edited - image).mean()))
    assert changes[0] < 1e-10 and 1e-4 < changes[1] < 0.3 * changes[2]
    other = made.predict(state, {"image": image, "label": np.ones(64, np.int32)}, KEY)["image"]
    assert (classes_of(other) == 1).mean() > 0.95  # at full strength nothing is left of the image but its label


def test_pictures(conditional):
    made, state, _ = conditional
    batch = draw_batch(KEY)
    shown = made.visualise(state, batch, KEY)
    assert shown.keys() == {"samples", "gaussian_samples", "nearest_reconstructions", "chain", "edits", "classes"}
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in shown.values())
    between = [np.mean(classes_of(shown[name]) == -1) for name in ("samples", "gaussian_samples")]
    assert between[0] < 0.1 and between[1] > 0.2  # a Gaussian has its samples between the clusters, too
    samples, found = shown["nearest_reconstructions"].reshape(32, 2, *SHAPE).swapaxes(0, 1)
    distances = np.square(samples[:, None] - batch["image"]).sum(axis=(2, 3, 4))  # halves are encoded without loss
    np.testing.assert_allclose(np.square(samples - found).sum(axis=(1, 2, 3)), distances.min(axis=1), atol=1e-5)


def test_the_linear_denoiser_is_the_regression_of_noise_on_noisy_codes():
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.0], [0.8, 0.6]])
    codes, noise = rng.normal(size=(2, 200_000, 2)).astype(np.float32)
    noisy = diffuse(jnp.asarray(codes @ np.float32(mixing.T)), jnp.asarray(noise), np.float32(0.6))
    weights = np.linalg.lstsq(np.asarray(noisy, np.float64), noise, rcond=None)[0]
    found = latent.gaussian_noise(noisy, jnp.float32(0.6), jnp.asarray(mixing @ mixing.T, jnp.float32))
    np.testing.assert_allclose(found, noisy @ weights, atol=0.03)  # regression's own error, times the largest codes


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width": 7}, "even"),
        ({"tokens": 8}, "tokens=8 would be ignored: codes are vectors"),
        ({"unet": Architecture(dropout=0.0, width=32)}, r"unet\.width=32 would be ignored: codes are vectors"),
        ({"process": Process(steps=20), "sampling": Sampling(steps=21)}, "only 20 steps"),
        ({"sampling": Sampling(guidance=1.0)}, "nothing to guide towards"),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(UserError, match=message):
        latent.recipe(ENCODER, DECODER, **arguments)


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"\(8, 8, 1\), but the borrowed encoder was trained on \(4, 4, 1\)"):
        recipe().init(KEY, {"image": jnp.zeros((2, 8, 8, 1))})
