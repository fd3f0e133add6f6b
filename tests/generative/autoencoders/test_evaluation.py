"""Figures of codes, for principal components and for images whose structure is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from cvjax import data
from cvjax.generative.autoencoders import autoencoder, evaluation
from cvjax.generative.autoencoders.latents import Moments
from cvjax.metrics.controls import principal


@pytest.fixture(scope="module")
def digits():
    return data.arrays("digits", "test")


@pytest.fixture(scope="module")
def rows(digits):
    """What a linear autoencoder of 4 principal components of the test digits gives for these."""
    pca = principal.fit(digits["image"], 4)
    known = principal.codes(pca, digits["image"])
    basis, mean = jnp.asarray(pca.components_, jnp.float32), jnp.asarray(pca.mean_, jnp.float32)
    moments = Moments(jnp.zeros(4), jnp.asarray(np.cov(known.T), jnp.float32))

    def decode(codes):
        return (codes @ basis + mean).reshape(-1, 8, 8, 1)

    images = jnp.asarray(digits["image"])
    codes = (images.reshape(len(images), -1) - mean) @ basis.T
    error = jnp.square(images - decode(codes)).mean(axis=(1, 2, 3))
    rows = evaluation.quantised(decode, codes, moments)
    return jax.device_get({**rows, "code": codes, "squared_error": error, "reconstruction": decode(codes)})


def test_principal_components_are_as_good_as_themselves(digits, rows):
    figures = evaluation.figures(digits, rows, linear=True)
    assert figures["error_over_pca"] == pytest.approx(1, abs=1e-4) and figures["subspace_angle"] < 1e-3
    assert 0.5 < figures["precision_at_10"] < 1 and figures["precision_over_pixels"] < 0
    assert "subspace_angle" not in evaluation.figures(digits, rows, linear=False)
    worse = rows | {"squared_error": 2 * rows["squared_error"], "decoded": np.zeros_like(rows["decoded"])}
    assert evaluation.figures(digits, worse, linear=False)["error_over_pca"] == pytest.approx(2, abs=1e-3)
    assert evaluation.figures(digits, worse, linear=False)["jpeg_gain"] < figures["jpeg_gain"]


def test_figures_are_those_that_the_data_allow(digits, rows):
    few = {name: value[:4] for name, value in digits.items()}
    found = evaluation.figures(few, {name: value[:4] for name, value in rows.items()}, linear=True)
    assert "error_over_pca" not in found  # 3 components leave no error of 4 images
    assert "precision_at_10" not in found and "jpeg_gain" in found
    assert "precision_at_10" not in evaluation.figures({"image": digits["image"]}, rows, linear=False)
    two = {"image": np.repeat(digits["image"], 2, axis=-1), "label": digits["label"]}
    assert "jpeg_gain" not in evaluation.figures(two, rows, linear=False)


def test_precision_is_that_of_all_distances(digits):
    flat = digits["image"].reshape(len(digits["image"]), -1)
    distances = pairwise_distances(flat)
    np.fill_diagonal(distances, np.inf)  # an image does not find itself
    found = np.argsort(distances, axis=1, kind="stable")[:, :10]
    expected = (digits["label"][found] == digits["label"][:, None]).mean()
    assert evaluation.precision(flat, digits["label"]) == pytest.approx(expected, abs=0.002)  # ties
    line = np.array([[0.0], [1.0], [3.0], [3.0]])
    np.testing.assert_array_equal(evaluation.nearest(line, 1)[:, 0], [1, 0, 3, 2])


def test_gathered_rows_are_all_codes_and_the_first_images(monkeypatch):
    monkeypatch.setattr(evaluation, "IMAGES", 5)
    pairs = []
    for start in (0, 3, 6):
        index = np.arange(start, start + 3)
        pairs.append(({"image": index[:, None, None, None], "label": index}, {"code": index[:, None]}))
    batch, outputs = evaluation.gather(iter(pairs))
    np.testing.assert_array_equal(batch["image"].ravel(), np.arange(5))
    np.testing.assert_array_equal(batch["label"], np.arange(9))
    np.testing.assert_array_equal(outputs["code"].ravel(), np.arange(9))


def test_quantised_codes_are_within_half_a_step():
    codes = jax.random.normal(jax.random.key(1), (20, 3))
    levels = evaluation.quantise(codes, jnp.float32(0.5))
    steps = 0.5 * np.asarray(evaluation.STEPS)[:, None]
    assert (np.abs(levels * steps - codes[:, None]) <= steps / 2 + 1e-6).all()
    assert np.abs(evaluation.quantise(codes * 1e9, jnp.float32(1.0))).max() == 127


def test_sparseness_is_hoyers():
    codes = np.array([[1, 1, 1, 1], [0, 0, -3, 0], [0, 0, 0, 0], [1, 2, 0, 0]], np.float32)
    by_hand = (2 - 3 / np.sqrt(5)) / 1
    for row, expected in zip(codes, (0, 1, 0, by_hand), strict=True):
        figures = evaluation.code_figures({"code": row[None], "squared_error": np.ones(1, np.float32)})
        assert figures["sparseness"] == pytest.approx(expected, abs=1e-6)


def test_denoised_images_are_measured_beside_classical_denoisers(digits):
    clean = digits["image"][:40]
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.25, clean.shape), 0, 1).astype(np.float32)
    figures = evaluation.denoising_figures(clean, noisy, (clean + noisy) / 2)
    assert figures["psnr_gain"] == pytest.approx(20 * np.log10(2), abs=1e-3)  # half the error
    assert figures["psnr_denoised"] - figures["psnr_noisy"] == pytest.approx(figures["psnr_gain"])
    over = figures["psnr_denoised"] - figures["psnr_nonlocal_means"]
    assert figures["psnr_over_nonlocal_means"] == pytest.approx(over)
    assert figures["psnr_nonlocal_means"] > figures["psnr_noisy"]


def test_recipe_has_every_figure_and_picture(digits):
    batch = {name: jnp.asarray(digits[name][:16]) for name in ("image", "label")} | {"valid": jnp.arange(16) < 14}
    recipe = autoencoder.recipe((8, 8, 1), latent=3, corruption="gaussian")
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
    figures = recipe.score([(jax.device_get(batch), outputs)])
    wanted = {"error_over_pca", "subspace_angle", "jpeg_gain", "precision_at_10", "psnr_gain", "jacobian_norm"}
    assert wanted <= figures.keys()
