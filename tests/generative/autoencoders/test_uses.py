"""The uses of an autoencoder, measured on principal components, for which all is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from cvjax import data
from cvjax.generative.autoencoders import autoencoder, uses
from cvjax.generative.autoencoders.latents import Moments
from cvjax.metrics.controls import principal


@pytest.fixture(scope="module")
def digits():
    return data.arrays("digits", "train"), data.arrays("digits", "test")


@pytest.fixture(scope="module")
def rows(digits):
    """What a linear autoencoder of 4 principal components gives for all test digits."""
    train, test = digits
    pca = principal.fit(train["image"], 4)
    known = principal.codes(pca, train["image"])
    basis, mean = jnp.asarray(pca.components_, jnp.float32), jnp.asarray(pca.mean_, jnp.float32)
    moments = Moments(jnp.zeros(4), jnp.asarray(np.cov(known.T), jnp.float32))

    def encode(images):
        return (images.reshape(len(images), -1) - mean) @ basis.T

    def decode(codes):
        return (codes @ basis + mean).reshape(-1, 8, 8, 1)

    images = jnp.asarray(test["image"])
    codes = encode(images)
    rows = uses.outputs(jax.random.key(0), encode, decode, codes, moments)
    error = jnp.square(images - decode(codes)).mean(axis=(1, 2, 3))
    return jax.device_get({**rows, "code": codes, "squared_error": error, "reconstruction": decode(codes)})


def test_principal_components_score_as_the_controls_say(digits, rows):
    figures, controls = uses.digit_figures(digits[1], rows, linear=True), uses.controls(4)
    expected = controls["4 principal components"]
    assert figures["error_over_pca"] == pytest.approx(1, abs=1e-4)
    assert figures["subspace_angle"] < 1e-3
    assert figures["precision_at_10"] == pytest.approx(expected["precision_at_10"], abs=0.002)  # ties in float32
    assert figures["precision_over_pixels"] < 0
    assert controls["raw pixels"]["precision_at_10"] - figures["precision_at_10"] == pytest.approx(
        -figures["precision_over_pixels"]
    )
    # The same codes but for float32 and the divisor of the variance, which move the quantiser's step by 1 in 2,600.
    assert figures["jpeg_gain"] == pytest.approx(expected["jpeg_gain"], abs=0.1)
    assert figures["sample_sure_share"] < controls["test digits themselves"]["sample_sure_share"]


def test_precision_is_that_of_all_distances(digits, rows):
    train, test = digits
    order = pairwise_distances(test["image"].reshape(500, -1), train["image"].reshape(len(train["image"]), -1))
    nearest = np.argsort(order, axis=1, kind="stable")[:, :10]
    expected = (train["label"][nearest] == test["label"][:, None]).mean()
    assert uses.pixel_precision(test) == pytest.approx(expected, abs=0.002)
    assert uses.precision_of(np.array([[0, 1], [2, 2]]), np.array([5, 6, 7]), np.array([5, 7])) == 0.75


def test_quantised_codes_are_within_half_a_step():
    codes = jax.random.normal(jax.random.key(1), (20, 3))
    levels = uses.quantise(codes, jnp.float32(0.5))
    steps = 0.5 * np.asarray(uses.STEPS)[:, None]
    assert (np.abs(levels * steps - codes[:, None]) <= steps / 2 + 1e-6).all()
    assert np.abs(uses.quantise(codes * 1e9, jnp.float32(1.0))).max() == 127


def test_sparseness_is_hoyers():
    codes = np.array([[1, 1, 1, 1], [0, 0, -3, 0], [0, 0, 0, 0], [1, 2, 0, 0]], np.float32)
    by_hand = (2 - 3 / np.sqrt(5)) / 1
    for row, expected in zip(codes, (0, 1, 0, by_hand), strict=True):
        figures = uses.code_figures({"code": row[None], "squared_error": np.ones(1, np.float32)})
        assert figures["sparseness"] == pytest.approx(expected, abs=1e-6)


def test_denoised_images_are_measured_beside_rivals(digits):
    clean = digits[1]["image"][:40]
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.25, clean.shape), 0, 1).astype(np.float32)
    figures = uses.denoising_figures(clean, noisy, (clean + noisy) / 2)
    assert figures["psnr_gain"] == pytest.approx(20 * np.log10(2), abs=1e-3)  # half the error
    assert figures["psnr_denoised"] - figures["psnr_noisy"] == pytest.approx(figures["psnr_gain"])
    over = figures["psnr_denoised"] - figures["psnr_nonlocal_means"]
    assert figures["psnr_over_nonlocal_means"] == pytest.approx(over)
    assert figures["psnr_nonlocal_means"] > figures["psnr_noisy"]


def test_recipe_has_every_figure_and_picture(digits):
    batch = {name: jnp.asarray(digits[1][name][:16]) for name in ("image", "label")} | {"valid": jnp.arange(16) < 14}
    recipe = autoencoder.recipe((8, 8, 1), latent=3, corruption="gaussian", measure="digits")
    state = recipe.init(jax.random.key(0), batch)
    shown = recipe.visualise(state, batch, jax.random.key(1))
    assert set(shown) == {
        *("reconstructions", "samples", "interpolations", "traversals", "latent_map", "rate_distortion", "neighbours"),
        "denoising",
    }
    assert shown["denoising"].shape == (4 * 14, 8, 8, 1)  # padding left out
    assert all(np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1.001 for image in shown.values())
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, jax.random.key(2)))
    assert {len(value) for value in outputs.values()} == {16}
    assert set(recipe.controls()) == {"3 principal components", "raw pixels", "test digits themselves"}
