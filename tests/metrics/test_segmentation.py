"""The figures of segmentation beside scikit-learn's, torchmetrics' and their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from cvjax.errors import UserError
from cvjax.metrics import segmentation

RNG = np.random.default_rng(0)
CLASSES = 6  # of which 4 is never true and 5 neither true nor found
TRUTH = RNG.integers(4, size=(5, 9, 11)).astype(np.uint8)
FOUND = np.where(RNG.random(TRUTH.shape) < 0.6, TRUTH, RNG.integers(5, size=TRUTH.shape)).astype(np.int32)
TRUTH[RNG.random(TRUTH.shape) < 0.2] = 255
NAMES = [f"class {index}" for index in range(CLASSES)]
COUNTED = TRUTH != 255


def rows(truth, found, sizes=(2, 3), **outputs):
    """Batches of different sizes, as evaluation gives them."""
    for some in np.split(np.arange(len(truth)), np.cumsum(sizes)[:-1]):
        counts = segmentation.confusions(jnp.asarray(truth[some]), jnp.asarray(found[some]), CLASSES)
        extra = {name: value[some] for name, value in outputs.items()}
        yield {"class_map": truth[some]}, {"confusions": np.asarray(counts), **extra}


def test_confusions_of_each_image_are_scikit_learns_without_void():
    found = segmentation.confusions(jnp.asarray(TRUTH), jnp.asarray(FOUND), CLASSES)
    for matrix, truth, predicted in zip(np.asarray(found), TRUTH, FOUND, strict=True):
        kept = truth != 255
        expected = metrics.confusion_matrix(truth[kept], predicted[kept], labels=range(CLASSES))
        np.testing.assert_array_equal(matrix, expected)


def test_void_is_an_index_of_any_value_or_a_mask():
    half = jnp.asarray(RNG.random(TRUTH.shape) < 0.5)
    by_mask = segmentation.confusions(jnp.asarray(TRUTH), jnp.asarray(FOUND), CLASSES, mask=half)
    by_value = jnp.where(half, jnp.asarray(TRUTH), 255)
    np.testing.assert_array_equal(by_mask, segmentation.confusions(by_value, jnp.asarray(FOUND), CLASSES))
    zero = segmentation.confusions(jnp.asarray(FOUND), jnp.asarray(FOUND), CLASSES, void=0)
    np.testing.assert_array_equal(
        np.asarray(zero).sum(0), np.diag(np.bincount(FOUND.ravel(), minlength=CLASSES) * [0, 1, 1, 1, 1, 1])
    )


def test_figures_of_batches_are_scikit_learns_of_all_pixels():
    found = segmentation.figures(rows(TRUTH, FOUND), NAMES)
    truth, predicted = TRUTH[COUNTED], FOUND[COUNTED]
    ious = metrics.jaccard_score(truth, predicted, labels=range(CLASSES), average=None, zero_division=0)
    assert [found[f"iou/{name}"] for name in NAMES] == pytest.approx([*ious[:5], -1.0])
    assert ious[4] == 0 and found["mean_iou"] == pytest.approx(ious[:5].mean())  # class 4 counts, class 5 does not
    dices = metrics.f1_score(truth, predicted, labels=range(5), average=None, zero_division=0)
    assert found["mean_dice"] == pytest.approx(dices.mean())
    assert found["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found["mean_accuracy"] == pytest.approx(
        metrics.recall_score(truth, predicted, labels=range(4), average="macro")
    )
    assert found["weighted_iou"] == pytest.approx(metrics.jaccard_score(truth, predicted, average="weighted"))
    assert "boundary_f" not in found
    assert segmentation.figures(rows(TRUTH, FOUND, (1, 1, 3)), NAMES) == found


def test_all_is_finite_where_everything_is_void_and_perfect_maps_have_ones():
    void = segmentation.figures(rows(np.full_like(TRUTH, 255), FOUND, segmentation=FOUND), NAMES)
    assert np.isfinite(list(void.values())).all() and void["mean_iou"] == void["boundary_f"] == 0
    same = segmentation.figures(rows(FOUND, FOUND, segmentation=FOUND), NAMES)
    assert [same[name] for name in ("mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy", "boundary_f")] == [
        1
    ] * 5


@pytest.mark.parametrize("value", [6, 254])
def test_true_values_that_are_no_class_are_refused(value):
    truth = TRUTH.copy()
    truth[3, 0, 0] = value
    with pytest.raises(UserError, match=rf"`class_map` .* value {value}; .* classes, 0 to 5, and 255 for void"):
        segmentation.figures(rows(truth, FOUND), NAMES)
