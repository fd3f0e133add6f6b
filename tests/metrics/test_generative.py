import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from cvjax.metrics import generative


def gaussian(seed, dimensions, smallest):
    """A mean and a full-rank covariance whose eigenvalues span [smallest, 1]."""
    rng = np.random.default_rng(seed)
    basis = scipy.stats.ortho_group.rvs(dimensions, random_state=rng)
    return rng.normal(size=dimensions), (basis * np.geomspace(smallest, 1.0, dimensions)) @ basis.T


def textbook_distance(mean_a, cov_a, mean_b, cov_b):
    cross = scipy.linalg.sqrtm(cov_a @ cov_b)
    return np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b) - 2 * np.trace(cross).real


# sqrtm of the unsymmetric product loses about the square root of the conditioning: 1e-8 is its error, not ours.
@pytest.mark.parametrize("smallest", [0.5, 1e-3, 1e-8])
@pytest.mark.parametrize("dimensions", [2, 16, 64])
def test_frechet_distance_equals_the_textbook_formula(dimensions, smallest):
    a, b = gaussian(0, dimensions, smallest), gaussian(1, dimensions, smallest)
    np.testing.assert_allclose(generative.frechet_distance(*a, *b), textbook_distance(*a, *b), rtol=1e-8)


def test_frechet_distance_of_commuting_covariances_has_a_closed_form():
    # Shared eigenvectors, half of the eigenvalues exactly 0 in one of them: sum of (sqrt a - sqrt b)^2.
    basis = scipy.stats.ortho_group.rvs(12, random_state=3)
    a, b = np.linspace(0.1, 3, 12), np.where(np.arange(12) < 6, 0.0, np.linspace(2, 5, 12))
    found = generative.frechet_distance(np.zeros(12), (basis * a) @ basis.T, np.zeros(12), (basis * b) @ basis.T)
    np.testing.assert_allclose(found, np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rtol=1e-12)


def test_fid_of_fewer_samples_than_features_equals_the_low_rank_formula():
    # With centred data X, Y of ranks below 64, tr (AB)^(1/2) is the sum of singular values of X Y^T / (n - 1).
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(20, 64)), 2 + rng.normal(size=(20, 64))
    xc, yc = x - x.mean(0), y - y.mean(0)
    overlap = np.linalg.svd(xc @ yc.T, compute_uv=False).sum() / 19
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + (np.sum(xc**2) + np.sum(yc**2)) / 19 - 2 * overlap
    np.testing.assert_allclose(generative.fid(x, y), expected, rtol=1e-10)


def test_fid_is_zero_for_a_copy_symmetric_and_blind_to_rotation_order_and_shift():
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(8, 8))
    x, y = rng.normal(size=(300, 8)) @ mixing, 0.3 + rng.normal(size=(200, 8))
    basis = scipy.stats.ortho_group.rvs(8, random_state=6)
    distance = generative.fid(x, y)
    assert generative.fid(x, x) < 1e-12
    assert distance > 0.1
    for a, b in [(y, x), (x[::-1], y), (x @ basis, y @ basis), (x + 7, y + 7)]:
        np.testing.assert_allclose(generative.fid(a, b), distance, rtol=1e-10)
    np.testing.assert_allclose(generative.fid(3 * x, 3 * y), 9 * distance, rtol=1e-10)


def test_fid_accumulates_in_double_precision_with_unbiased_covariance():
    rng = np.random.default_rng(7)
    x = (1000 + rng.normal(size=(50, 1))).astype(np.float32)
    y = (1000 + 2 * rng.normal(size=(50, 1))).astype(np.float32)
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    expected = (wide_x.mean() - wide_y.mean()) ** 2 + (wide_x.std(ddof=1) - wide_y.std(ddof=1)) ** 2
    np.testing.assert_allclose(generative.fid(x, y), expected, rtol=1e-8)


@pytest.mark.parametrize(("samples", "splits"), [(1000, 10), (103, 4), (50, 1)])
def test_inception_score_equals_brute_force(samples, splits):
    probabilities = np.random.default_rng(8).dirichlet(np.full(10, 0.2), size=samples)
    scores = []
    for part in np.array_split(probabilities, splits):
        marginal = part.mean(axis=0)
        scores.append(np.exp(np.mean([scipy.stats.entropy(row, marginal) for row in part])))
    mean, std = generative.inception_score(probabilities, splits)
    np.testing.assert_allclose((mean, std), (np.mean(scores), np.std(scores)), rtol=1e-10, atol=1e-12)


def test_inception_score_spans_1_to_the_number_of_classes():
    certain = np.eye(10)[np.arange(1000) % 10]
    assert generative.inception_score(certain) == pytest.approx((10.0, 0.0), abs=1e-12)
    assert generative.inception_score(certain[:1].repeat(100, axis=0)) == pytest.approx((1.0, 0.0), abs=1e-12)
    assert generative.inception_score(np.full((100, 10), 0.1)) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_nearest_neighbours_equals_brute_force_across_chunks():
    rng = np.random.default_rng(9)
    samples, reference = rng.random((300, 4, 4, 3), np.float32), rng.random((40, 4, 4, 3), np.float32)
    samples[270] = reference[11]
    table = np.sqrt(np.sum((samples[:, None].astype(np.float64) - reference[None]) ** 2, axis=(2, 3, 4)))
    distances, indices = generative.nearest_neighbours(samples, reference)
    np.testing.assert_allclose(distances, 16 * table.min(axis=1), rtol=1e-10)
    np.testing.assert_array_equal(indices, table.argmin(axis=1))
    assert (distances[270], indices[270]) == (0.0, 11)
    np.testing.assert_allclose(generative.nearest_distance(samples, reference, 1.0), table.min(axis=1).mean())


def test_class_shares_counts_classes_that_nobody_chose():
    probabilities = np.array([[0.6, 0.4, 0.0], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.4, 0.1]])
    np.testing.assert_allclose(generative.class_shares(probabilities), [0.75, 0.25, 0.0])


def test_thumbnails_average_blocks():
    images = np.random.default_rng(10).random((5, 16, 24, 2), np.float32)
    expected = [images[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean(axis=(1, 2)) for i in range(8) for j in range(8)]
    found = generative.thumbnails(images)
    np.testing.assert_allclose(found, np.stack(expected, axis=1).reshape(5, 128), rtol=1e-6)  # float32 means
    assert found.dtype == np.float64
