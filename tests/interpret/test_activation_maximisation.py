"""Activation maximisation: its parameterisation beside NumPy in float64, its steps beside torch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import data
from cvjax.interpret import activation_maximisation as ascent
from cvjax.interpret.activation_maximisation import Ascent, maximise

KEY = jax.random.key(0)
STILL = dict(shift=0.0, angle=0.0, zoom=0.0)


@pytest.mark.parametrize(("height", "width", "decay"), [(8, 8, 1.0), (6, 9, 0.5), (7, 4, 0.0)])
def test_spectra_become_images_as_in_numpy(height, width, decay):
    spectra = np.random.default_rng(0).normal(size=(2, height, width // 2 + 1, 3, 2))
    down, along = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    scaled = np.empty(spectra.shape[:-1], complex)
    for i, j in itertools.product(range(height), range(width // 2 + 1)):
        frequency = max(np.sqrt(down[i] ** 2 + along[j] ** 2), 1 / max(height, width))
        scaled[:, i, j] = (
            (spectra[:, i, j, :, 0] + 1j * spectra[:, i, j, :, 1]) * np.sqrt(height * width) / frequency**decay
        )
    expected = np.fft.irfft2(scaled, s=(height, width), axes=(1, 2))
    found = ascent.from_spectra(jnp.float32(spectra), width, decay)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())  # float32


def test_colour_axes_are_the_root_of_the_covariance_and_those_of_the_photographs():
    images = data.arrays("photos", "train")["image"]
    axes = ascent.colour_axes(images)
    covariance = np.cov(np.float64(images).reshape(-1, 3).T)
    scale = (axes @ axes.T)[0, 0] / covariance[0, 0]
    np.testing.assert_allclose(axes @ axes.T, scale * covariance, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0).max(), 1)
    np.testing.assert_allclose(axes, ascent.COLOUR_AXES, atol=1e-3)  # written with four decimals
    drawn = np.random.default_rng(0).normal(size=(4, 50, 50, 3)) @ np.array(ascent.COLOUR_AXES).T
    correlations = [np.corrcoef(pixels.reshape(-1, 3).T) for pixels in (drawn, images)]
    np.testing.assert_allclose(*correlations, atol=0.02)  # of 10,000 draws


def test_values_become_colours_by_the_axes_and_the_logistic():
    values = np.random.default_rng(0).normal(size=(1, 2, 2, 3))
    expected = 1 / (1 + np.exp(-values @ np.array(ascent.COLOUR_AXES).T))
    np.testing.assert_allclose(ascent.to_colours(jnp.float32(values)), expected, atol=1e-6)
    grey = values[..., :1]
    np.testing.assert_allclose(ascent.to_colours(jnp.float32(grey)), 1 / (1 + np.exp(-grey)), atol=1e-6)


def test_the_objective_is_the_mean_of_a_channel_or_a_logit():
    activations = jnp.float32(np.random.default_rng(0).normal(size=(2, 5, 4, 3)))
    np.testing.assert_allclose(ascent.channel_objective(activations, 1), activations[..., 1].mean((1, 2)), rtol=1e-5)
    logits = activations[:, 0, 0]
    np.testing.assert_allclose(ascent.channel_objective(logits, 1), logits[:, 1])


def test_diversity_is_the_mean_cosine_of_gram_matrices():
    activations = np.random.default_rng(0).uniform(size=(3, 4, 4, 5))
    flat = activations.reshape(3, 16, 5)
    grams = [np.ravel(one.T @ one) for one in flat]
    pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(grams, 2)]
    np.testing.assert_allclose(ascent.diversity(jnp.float32(activations)), -np.mean(pairs), rtol=1e-5)
    assert abs(ascent.diversity(jnp.float32(activations[:1]))) < 1e-6


def objective_of(kernel):
    """A convolution and a ReLU: the mean of the channel."""

    def objective_fn(images, channel=0):
        found = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return ascent.channel_objective(jax.nn.relu(found), channel).sum()

    return objective_fn


def test_mapped_over_channels_it_finds_what_each_alone_does_and_the_objective_rises():
    objective_fn = objective_of(jnp.abs(jax.random.normal(KEY, (3, 3, 3, 2))) - 0.3)
    settings, keys = Ascent(steps=12, shift=1.0), jax.random.split(KEY, 2)

    def make(key, channel):
        return maximise(key, lambda images: objective_fn(images, channel), (1, 10, 10, 3), settings)

    images, values = jax.jit(jax.vmap(make))(keys, jnp.arange(2))
    assert images.shape == (2, 1, 10, 10, 3) and values.shape == (2, 12)
    assert (values[:, -1] > values[:, 0]).all() and images.min() > 0 and images.max() < 1
    alone, _ = jax.jit(make)(keys[1], 1)
    np.testing.assert_allclose(images[1], alone, atol=1e-4)  # twelve steps of float32


@pytest.mark.parity
@pytest.mark.parametrize("parameters", ["spectrum", "pixels"])
def test_steps_equal_torchs(parameters):
    torch = pytest.importorskip("torch")
    kernel = jax.random.normal(KEY, (3, 3, 3, 2))
    settings = Ascent(steps=6, candidates=1, parameters=parameters, **STILL)
    shape = (2, 8, 10, 3)
    found, values = jax.jit(lambda key: maximise(key, objective_of(kernel), shape, settings))(KEY)
    start_key = jax.random.split(jax.random.split(KEY)[0], 1)[0]
    if parameters == "pixels":
        first = settings.deviation * jax.random.normal(start_key, shape)
    else:
        first = ascent.draw_spectra(start_key, shape, settings.deviation)
    held = torch.tensor(np.asarray(first), requires_grad=True)
    weight = torch.tensor(np.asarray(kernel)).permute(3, 2, 0, 1)
    axes = torch.tensor(ascent.COLOUR_AXES)
    frequency = np.maximum(np.hypot(np.fft.fftfreq(8)[:, None], np.fft.rfftfreq(10)), 0.1)
    scale = torch.tensor(np.sqrt(80) / frequency, dtype=torch.float32)[:, :, None]

    def paint():
        if parameters == "pixels":
            return torch.sigmoid(held)
        pixels = torch.fft.irfft2(torch.view_as_complex(held) * scale, s=(8, 10), dim=(1, 2))
        return torch.sigmoid(pixels @ axes.T)

    optimiser = torch.optim.Adam([held], lr=0.05)
    for value in values:
        optimiser.zero_grad()
        loss = -torch.relu(torch.nn.functional.conv2d(paint().permute(0, 3, 1, 2), weight))[:, 0].mean((1, 2)).sum()
        np.testing.assert_allclose(value, -loss.item(), rtol=1e-4)
        loss.backward()
        optimiser.step()
    np.testing.assert_allclose(found, paint().detach().numpy(), atol=1e-4)  # six steps of float32


def test_the_ascent_begins_with_the_candidate_that_the_objective_likes_best():
    """An objective that is flat, as of an inactive ReLU, on all but one of the starts."""
    shape, settings = (1, 6, 6, 1), Ascent(steps=8, candidates=6, parameters="pixels", **STILL)
    keys, contrasts = jax.random.split(jax.random.split(KEY)[0], 6), 0.01 * np.geomspace(1, 10, 6)
    starts = jnp.stack([c * jax.random.normal(k, shape) for k, c in zip(keys, contrasts, strict=True)])
    level = jnp.sort(jax.nn.sigmoid(starts).max(axis=(1, 2, 3, 4)))[-2:].mean()
    images, values = jax.jit(lambda key: maximise(key, lambda x: jax.nn.relu(x.max() - level), shape, settings))(KEY)
    assert values[0] > 0 and values[-1] > values[0] and images.max() > level
    only = Ascent(steps=8, candidates=1, parameters="pixels", **STILL)
    _, values = jax.jit(lambda key: maximise(key, lambda x: jax.nn.relu(x.max() - level), shape, only))(KEY)
    assert not values.any()
