"""Measures against formulas that others wrote or loops that anybody can read; random features, float64."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from sklearn.metrics.pairwise import polynomial_kernel

from cvjax.errors import UserError
from cvjax.metrics import generative, neighbours


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


def features(seed, count, width, shift=0.0):
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=(count, width)) @ np.diag(np.linspace(0.7, 1.5, width))


def test_fid_of_features_equals_the_textbook_formula():
    x, y = features(20, 300, 32), features(21, 200, 32, 0.2)
    expected = textbook_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    np.testing.assert_allclose(generative.fid(x, y), expected, rtol=1e-8)  # sqrtm's error


def test_fid_of_what_is_not_finite_is_no_number():
    features = np.random.default_rng(0).normal(size=(20, 4))
    for spoilt in (np.nan, np.inf):
        broken = features.copy()
        broken[3, 1] = spoilt
        with np.errstate(invalid="ignore"):
            assert np.isnan(generative.fid(broken, features)) and np.isnan(generative.fid(features, broken))


def test_moments_of_a_stream_are_those_of_all_rows():
    x = 1e3 + features(22, 101, 5)
    mean, covariance = generative.moments(x[start : start + 7] for start in range(0, 101, 7))
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x.T), rtol=1e-9)  # NumPy's own rounding, 1e3 from the origin
    for found, whole in zip(generative.moments([x[:0], x, x[:0]]), generative.moments([x]), strict=True):
        np.testing.assert_array_equal(found, whole)
    with pytest.raises(UserError, match="at least two images, not 1"):
        generative.moments([x[:1]])


def test_fid_interval_holds_the_mean_fid_of_so_many_samples_as_often_as_it_says():
    reference, real = features(23, 400, 2), generative.moments([features(23, 400, 2)])
    mean = np.mean([generative.fid(features(1000 + seed, 100, 2, 0.5), reference) for seed in range(1000)])
    intervals = [
        generative.fid_interval(features(5000 + seed, 100, 2, 0.5), reference, 0.8, resamples=50) for seed in range(200)
    ]
    assert 0.7 < np.mean([low <= mean <= high for low, high in intervals]) < 0.9  # deviation of 200 tosses: 0.03
    x = features(24, 100, 2, 0.5)
    low, high = generative.fid_interval(x, reference)
    assert low < generative.frechet_distance(*generative.moments([x]), *real) < high
    assert generative.fid_interval(x, reference) == (low, high) != generative.fid_interval(x, reference, seed=1)
    wide = generative.fid_interval(x, reference, level=0.99)
    assert wide[0] < low and high < wide[1]


def test_fid_infinity_takes_the_bias_by_few_samples_away():
    reference = features(25, 20_000, 8)
    truth = generative.fid(features(26, 200_000, 8, 0.1), reference)
    draws = [features(30 + seed, 300, 8, 0.1) for seed in range(20)]
    biases = [
        np.mean([measure(x, reference) for x in draws]) - truth for measure in (generative.fid, generative.fid_infinity)
    ]
    assert biases[0] > 0.5 * truth and abs(biases[1]) < 0.3 * biases[0]
    x = features(27, 100, 4)
    assert generative.fid_infinity(x, x[:50], seed=3) == generative.fid_infinity(x, x[:50], seed=3)


def test_fid_infinity_is_the_intercept_of_the_line_through_fid_against_1_over_n(monkeypatch):
    sizes = []

    def line(*moments):
        return 2.0 + 30.0 / sizes[-1]

    def count(chunks):
        sizes.append(len(chunks[0]))
        return 0.0, 0.0

    monkeypatch.setattr(generative, "frechet_distance", line)
    monkeypatch.setattr(generative, "moments", count)
    x = features(28, 1000, 2)
    assert generative.fid_infinity(x, x[:10], points=5) == pytest.approx(2.0, rel=1e-10)
    assert sizes == [10, 100, 325, 550, 775, 1000]


def brute_force_mmd(x, y):
    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def mean(pairs):
        return np.mean([kernel(a, b) for a, b in pairs])

    return mean(itertools.permutations(x, 2)) + mean(itertools.permutations(y, 2)) - 2 * mean(itertools.product(x, y))


def test_kernel_distance_equals_brute_force_and_scikit_learn():
    x, y = features(40, 30, 6), features(41, 20, 6, 0.3)
    np.testing.assert_allclose(generative.kernel_distance(x, y), brute_force_mmd(x, y), rtol=1e-8)
    x, y = features(42, 1500, 6), features(43, 70, 6, 0.3)  # more than one block of rows
    xx, yy, xy = (polynomial_kernel(*pair, degree=3, coef0=1) for pair in [(x, x), (y, y), (x, y)])
    within = [(table.sum() - np.trace(table)) / (len(table) * (len(table) - 1)) for table in (xx, yy)]
    np.testing.assert_allclose(generative.kernel_distance(x, y), sum(within) - 2 * xy.mean(), rtol=1e-8)


def test_kernel_distance_has_no_bias():
    distances = [generative.kernel_distance(features(seed, 20, 4), features(100 + seed, 15, 4)) for seed in range(100)]
    assert abs(np.mean(distances)) < 3 * np.std(distances) / 10
    assert min(distances) < 0


def test_kid_is_the_kernel_distance_over_subsets():
    x, y = features(44, 60, 6), features(45, 50, 6, 0.5)
    mean, std = generative.kid(x, y, subsets=200, size=25)
    assert mean == pytest.approx(generative.kernel_distance(x, y), abs=4 * std / np.sqrt(200))
    assert generative.kid(x, y, subsets=3, size=25) == generative.kid(x, y, subsets=3, size=25)
    assert generative.kid(x, y, subsets=3, size=25) != generative.kid(x, y, subsets=3, size=25, seed=1)
    # Without replacement, a subset of all is all.
    np.testing.assert_allclose(
        generative.kid(x[:50], y, subsets=3, size=50), (generative.kernel_distance(x[:50], y), 0), rtol=1e-9, atol=1e-12
    )
    with pytest.raises(UserError, match="subsets of 51"):
        generative.kid(x, y, size=51)


@pytest.mark.parity
def test_fid_kid_and_inception_score_are_those_of_torchmetrics(torchvision):  # which torchmetrics imports
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchmetrics")
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import KernelInceptionDistance

    class Features(torch.nn.Identity):
        num_features = 12

    x, y = features(46, 90, 12), features(47, 80, 12, 0.3)
    fid = FrechetInceptionDistance(Features()).set_dtype(torch.float64)
    kid = KernelInceptionDistance(Features(), subsets=2, subset_size=80).set_dtype(torch.float64)
    for rows, real in [(x[:80], False), (y, True)]:
        fid.update(torch.tensor(rows), real)
        kid.update(torch.tensor(rows), real)
    np.testing.assert_allclose(generative.fid(x[:80], y), fid.compute().item(), rtol=1e-8)
    np.testing.assert_allclose(generative.kid(x[:80], y, 2, 80)[0], kid.compute()[0].item(), rtol=1e-8)
    score = InceptionScore(Features(), splits=1).set_dtype(torch.float64)
    score.update(torch.tensor(x))
    probabilities = scipy.special.softmax(x, axis=1)
    np.testing.assert_allclose(generative.inception_score(probabilities, 1)[0], score.compute()[0].item(), rtol=1e-8)


@pytest.mark.parametrize(("samples", "splits"), [(1000, 10), (103, 10), (50, 1)])
def test_inception_score_equals_brute_force(samples, splits):
    probabilities = np.random.default_rng(8).dirichlet(np.full(10, 0.2), size=samples)
    scores = []
    for index in range(splits):  # openai/improved-gan, inception_score/model.py
        part = probabilities[index * samples // splits : (index + 1) * samples // splits]
        marginal = part.mean(axis=0)
        scores.append(np.exp(np.mean([scipy.stats.entropy(row, marginal) for row in part])))
    mean, std = generative.inception_score(probabilities, splits)
    np.testing.assert_allclose((mean, std), (np.mean(scores), np.std(scores)), rtol=1e-10, atol=1e-12)


def test_inception_score_spans_1_to_the_number_of_classes():
    certain = np.eye(10)[np.arange(1000) % 10]
    assert generative.inception_score(certain) == pytest.approx((10.0, 0.0), abs=1e-12)
    assert generative.inception_score(certain[:1].repeat(100, axis=0)) == pytest.approx((1.0, 0.0), abs=1e-12)
    assert generative.inception_score(np.full((100, 10), 0.1)) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_nearest_neighbours_equals_brute_force_across_chunks(monkeypatch):
    monkeypatch.setattr(neighbours, "CELLS", 40 * 256)
    rng = np.random.default_rng(9)
    samples, reference = rng.random((300, 4, 4, 3), np.float32), rng.random((40, 4, 4, 3), np.float32)
    samples[270] = reference[11]
    table = np.sqrt(np.sum((samples[:, None].astype(np.float64) - reference[None]) ** 2, axis=(2, 3, 4)))
    distances, indices = generative.nearest_neighbours(samples, reference)
    np.testing.assert_allclose(distances, 16 * table.min(axis=1), rtol=1e-10)
    np.testing.assert_array_equal(indices, table.argmin(axis=1))
    assert (distances[270], indices[270]) == (0.0, 11)
    np.testing.assert_allclose(generative.nearest_distance(samples, reference, 1.0), table.min(axis=1).mean())


def test_memorisation_is_0_for_copies_and_1_for_unseen_images():
    rng = np.random.default_rng(12)
    training, held_out, fresh = (rng.random((count, 4, 4, 1)) for count in (200, 100, 100))
    assert generative.memorisation(training[:50], training, held_out) == 0
    assert generative.memorisation(fresh, training, held_out) == pytest.approx(1.0, abs=0.05)
    assert generative.memorisation(5 * fresh, training, held_out) > 2
    table = np.sqrt(((fresh[:, None] - training[None]) ** 2).sum(axis=(2, 3, 4)))
    own = np.sqrt(((held_out[:, None] - training[None]) ** 2).sum(axis=(2, 3, 4)))
    expected = table.min(axis=1).mean() / own.min(axis=1).mean()
    np.testing.assert_allclose(generative.memorisation(fresh, training, held_out), expected, rtol=1e-10)


def test_images_that_are_not_numbers_are_near_nothing():
    images = np.random.default_rng(13).random((20, 2, 2, 1))
    broken = np.where(np.arange(20)[:, None, None, None] == 3, np.nan, images)
    assert np.isnan(generative.nearest_distance(broken, images))


def test_class_shares_counts_classes_that_nobody_chose():
    probabilities = np.array([[0.6, 0.4, 0.0], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.4, 0.1]])
    np.testing.assert_allclose(generative.class_shares(probabilities), [0.75, 0.25, 0.0])


def test_thumbnails_average_blocks():
    images = np.random.default_rng(10).random((5, 16, 24, 2), np.float32)
    expected = [images[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean(axis=(1, 2)) for i in range(8) for j in range(8)]
    found = generative.thumbnails(images)
    np.testing.assert_allclose(found, np.stack(expected, axis=1).reshape(5, 128), rtol=1e-6)  # float32 means
    assert found.dtype == np.float64


def test_fewer_samples_than_splits_are_scored_one_by_one():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    assert generative.inception_score(probabilities) == (1.0, 0.0)  # each part is its own mean


def test_thumbnails_of_any_size_average_areas():
    images = np.random.default_rng(11).random((3, 28, 5, 1))
    fine = images.repeat(8, axis=1).repeat(8, axis=2)  # 8 * 28 rows are 8 blocks of 28, 8 * 5 columns 8 blocks of 5
    expected = fine.reshape(3, 8, 28, 8, 5, 1).mean(axis=(2, 4)).reshape(3, 64)
    np.testing.assert_allclose(generative.thumbnails(images), expected, rtol=1e-12)


def test_classes_are_seen_from_one_sample_in_a_hundred():
    probabilities = np.eye(4)[[1] * 99 + [3]]
    assert generative.class_figures(probabilities) == {"classes_seen": 2}
    assert generative.class_figures(probabilities[:99]) == {"classes_seen": 1}
    assert generative.class_figures(np.eye(4)[[1] * 100 + [3]])["classes_seen"] == 1
    assert generative.class_figures(probabilities, np.full(100, 1))["class_accuracy"] == 0.99
