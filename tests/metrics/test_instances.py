"""Components and their matches beside scipy's labels and a search through all assignments."""

import itertools

import numpy as np
import pytest
import scipy.ndimage

from cvjax.metrics import instances

RNG = np.random.default_rng(2)


def blobs(count, size=24):
    """Rectangles, later ones over earlier ones, numbered from 1."""
    numbers = np.zeros((size, size), np.int32)
    for number in range(1, count + 1):
        top, left = RNG.integers(size - 6, size=2)
        numbers[top : top + RNG.integers(3, 9), left : left + RNG.integers(3, 9)] = number
    return numbers


def test_components_are_those_of_each_class():
    classes = RNG.integers(3, size=(15, 17))
    found = instances.components(classes)
    expected = sum(scipy.ndimage.label(classes == label, np.ones((3, 3)))[1] for label in (1, 2))
    assert found.max() == expected == len(np.unique(found)) - 1
    assert ((found > 0) == (classes > 0)).all()
    for number in range(1, expected + 1):
        part = found == number
        assert len(np.unique(classes[part])) == 1 and scipy.ndimage.label(part, np.ones((3, 3)))[1] == 1
    large = instances.components(classes, least=3)
    assert np.bincount(large.ravel())[1:].min() >= 3 and large.max() < expected


def test_overlaps_are_their_definition():
    truth, found = blobs(5), blobs(4)
    matrix = instances.overlaps(truth, found)
    for row, column in np.ndindex(*matrix.shape):
        one, other = truth == row + 1, found == column + 1
        assert matrix[row, column] == pytest.approx((one & other).sum() / max((one | other).sum(), 1))


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_the_most_objects_are_found(threshold):
    for _ in range(20):
        truth = blobs(4, 14)
        found = np.roll(truth, RNG.integers(-2, 3, 2), axis=(0, 1))
        found[RNG.random(found.shape) < 0.2] = 0
        found[4:7] = np.where(found[4:7] > 0, 5, 0)
        enough = instances.overlaps(truth, found) >= threshold
        enough = np.pad(enough, ((0, 0), (0, 8)))
        rows = range(len(enough))
        best = max(
            sum(enough[row, column] for row, column in zip(rows, columns, strict=True))
            for columns in itertools.permutations(range(8), len(enough))
        )
        matched = instances.match(truth, found, threshold)
        assert matched.found.sum() == best
        assert len(matched.found) == len(np.unique(truth)) - 1
        assert matched.false == len(np.unique(found)) - 1 - best


def test_touching_objects_are_found_once_they_are_painted_apart():
    truth = np.zeros((1, 12, 20), np.int32)
    truth[0, 2:8, 2:7], truth[0, 2:8, 7:12], truth[0, 9:11, 15:18] = 1, 2, 3
    np.testing.assert_array_equal(instances.touching(truth[0]), [True, True, False])
    np.testing.assert_array_equal(instances.touching(truth[0], gap=3), [True, True, True])
    merged = (truth > 0).astype(np.int32)
    apart = merged.copy()
    apart[0, :, 6] = 0
    figures = []
    for painted in (merged, apart):
        tally = instances.Tally()
        tally.add(truth, painted)
        figures.append(tally.figures())
    # Together the two are one component whose IoU with either is exactly one half: it can find one of them.
    assert figures[0] == {"instance_f1": pytest.approx(4 / 5), "separated": 0.5}
    assert figures[1] == {"instance_f1": 1, "separated": 1}


def test_without_objects_there_is_nothing_to_find():
    tally = instances.Tally()
    tally.add(np.zeros((2, 5, 5), np.int32), np.zeros((2, 5, 5), np.int32))
    assert tally.figures() == {"instance_f1": 0, "separated": 0}
