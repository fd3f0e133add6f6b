"""Figures of translations: detail by brute force, colours as least squares fit them."""

import numpy as np
import pytest

from cvjax.metrics.image import Convention, ssim
from cvjax.metrics.translation import (
    above_controls,
    decibels,
    detail_correlation,
    fit_colours,
    recolour,
    similarities,
    trivial_figures,
)


def random_images(seed, channels=3):
    return np.random.default_rng(seed).uniform(size=(3, 9, 11, channels)).astype(np.float32)


def detail_by_hand(image, window):
    grey, margin = image.astype(np.float64).mean(axis=-1), window // 2
    padded = np.pad(grey, margin, mode="symmetric")
    found = np.empty_like(grey)
    for row, column in np.ndindex(grey.shape):
        found[row, column] = grey[row, column] - padded[row : row + window, column : column + window].mean()
    return found.ravel()


@pytest.mark.parametrize("window", [3, 5])
def test_detail_is_that_of_brute_force(window):
    truth, images = random_images(0), random_images(1)
    expected = []
    for one, other in zip(truth, images, strict=True):
        one, other = detail_by_hand(one, window), detail_by_hand(other, window)
        expected.append(one @ other / np.sqrt((one @ one) * (other @ other)))
    np.testing.assert_allclose(detail_correlation(truth, images, window), expected, atol=1e-9)


def test_detail_tells_stripes_from_grey_whatever_their_contrast():
    rows = np.arange(32)[:, None, None] // 2 % 2
    inside = np.zeros((32, 32, 1))
    inside[6:26, 6:26] = 1
    striped = 0.1 + inside * (0.2 + 0.6 * rows) * np.ones(3)
    flat = 0.1 + inside * 0.5 * np.ones(3)
    faint = 0.1 + inside * (0.4 + 0.2 * rows) * np.ones(3)
    inverted = 0.1 + inside * (0.2 + 0.6 * (1 - rows)) * np.ones(3)
    constant = np.full((32, 32, 3), 0.3)
    others = np.stack([striped, faint, flat, constant, inverted])
    same, faint, flat, constant, inverted = detail_correlation(np.stack([striped] * 5), others)
    assert same == pytest.approx(1) and faint > 0.85
    assert abs(flat) < 0.4 and constant == 0 and inverted < -0.5


def test_colours_are_fitted_as_by_numpy():
    images, truth = random_images(2), random_images(3)
    terms = np.concatenate([images.reshape(-1, 3), np.ones((images[..., 0].size, 1))], axis=1).astype(np.float64)
    expected = np.linalg.lstsq(terms, truth.reshape(-1, 3).astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(fit_colours(images, truth), expected, atol=1e-9)
    # What is affine is found exactly, also where pixels have few colours and so do not determine the map.
    two = np.where(random_images(4, 1) > 0.5, np.float32([0.9, 0.5, 0.1]), np.float32([0.2, 0.2, 0.3]))
    wanted = 0.8 * two[..., ::-1] + 0.05
    np.testing.assert_allclose(recolour(two, fit_colours(two, wanted)), wanted, atol=1e-6)
    assert recolour(two, np.full((4, 3), 2.0)).max() == 1.0


def test_trivial_translations_have_their_psnr():
    a, b = random_images(5), random_images(6)
    found = trivial_figures(a, b)
    rounded = [np.round(x.astype(np.float64) * 255) / 255 for x in (a, b)]
    errors = ((rounded[0] - rounded[1]) ** 2).mean(axis=(1, 2, 3))
    assert found["identity_psnr"] == pytest.approx((-10 * np.log10(errors)).mean())
    mean = np.round(b.mean(axis=(0, 1, 2), dtype=np.float64) * 255) / 255
    assert found["flat_psnr"] == pytest.approx(np.mean(-10 * np.log10(((rounded[1] - mean) ** 2).mean((1, 2, 3)))))
    # Nothing that is learnt of independent noise: no better than a constant, by more than the fit's freedom.
    assert found["flat_psnr"] <= found["recoloured_psnr"] < found["flat_psnr"] + 0.5
    assert abs(found["recoloured_detail"]) < 0.5
    assert decibels(b, b).tolist() == [100.0] * 3


def test_similarity_needs_room_for_its_window():
    small, large = random_images(7), np.random.default_rng(8).uniform(size=(2, 11, 12, 3)).astype(np.float32)
    assert set(similarities(small, small)) == {"psnr"}
    found = similarities(large, large**2)
    np.testing.assert_array_equal(found["ssim"], ssim(large, large**2, Convention("rgb")))
    trivial = trivial_figures(large, large**2)
    assert trivial["identity_ssim"] == pytest.approx(found["ssim"].mean())
    assert trivial["recoloured_ssim"] > trivial["identity_ssim"]


def test_what_is_above_the_controls_is_of_a_to_b():
    figures = {"psnr_a_to_b": 15.0, "psnr_b_to_a": 1.0, "identity_psnr": 12.0, "recoloured_psnr": 16.0}
    assert above_controls(figures) == {"psnr_over_input": 3.0, "psnr_over_recoloured": -1.0}
    figures |= {"ssim_a_to_b": 0.5, "identity_ssim": 0.25, "recoloured_ssim": 0.75}
    assert above_controls(figures)["ssim_over_recoloured"] == -0.25 and above_controls({"cycle_psnr": 3.0}) == {}
