"""Corruption replaces what it says it does, as often as it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.ops.corruption import corrupt

GREY = jnp.full((400, 8, 8, 1), 0.5)


def test_masking_blackens_exactly_its_share_of_each_image():
    masked = np.asarray(corrupt(jax.random.key(0), GREY, "masking", 0.25))
    assert set(np.unique(masked)) == {0.0, 0.5}
    np.testing.assert_array_equal((masked == 0).sum(axis=(1, 2, 3)), 16)
    # 400 images: each pixel is masked 100 +- 4 sqrt(400 / 4 * 3 / 4) times, four standard deviations.
    assert np.abs((masked == 0).sum(axis=0) - 100).max() < 4 * np.sqrt(75)


def test_salt_and_pepper_are_exactly_white_and_black_by_a_fair_coin():
    spoilt = np.asarray(corrupt(jax.random.key(1), GREY, "salt_and_pepper", 0.25))
    assert set(np.unique(spoilt)) == {0.0, 0.5, 1.0}
    np.testing.assert_array_equal((spoilt != 0.5).sum(axis=(1, 2, 3)), 16)
    assert abs((spoilt == 1).sum() - 3200) < 4 * np.sqrt(6400 / 4)  # of 6,400 coins, four standard deviations


def test_gaussian_noise_has_its_deviation_and_may_leave_the_range():
    noise = np.asarray(corrupt(jax.random.key(2), GREY, "gaussian", 0.3)) - 0.5
    # The standard error of a deviation of n numbers is sigma / sqrt(2 n), of their mean sigma / sqrt(n): n = 25,600.
    assert abs(noise.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * 25_600)
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(25_600)
    assert noise.min() < -0.5 and noise.max() > 0.5


@pytest.mark.parametrize("corruption", ["gaussian", "masking", "salt_and_pepper"])
def test_images_and_keys_differ_and_a_key_repeats(corruption):
    one, other = (np.asarray(corrupt(jax.random.key(seed), GREY[:2], corruption, 0.25)) for seed in (0, 1))
    assert (one[0] != one[1]).any() and (one != other).any()
    np.testing.assert_array_equal(one, corrupt(jax.random.key(0), GREY[:2], corruption, 0.25))


def test_none_and_nothing_leave_images_alone():
    np.testing.assert_array_equal(corrupt(jax.random.key(0), GREY, "none", 0.5), GREY)
    for corruption in ("gaussian", "masking", "salt_and_pepper"):
        np.testing.assert_array_equal(corrupt(jax.random.key(0), GREY[:2], corruption, 0.0), GREY[:2])
