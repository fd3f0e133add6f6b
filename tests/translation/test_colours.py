"""Colours beside SciPy's square roots and scikit-image's YIQ."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from skimage import color

from cvjax.translation import colours


@pytest.fixture(scope="module")
def pictures():
    """A style and a content, of different sizes and correlated colours."""
    generator = np.random.default_rng(0)
    shapes = (12, 10, 3), (9, 14, 3)
    return [jnp.float32(0.5 + 0.1 * generator.normal(size=s) @ generator.normal(size=(3, 3))) for s in shapes]


def moments(picture):
    pixels = np.asarray(picture, np.float64).reshape(-1, 3)
    return pixels.mean(axis=0), np.cov(pixels.T, bias=True)


@pytest.mark.parametrize("method", ["symmetric", "cholesky"])
def test_matched_colours_have_the_contents_mean_and_covariance(pictures, method):
    style, content = pictures
    mean, covariance = moments(colours.match_colours(style, content, method))
    wanted_mean, wanted_covariance = moments(content)
    np.testing.assert_allclose(mean, wanted_mean, atol=1e-5)
    np.testing.assert_allclose(covariance, wanted_covariance, atol=2e-4)  # SMALL is added to variances of about .03


def test_the_map_of_colours_is_scipys(pictures):
    style, content = pictures
    (mean, spread), (wanted_mean, wanted) = moments(style), moments(content)
    small = colours.SMALL * np.eye(3)
    roots = {
        "symmetric": scipy.linalg.sqrtm(wanted + small) @ np.linalg.inv(scipy.linalg.sqrtm(spread + small)),
        "cholesky": np.linalg.cholesky(wanted + small) @ np.linalg.inv(np.linalg.cholesky(spread + small)),
    }
    for method, matrix in roots.items():
        by_hand = (np.asarray(style, np.float64) - mean) @ matrix.T + wanted_mean
        np.testing.assert_allclose(colours.match_colours(style, content, method), by_hand, atol=2e-4)


def test_grey_pictures_have_colours_to_match(pictures):
    grey = jnp.repeat(pictures[0][..., :1], 3, axis=-1)
    assert jnp.isfinite(colours.match_colours(grey, pictures[1])).all()
    assert jnp.isfinite(colours.match_luminance(0 * grey[..., :1], pictures[1][..., :1])).all()


def test_yiq_is_scikit_images(pictures):
    picture = jnp.clip(pictures[0], 0, 1)
    np.testing.assert_allclose(colours.to_yiq(picture), color.rgb2yiq(np.asarray(picture)), atol=1e-3)  # of its digits
    np.testing.assert_allclose(colours.from_yiq(colours.to_yiq(picture)), picture, atol=1e-5)


def test_luminance_is_of_the_style_and_colour_of_the_content(pictures):
    style, content = (0.5 + 0.2 * (jnp.clip(picture, 0, 1) - 0.5) for picture in pictures)
    grey, wanted = colours.to_yiq(style)[..., :1], colours.to_yiq(content)[..., :1]
    matched = colours.match_luminance(grey, wanted)
    np.testing.assert_allclose([matched.mean(), matched.std()], [wanted.mean(), wanted.std()], rtol=1e-3)
    made = colours.to_yiq(colours.with_colours_of(wanted[::-1], content))
    np.testing.assert_allclose(made[..., :1], wanted[::-1], atol=1e-5)
    np.testing.assert_allclose(made[..., 1:], colours.to_yiq(content)[..., 1:], atol=1e-5)
    assert colours.with_colours_of(wanted + 5, content).max() <= 1


def test_lab_is_scikit_images():
    images = np.random.default_rng(0).uniform(size=(2, 16, 17, 3)).astype(np.float32)
    images[0, :8] *= 0.05  # dark colours lie on the curves' straight parts
    lab = colours.to_lab(jnp.asarray(images))
    # Their white, (.95047, 1, 1.08883), is not exactly the sum of their red, green and blue.
    np.testing.assert_allclose(lab, color.rgb2lab(images), atol=0.02)
    np.testing.assert_allclose(colours.from_lab(lab), images, atol=1e-4)
    grey = jnp.broadcast_to(jnp.linspace(0, 1, 32)[:, None, None], (32, 1, 3))
    assert jnp.abs(colours.to_lab(grey)[..., 1:]).max() < 1e-3


def test_colours_that_a_screen_lacks_keep_lightness_and_hue():
    generator = np.random.default_rng(1)
    lab = jnp.float32(
        np.concatenate([generator.uniform(0, 100, (500, 1, 1)), generator.normal(0, 60, (500, 1, 2))], -1)
    )
    images = np.asarray(colours.from_lab(lab))
    found = np.asarray(colours.to_lab(jnp.asarray(images)))
    assert images.min() >= 0 and images.max() <= 1
    np.testing.assert_allclose(found[..., 0], lab[..., 0], atol=0.02)
    length, wanted = (np.linalg.norm(x[..., 1:], axis=-1) for x in (found, np.asarray(lab)))
    cross = found[..., 1] * lab[..., 2] - found[..., 2] * lab[..., 1]
    assert np.abs(cross / wanted).max() < 0.1  # of chroma, across the hue
    reduced = length < 0.99 * wanted
    assert 100 < reduced.sum() < 400
    # Scikit-image clips; a step further out it would have to.
    further = np.concatenate([found[..., :1], 1.02 * found[..., 1:]], axis=-1)[reduced & (length > 5)]
    again = color.rgb2lab(color.lab2rgb(further[:, None]))[:, 0]
    assert (np.abs(again - further).max(axis=-1) > 0.02).mean() > 0.95
