"""Transforms that change colours, against dm-pix and their own definitions."""

import dm_pix
import numpy as np
import pytest
import skimage.data

from cvjax.data import transforms
from cvjax.data.transforms import colour
from cvjax.errors import UserError

IMAGE = skimage.data.astronaut()[100:164, 150:230].astype(np.float32) / 255


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("brightness", 0.2),
        ("brightness", -0.3),
        ("contrast", 0.4),
        ("contrast", 1.7),
        ("saturation", 0.0),
        ("saturation", 1.6),
        ("hue", 0.1),
        ("hue", -0.45),
    ],
)
def test_adjustments_are_dm_pixs(name, value):
    ours = getattr(transforms, f"adjust_{name}")(IMAGE, value)
    reference = np.clip(getattr(dm_pix, f"adjust_{name}")(IMAGE, value), 0, 1)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference, atol=1e-5)  # float32, HSV in degrees there and in turns here


def test_contrast_of_more_than_four_channels_is_each_channels_own():
    expected = np.repeat(transforms.adjust_contrast(IMAGE, 0.5), 2, axis=-1)
    np.testing.assert_array_equal(transforms.adjust_contrast(np.repeat(IMAGE, 2, axis=-1), 0.5), expected)


def test_jitter_draws_each_from_its_range_in_order():
    spread = dict(brightness=0.2, contrast=0.3, saturation=0.4, hue=0.1)
    draws = rng(5).uniform(-1, 1, 4)
    expected = transforms.adjust_brightness(IMAGE, 0.2 * draws[0])
    expected = transforms.adjust_contrast(expected, 1 + 0.3 * draws[1])
    expected = transforms.adjust_saturation(expected, 1 + 0.4 * draws[2])
    expected = transforms.adjust_hue(expected, 0.1 * draws[3])
    np.testing.assert_array_equal(transforms.color_jitter(rng(5), IMAGE, **spread), expected)
    np.testing.assert_array_equal(transforms.color_jitter(rng(5), IMAGE), IMAGE)
    grey = transforms.color_jitter(rng(), IMAGE[..., :1], brightness=0.1, contrast=0.1)
    assert grey.shape == (64, 80, 1)
    with pytest.raises(UserError, match="three channels"):
        transforms.color_jitter(rng(), IMAGE[..., :1], hue=0.1)


def test_lighting_shifts_along_the_principal_components():
    flat = np.full((2, 2, 3), 0.5, np.float32)
    generator = rng()
    shifts = np.stack([transforms.lighting(generator, flat, 0.5)[0, 0] - 0.5 for _ in range(4000)])
    expected = colour.VECTORS @ np.diag((0.5 * colour.EIGENVALUES) ** 2) @ colour.VECTORS.T
    # Relative error of a variance from 4,000 draws: sqrt(2 / 4000) = 0.02; four of them.
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.09 * expected.max())
    np.testing.assert_allclose(colour.VECTORS.T @ colour.VECTORS, np.eye(3), atol=1e-3)  # published to four digits
    np.testing.assert_array_equal(transforms.lighting(rng(), IMAGE, 0.0), IMAGE)
    one = transforms.lighting(rng(), np.full((4, 4, 3), 0.5, np.float32))
    assert np.ptp(one, axis=(0, 1)).max() == 0  # the same for all pixels


def test_grayscale_is_rec_601():
    ours = transforms.grayscale(IMAGE)
    assert ours.shape == (64, 80, 1)
    np.testing.assert_allclose(ours, dm_pix.rgb_to_grayscale(IMAGE), atol=2e-4)  # dm-pix rounds 0.299 to 0.2989
    three = transforms.grayscale(IMAGE, 3)
    np.testing.assert_array_equal(three, np.repeat(ours, 3, -1))
    np.testing.assert_array_equal(transforms.grayscale(ours), ours)


def test_normalise_subtracts_and_divides_by_channel():
    mean, std = IMAGE.mean((0, 1)).tolist(), IMAGE.std((0, 1)).tolist()
    ours = transforms.normalise(IMAGE, mean, std)
    np.testing.assert_allclose(ours.mean((0, 1)), 0, atol=1e-4)  # float32 sums of 5,120 numbers
    np.testing.assert_allclose(ours.std((0, 1)), 1, atol=1e-4)
    np.testing.assert_allclose(transforms.normalise(IMAGE, 0.5, 0.5), IMAGE * 2 - 1, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_background_is_removed_and_the_object_kept(channels):
    truth = np.hypot(*(np.indices((60, 80)) - np.array([30, 40])[:, None, None])) < 15
    image = np.where(truth[..., None], [0.9, 0.2, 0.1], [0.1, 0.3, 0.6]) + rng().normal(0, 0.03, (60, 80, 3))
    image = np.clip(image, 0.01, 0.99).astype(np.float32)[..., :channels]
    for rect in (None, (20, 10, 60, 50)):
        removed = transforms.remove_background(image, rect)
        kept = (removed == image).all(-1)
        overlap = (kept & truth).sum() / (kept | truth).sum()
        assert overlap > 0.97
        assert (removed[~kept] == 1).all()
        np.testing.assert_array_equal(removed, transforms.remove_background(image, rect))
    with pytest.raises(UserError, match="does not lie within an image of 60x80"):
        transforms.remove_background(image, (0, 0, 100, 100))
