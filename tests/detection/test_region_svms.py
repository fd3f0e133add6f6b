"""SVMs with hard negatives equal scikit-learn's with all negatives, and box regression is ridge regression."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from cvjax.detection.region_svms import BoxRegression, Miner, RegionSVMs


def regions(count=4000, classes=2, features=12, seed=0):
    """Background around the origin, and a few objects of each class away from it."""
    rng = np.random.default_rng(seed)
    own = np.where(rng.uniform(size=count) < 0.06, rng.integers(0, classes, count), -1)
    centres = rng.normal(size=(classes, features)) * 2.0
    found = rng.normal(size=(count, features)) * 1.5 + np.where(own[:, None] >= 0, centres[own], 0)
    overlaps = np.where(own[:, None] == np.arange(classes), 1.0, rng.uniform(0, 0.5, (count, classes)))
    return found.astype(np.float32), own, overlaps


def test_svms_of_hard_negatives_are_scikit_learns_of_all():
    features, own, overlaps = regions()
    order = np.argsort(own < 0, kind="stable")  # all objects are known when negatives are mined, as in the paper
    features, own, overlaps = features[order], own[order], overlaps[order]
    settings = RegionSVMs(refit=200, cost=0.01)
    miner = Miner(2, features.shape[1], settings)
    for start in range(0, len(own), 250):
        part = slice(start, start + 250)
        miner.add(features[part], own[part], overlaps[part])
    kernel, bias = miner.finish()
    for label in range(2):
        chosen = (own == label) | (overlaps[:, label] < 0.3)
        svm = LinearSVC(C=0.01, loss="hinge", intercept_scaling=10, class_weight={1: 2}, max_iter=100_000, tol=1e-6)
        svm.fit(features[chosen], own[chosen] == label)
        assert len(miner.negatives[label]) < 0.7 * chosen.sum()  # most negatives were not needed
        ours, theirs = features @ kernel[:, label] + bias[label], svm.decision_function(features)
        # A negative that an early SVM was sure of is dropped for good, so that the two differ a little.
        assert np.abs(ours - theirs).mean() < 0.06 and np.abs(ours - theirs).max() < 0.3  # of margins of 3
        assert (np.sign(ours) == np.sign(theirs)).mean() > 0.99


def test_negatives_overlap_no_object_of_the_class_but_may_be_objects_of_others():
    features = np.arange(6, dtype=np.float32)[:, None]
    own = np.array([0, 1, -1, -1, -1, -1])
    overlaps = np.array([[1, 0.0], [0.1, 1], [0.29, 0.9], [0.3, 0.0], [0.5, 0.2], [0.0, 0.0]])
    miner = Miner(2, 1, RegionSVMs())
    miner.add(features, own, overlaps)
    assert [rows[:, 0].tolist() for rows in miner.positives] == [[0], [1]]
    assert [rows[:, 0].tolist() for rows in miner.negatives] == [[1, 2, 5], [0, 3, 4, 5]]


def test_a_class_without_objects_is_never_found():
    features, own, overlaps = regions(400)
    miner = Miner(3, features.shape[1], RegionSVMs())
    miner.add(features, own, np.pad(overlaps, ((0, 0), (0, 1))))
    kernel, bias = miner.finish()
    assert (kernel[:, 2] == 0).all() and bias[2] == -10 and (kernel[:, :2] != 0).any()


def test_negatives_that_wait_for_a_first_object_are_few():
    features, own, overlaps = regions(4000, classes=1)
    miner = Miner(2, features.shape[1], RegionSVMs(refit=300))
    for part in np.split(np.arange(4000), 16):
        miner.add(features[part], own[part], np.pad(overlaps[part], ((0, 0), (0, 1))))
    assert len(miner.negatives[1]) == 300 and miner.kernel[:, 0].any()
    miner.add(features[:1], np.array([1]), np.array([[0.0, 1.0]]))  # and then one comes
    kernel, bias = miner.finish()
    assert kernel[:, 1].any() and bias[1] > -2  # -10 without objects


@pytest.mark.parametrize("ridge", [0.5, 30.0])
def test_box_regression_is_ridge_regression_in_closed_form(ridge):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(300, 5)).astype(np.float32), rng.integers(0, 2, 300)
    overlaps = rng.choice([0.55, 0.6, 0.9], 300)
    offsets = (features @ rng.normal(size=(5, 4)) + 0.3 + 0.1 * rng.normal(size=(300, 4))).astype(np.float32)
    regression = BoxRegression(3, 5, RegionSVMs(ridge=ridge))
    for start in range(0, 300, 100):
        part = slice(start, start + 100)
        regression.add(features[part], labels[part], offsets[part], overlaps[part])
    kernel, bias = regression.finish()
    for label in range(2):
        near = (labels == label) & (overlaps >= 0.6)
        x, y = features[near].astype(float), offsets[near].astype(float)
        centred = x - x.mean(axis=0)
        expected = np.linalg.solve(centred.T @ centred + ridge * np.eye(5), centred.T @ (y - y.mean(axis=0)))
        np.testing.assert_allclose(kernel[:, label], expected, atol=1e-4)  # float32 sums of 100 products
        np.testing.assert_allclose(bias[label], y.mean(axis=0) - x.mean(axis=0) @ expected, atol=1e-4)
    assert not kernel[:, 2].any() and not bias[2].any()  # a class without regions stays where it is


def test_no_more_regions_are_kept_than_asked():
    regression = BoxRegression(1, 2, RegionSVMs(regressed=7))
    for _ in range(3):
        regression.add(np.ones((5, 2), np.float32), np.zeros(5, int), np.ones((5, 4), np.float32), np.ones(5))
    assert sum(len(rows) for rows, _ in regression._kept[0]) == 7
