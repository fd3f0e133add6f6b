"""Total variation beside a loop over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.losses.variation import total_variation

ROWS, COLUMNS = 4, 5


@pytest.mark.parametrize("beta", [1.0, 2.0, 2.5])
def test_each_pixel_counts_with_those_below_and_right_of_it(beta):
    images = np.random.default_rng(0).uniform(size=(2, ROWS, COLUMNS, 3))
    expected = np.zeros(2)
    for i in range(ROWS):
        for j in range(COLUMNS):
            below = images[:, i + 1, j] - images[:, i, j] if i + 1 < ROWS else 0
            right = images[:, i, j + 1] - images[:, i, j] if j + 1 < COLUMNS else 0
            expected += ((below**2 + right**2 + np.zeros((2, 3))) ** (beta / 2)).sum(axis=-1)
    # 1e-8 is added before a root, which is 1e-4 in the corner where both differences are missing.
    np.testing.assert_allclose(total_variation(jnp.float32(images), beta), expected, rtol=1e-5, atol=4e-4)
    stacked = total_variation(jnp.float32(images[:, None]), beta)  # any leading axes
    np.testing.assert_allclose(stacked[:, 0], total_variation(jnp.float32(images), beta), rtol=1e-6)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_the_gradient_of_a_flat_image_is_finite(beta):
    slope = jax.grad(lambda image: total_variation(image, beta))(jnp.full((ROWS, COLUMNS, 1), 0.3))
    np.testing.assert_array_equal(slope, np.zeros((ROWS, COLUMNS, 1)))


def test_only_pairs_inside_of_the_mask_count():
    image = jnp.zeros((4, 4, 1)).at[0].set(1.0)
    assert total_variation(image, mask=np.ones((4, 4), np.float32)) == total_variation(image) == 4
    below = np.ones((4, 4), np.float32)
    below[0] = 0
    assert total_variation(image, mask=below) == 0
    below[0] = 0.5  # along the edge of a region
    assert total_variation(image, mask=below) == 2
    columns = jnp.zeros((2, 2, 3)).at[:, 1].set(1.0)
    assert total_variation(columns, mask=np.float32([[1, 1], [0, 1]])) == 3


def test_sums_are_float32_at_least():
    image = jnp.zeros((64, 64, 1), jnp.bfloat16).at[::2].set(1.0)
    assert total_variation(image) == 63 * 64  # bfloat16 stops counting at 256
