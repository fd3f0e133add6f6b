"""Low-resolution images are MATLAB's in 8 bits; blur, noise and JPEG are their definitions, by strengths per image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cvjax.errors import UserError
from cvjax.ops.jpeg import compress
from cvjax.ops.resampling import resize_matrix
from cvjax.translation.super_resolution import edsr
from cvjax.translation.super_resolution.degradation import Degradation, degrade, fit_factor, gaussian_blur

KEY = jax.random.key(0)
IMAGES = jnp.float32(ndimage.gaussian_filter(np.random.default_rng(0).uniform(size=(3, 24, 36, 3)), (0, 1, 1, 0)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_standard_is_the_bicubic_kernel_in_eight_bits(scale):
    low = np.asarray(degrade(KEY, IMAGES, scale))
    down, across = (resize_matrix(side, side // scale) for side in (24, 36))
    exact = np.clip(np.einsum("yh,xw,nhwc->nyxc", down, across, np.asarray(IMAGES, np.float64)), 0, 1)
    np.testing.assert_allclose(255 * low, np.round(255 * low), atol=1e-4)
    assert np.abs(low - exact).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(low, degrade(jax.random.key(1), IMAGES, scale))  # nothing is random


def test_blur_is_scipys_and_each_image_has_its_own():
    deviations = jnp.array([0.0, 0.8, 1.7])
    blurred = np.asarray(gaussian_blur(IMAGES, deviations, reach=6))
    np.testing.assert_allclose(blurred[0], IMAGES[0], atol=1e-6)
    for image, found, deviation in zip(np.asarray(IMAGES[1:]), blurred[1:], (0.8, 1.7), strict=True):
        expected = ndimage.gaussian_filter(image, (deviation, deviation, 0), mode="reflect", radius=(6, 6, 0))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    ours = degrade(KEY, IMAGES, 2, Degradation(blur=(1.7, 1.7)))
    np.testing.assert_array_equal(ours[2], degrade(KEY, jnp.asarray(blurred), 2)[2])


def test_noise_has_its_deviation_and_jpeg_comes_last():
    grey = jnp.full((2, 128, 128, 1), 0.5)
    noise = np.asarray(degrade(KEY, grey, 2, Degradation(noise=(0.1, 0.1)))) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.03) and abs(noise.mean()) < 0.005
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] < 0.05
    between = np.asarray(degrade(KEY, jnp.full((16, 32, 32, 1), 0.5), 2, Degradation(noise=(0.0, 0.2)))).std((1, 2, 3))
    assert between.min() < 0.06 < 0.14 < between.max()  # a strength for each image
    low = degrade(KEY, IMAGES, 2)
    ours = degrade(KEY, IMAGES, 2, Degradation(jpeg=(30.0, 30.0)))
    np.testing.assert_allclose(ours, jax.vmap(lambda image: compress(image, 30.0))(low), atol=1 / 255 + 1e-6)
    assert jnp.abs(ours - low).mean() > 0.005


def test_sides_are_cut_to_multiples_and_others_refused():
    assert fit_factor(IMAGES[:, :23, :35], 4).shape == (3, 20, 32, 3)
    np.testing.assert_array_equal(fit_factor(IMAGES, 5), IMAGES[:, :20, :35])
    with pytest.raises(UserError, match="images of 23x36 cannot be made 2 times smaller"):
        degrade(KEY, IMAGES[:, :23], 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(blur=(2.0, 1.0)), r"degradation.blur=\(2.0, 1.0\): the least comes first"),
        (dict(jpeg=(0.0, 50.0)), r"degradation.jpeg=\(0.0, 50.0\): qualities are from 1 to 100"),
        (dict(jpeg=(50.0, 101.0)), "qualities are from 1 to 100"),
    ],
)
def test_impossible_strengths_are_refused_before_anything_compiles(wrong, said):
    with pytest.raises(UserError, match=said):
        edsr.recipe(degradation=Degradation(**wrong))
