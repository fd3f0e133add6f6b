"""Precision and recall against loops and scikit-learn's nearest neighbours, and on sets whose answer is known."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from cvjax.errors import UserError
from cvjax.metrics import neighbours


def features(seed, count, width=5, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(count, width))


def brute_force_share(points, centres, k):
    """The share of points that some centre is as near to as to its k-th nearest neighbour."""
    inside = 0
    for point in points:
        for index, centre in enumerate(centres):
            own = sorted(np.linalg.norm(centre - other) for place, other in enumerate(centres) if place != index)
            if np.linalg.norm(point - centre) <= own[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("cells", [64, neighbours.CELLS])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_distance_tables_are_scipys(monkeypatch, cells, offset):
    monkeypatch.setattr(neighbours, "CELLS", cells)  # rows at a time: two, and all
    points, centres = features(0, 25, shift=offset), features(1, 30, shift=offset)
    tables = list(neighbours.distance_tables(points, centres))
    assert len(tables) == (1 if cells > 1000 else 13)
    np.testing.assert_allclose(np.concatenate(tables), cdist(points, centres), rtol=1e-8)


def test_distances_of_copies_are_0():
    # float32 values far from the origin: rounding would leave 1e-5 of them, and copies would lie outside empty balls.
    points = (100 + features(2, 50, 64)).astype(np.float32)
    [table] = neighbours.distance_tables(points, points[::-1])
    assert (np.diag(table[:, ::-1]) == 0).all() and np.count_nonzero(table == 0) == 50


@pytest.mark.parametrize("far", [1e7, 1e9, 1e12, 1e200])
def test_one_far_row_costs_the_others_no_digits(far):
    samples, reference = features(13, 40, 16), features(14, 30, 16, 0.3)
    reference[0], samples[7] = far, reference[3]
    with np.errstate(over="ignore"):
        table = np.concatenate(list(neighbours.distance_tables(samples, reference)))
        expected = cdist(samples, reference)
        np.testing.assert_allclose(table, expected, rtol=1e-9)
        assert table[7, 3] == 0
        found = neighbours.precision_recall(samples, reference)
    own, others = (np.sort(cdist(rows, rows), axis=1)[:, 3] for rows in (reference, samples))
    assert found == ((expected <= own).any(axis=1).mean(), (others >= expected.T).any(axis=1).mean())


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_equal_brute_force(k):
    samples, reference = features(3, 40, shift=1.2), features(4, 30, scale=1.5)
    precision, recall = neighbours.precision_recall(samples, reference, k)
    assert precision == pytest.approx(brute_force_share(samples, reference, k), abs=1e-12)
    assert recall == pytest.approx(brute_force_share(reference, samples, k), abs=1e-12)
    assert 0 < recall < 1 and 0 < precision < 1 and precision != recall


def test_precision_and_recall_equal_scikit_learns_neighbours():
    samples, reference = features(5, 400, 16, 0.3, 0.8), features(6, 300, 16)

    def share(points, centres):
        near = NearestNeighbors(n_neighbors=4).fit(centres)  # itself and three others
        radii = near.kneighbors(centres)[0][:, 3]
        distances, indices = NearestNeighbors(n_neighbors=len(centres)).fit(centres).kneighbors(points)
        return (distances <= radii[indices]).any(axis=1).mean()

    expected = share(samples, reference), share(reference, samples)
    assert neighbours.precision_recall(samples, reference) == pytest.approx(expected, abs=1e-12)


def test_precision_falls_with_what_is_not_real_and_recall_with_what_is_missing():
    real = np.concatenate([features(7, 100), features(8, 100, shift=20)])
    both = np.concatenate([features(9, 100), features(10, 100, shift=20)])
    away = np.concatenate([features(9, 100), features(10, 100, shift=-20)])
    precision, recall = neighbours.precision_recall(both, real)
    assert precision > 0.8 and recall > 0.8
    collapsed = neighbours.precision_recall(both[:100], real)
    assert collapsed[0] > 0.75 and collapsed[1] < 0.55
    assert neighbours.precision_recall(away, real)[0] < 0.55
    assert neighbours.precision_recall(real[:2].repeat(50, axis=0), real) == (1.0, 2 / 200)  # balls without width


def test_fewer_images_than_neighbours_are_refused():
    with pytest.raises(UserError, match=r"k=3 takes more images of each kind: 3 and 10"):
        neighbours.precision_recall(features(11, 3), features(12, 10))
