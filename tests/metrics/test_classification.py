"""The figures of classifiers beside scikit-learn's, torchmetrics' and their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from cvjax.errors import UserError
from cvjax.metrics import classification

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(200, 7)).astype(np.float32) * 1.5
LABELS = np.where(RNG.random(200) < 0.5, LOGITS.argmax(axis=1), RNG.integers(6, size=200))  # class 6 is rare


def rows(logits, labels, parts=3):
    """Batches of different sizes, as evaluation gives them."""
    for some in np.array_split(np.arange(len(labels)), parts):
        found = classification.outcomes(jnp.asarray(logits[some]), jnp.asarray(labels[some]))
        yield {"label": labels[some]}, {name: np.asarray(value) for name, value in found.items()}


def test_figures_are_scikit_learns():
    names = [f"class {index}" for index in range(7)]
    found = classification.figures(rows(LOGITS, LABELS), names)
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    every = np.arange(7)
    for count in (1, 5):
        expected = metrics.top_k_accuracy_score(LABELS, probabilities, k=count, labels=every)
        assert found[f"top{count}"] == pytest.approx(expected)
    assert found["nll"] == pytest.approx(metrics.log_loss(LABELS, probabilities, labels=every), rel=1e-5)
    assert found["class_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(LABELS, LOGITS.argmax(axis=1)))
    recalls = metrics.recall_score(LABELS, LOGITS.argmax(axis=1), average=None, labels=every)
    assert [found[f"accuracy/{name}"] for name in names] == pytest.approx(recalls)


def test_confusions_are_scikit_learns():
    predicted = LOGITS.argmax(axis=1)
    expected = metrics.confusion_matrix(LABELS, predicted, labels=range(9))
    found = classification.confusion(LABELS.astype(np.uint8), predicted, 9)
    np.testing.assert_array_equal(found, expected)


def test_a_class_without_examples_has_no_accuracy_and_few_classes_no_top5():
    found = classification.figures(rows(LOGITS[:, :4], np.minimum(LABELS, 2)), "abcd")
    assert found["accuracy/d"] == -1 and 0 < found["accuracy/a"] < 1 and "top5" not in found
    assert found["class_accuracy"] == pytest.approx(np.mean([found[f"accuracy/{name}"] for name in "abc"]))
    assert "accuracy/0" not in classification.figures(
        rows(RNG.normal(size=(8, 101)), np.arange(8)), list(map(str, range(101)))
    )


def test_ties_go_to_the_first_class_and_nan_is_never_right():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [np.nan, np.nan, np.nan]])
    found = classification.outcomes(logits, jnp.array([0, 1, 0]))
    np.testing.assert_array_equal(found["rank"], [0, 1, 3])
    np.testing.assert_array_equal(found["predicted"][:2], [0, 0])


@pytest.mark.parametrize("label", [-1, -100, 7, 255])
def test_labels_of_no_class_are_refused(label):
    labels = np.where(np.arange(200) == 5, label, LABELS)
    with pytest.raises(UserError, match=rf"label of an image is {label}; there are 7 classes, 0 to 6"):
        classification.figures(rows(LOGITS, labels), "abcdefg")


def test_outcomes_of_half_precision_are_those_of_the_rounded_logits_in_float32():
    for dtype in (jnp.float16, jnp.bfloat16):
        half = jnp.asarray(LOGITS, dtype)
        found, expected = (classification.outcomes(x, jnp.asarray(LABELS)) for x in (half, half.astype(jnp.float32)))
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


def test_calibration_error_is_its_definition():
    confidence, right = RNG.uniform(0.2, 1.0, 500), RNG.random(500) < 0.6
    confidence[:2] = 1.0, 0.0
    expected = 0.0
    for lower in np.arange(15) / 15:
        inside = (confidence > lower) & (confidence <= lower + 1 / 15) | (lower == 0) & (confidence == 0)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert classification.calibration_error(confidence, right) == pytest.approx(expected)
    assert classification.calibration_error(np.ones(10), np.ones(10, bool)) == 0


@pytest.mark.parity
def test_calibration_error_is_torchmetrics(torchvision):
    torch = pytest.importorskip("torch")
    calibration = pytest.importorskip("torchmetrics.functional.classification")
    expected = calibration.multiclass_calibration_error(torch.tensor(LOGITS), torch.tensor(LABELS), 7, n_bins=15)
    found = classification.figures(rows(LOGITS, LABELS), list("abcdefg"))["calibration_error"]
    assert found == pytest.approx(float(expected), abs=1e-5)
