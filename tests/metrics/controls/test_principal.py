"""Principal components of images, and the angle between subspaces, on spaces known beforehand."""

import numpy as np
import pytest

from cvjax.metrics.controls import principal


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(60, 4, 4, 1)) * np.linspace(1, 4, 16).reshape(4, 4, 1) + 0.5


def test_reconstruction_is_the_best_of_its_rank(images):
    pca = principal.fit(images, 3)
    flat = images.reshape(60, 16)
    centred = flat - flat.mean(axis=0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    expected = (left[:, :3] * values[:3]) @ right[:3] + flat.mean(axis=0)
    np.testing.assert_allclose(principal.reconstruct(pca, images).reshape(60, 16), expected, atol=1e-10)
    np.testing.assert_allclose(np.square(principal.codes(pca, images)).sum(axis=0), values[:3] ** 2)


def test_angle_is_0_for_the_same_space_in_any_basis_and_known_for_a_turned_one(images):
    pca = principal.fit(images, 2)
    mixed = principal.codes(pca, images) @ [[2.0, 1.0], [0.5, -3.0]] @ pca.components_ + 7
    assert principal.subspace_angle(pca, mixed.reshape(images.shape)) < 1e-6
    other = np.linalg.svd(pca.components_)[2][2]  # a direction orthogonal to both
    turned = np.stack([pca.components_[0], np.cos(0.3) * pca.components_[1] + np.sin(0.3) * other])
    reconstructions = (principal.codes(pca, images) @ turned).reshape(images.shape)
    assert principal.subspace_angle(pca, reconstructions) == pytest.approx(0.3, abs=1e-9)
