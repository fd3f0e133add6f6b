"""The boundary F-measure beside its definition, pixel by pixel."""

import numpy as np
import pytest

from cvjax.metrics import boundaries

RNG = np.random.default_rng(1)
COARSE = RNG.integers(3, size=(2, 4, 5))
TRUTH = np.kron(COARSE, np.ones((4, 4), int)).astype(np.uint8)  # 16 x 20, in blocks
FOUND = np.roll(TRUTH, (1, 2), axis=(1, 2))
FOUND[0, 3:9, 4:9] = 1
TRUTH[1, :5, 6:12] = 255


def brute_force(truth, found, tolerance, classes=3, void=255):
    """Boundary F of each image and class from all pairs of boundary pixels; NaN where there is none."""

    def pixels(labels, label):
        height, width = labels.shape
        for row, column in np.argwhere((labels == label) & (truth != void)):
            for there in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= there[0] < height and 0 <= there[1] < width
                if inside and truth[there] != void and labels[there] != label:
                    yield row, column
                    break

    values = []
    for label in range(classes):
        true, predicted = (np.array(list(pixels(labels, label))).reshape(-1, 2) for labels in (truth, found))
        if not len(true) or not len(predicted):
            values.append(np.nan if len(true) == len(predicted) else 0.0)
            continue
        near = ((true[:, None] - predicted) ** 2).sum(-1) <= tolerance**2
        recall, precision = near.any(1).mean(), near.any(0).mean()
        values.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return values


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 5])
def test_is_its_definition(tolerance):
    expected = np.array([brute_force(*pair, tolerance) for pair in zip(TRUTH, FOUND, strict=True)])
    tally = boundaries.Tally(3, tolerance)
    tally.add(TRUTH[:1], FOUND[:1])
    tally.add(TRUTH[1:], FOUND[1:])
    np.testing.assert_allclose(tally.each(), np.nanmean(expected, axis=0), atol=1e-6)
    assert tally.mean() == pytest.approx(np.nanmean(expected, axis=0).mean())


def test_a_shifted_edge_is_right_within_the_tolerance_alone():
    truth, found = np.zeros((1, 20, 20), np.uint8), np.zeros((1, 20, 20), np.uint8)
    truth[..., 10:], found[..., 12:] = 1, 1
    scores = []
    for tolerance in (1, 2):
        tally = boundaries.Tally(2, tolerance)
        tally.add(truth, found)
        scores.append(tally.mean())
    assert scores == [0, 1]


def test_the_border_and_void_are_no_boundary_and_a_class_that_is_only_found_counts_as_zero():
    truth, found = np.zeros((1, 12, 12), np.uint8), np.zeros((1, 12, 12), np.uint8)
    truth[..., 6:] = 255
    tally = boundaries.Tally(2)
    tally.add(truth, found)
    assert np.isnan(tally.each()).all() and tally.mean() == 0  # one class all over: no boundary
    found[..., 8:] = 1  # inside the void
    tally.add(truth, found)
    assert np.isnan(tally.each()).all()
    found[0, 2:4, 2:4] = 1
    tally.add(truth, found)
    np.testing.assert_array_equal(tally.each(), [0, 0])


def test_tolerance_is_a_share_of_the_diagonal():
    assert boundaries.tolerance_of(300, 400) == 4 and boundaries.tolerance_of(64, 64) == 1
