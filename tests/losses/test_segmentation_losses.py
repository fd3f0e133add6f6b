"""Losses of class maps against torch and NumPy, and at empty classes, void maps and extreme logits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.losses import segmentation as losses
from cvjax.losses.segmentation import MapLoss

CLASSES = 4


def maps(void=True):
    """Random logits and labels of which class 3 has no pixel; two kinds of void."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 5, 7, CLASSES)).astype(np.float32) * 3
    labels = generator.integers(0, CLASSES - 1, (2, 5, 7)).astype(np.int32)
    if void:
        labels[generator.uniform(size=labels.shape) < 0.2] = 255
        labels[0, 0, :2] = -1
    return jnp.asarray(logits), jnp.asarray(labels)


def known_pixels(logits, labels):
    """Probabilities and labels of the pixels that are not void."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    known = (labels >= 0) & (labels < CLASSES)
    return softmax(logits)[known], labels[known]


def softmax(logits):
    exp = np.exp(np.float64(logits) - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


@pytest.mark.parity
def test_weighted_cross_entropy_and_its_gradient_equal_torch():
    torch = pytest.importorskip("torch")
    logits, labels = maps()
    weights = (0.5, 2.0, 1.0, 3.0)

    def loss(logits):
        values = losses.cross_entropy(logits, labels)
        return losses.weighted_mean_loss(values, labels, CLASSES, weights)

    ours, gradient = jax.value_and_grad(loss)(logits)
    theirs = torch.tensor(np.asarray(logits).transpose(0, 3, 1, 2).copy(), requires_grad=True)
    target = torch.tensor(np.where(np.asarray(labels) < 0, 255, labels)).long()
    value = torch.nn.functional.cross_entropy(theirs, target, torch.tensor(weights), ignore_index=255)
    value.backward()
    np.testing.assert_allclose(ours, value.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-7)


def test_pixel_weights_weigh_the_mean():
    logits, labels = maps()
    weights = np.random.default_rng(1).uniform(1, 10, labels.shape).astype(np.float32)
    probabilities, truth = known_pixels(logits, labels)
    nll = -np.log(np.take_along_axis(probabilities, truth[:, None], -1)[:, 0])
    known = np.asarray((labels >= 0) & (labels < CLASSES))
    values = losses.cross_entropy(logits, labels)
    ours = losses.weighted_mean_loss(values, labels, CLASSES, pixel_weights=jnp.asarray(weights))
    np.testing.assert_allclose(ours, np.average(nll, weights=weights[known]), rtol=1e-5)


def test_focal_is_its_formula_and_cross_entropy_at_gamma_0():
    logits, labels = maps(void=False)
    probabilities, truth = known_pixels(logits, labels)
    p = np.take_along_axis(probabilities, truth[:, None], -1)[:, 0]
    np.testing.assert_allclose(
        losses.focal(logits, labels, 1.5).ravel(), -((1 - p) ** 1.5) * np.log(p), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(losses.focal(logits, labels, 0.0), losses.cross_entropy(logits, labels), rtol=1e-6)


def test_dice_averages_absent_classes_with_loss_0():
    logits, labels = maps()
    probabilities, truth = known_pixels(logits, labels)
    expected = []
    for label in range(CLASSES):
        true = truth == label
        overlap, size = probabilities[true, label].sum(), probabilities[:, label].sum() + true.sum()
        expected.append(1 - 2 * overlap / size if true.any() else 0)
    assert expected[3] == 0 < min(expected[:3])
    np.testing.assert_allclose(losses.dice_loss(logits, labels), np.mean(expected), rtol=1e-5)


def jaccard_loss(wrong, true):
    """1 - IoU of a class if exactly the pixels of the set `wrong` are taken for the opposite."""
    predicted = np.where(wrong, ~true, true)
    return 1 - (predicted & true).sum() / max((predicted | true).sum(), 1)


def test_lovasz_is_the_extension_of_the_jaccard_loss():
    """The Lovász extension integrates the set function over thresholds of the errors."""
    logits, labels = maps()
    probabilities, truth = known_pixels(logits, labels)
    expected = []
    for label in range(CLASSES - 1):
        true = truth == label
        errors = np.abs(true - probabilities[:, label])
        thresholds = np.concatenate([[0], np.sort(errors)])
        steps = itertools.pairwise(thresholds)
        expected.append(sum((high - low) * jaccard_loss(errors >= high, true) for low, high in steps))
    np.testing.assert_allclose(losses.lovasz_softmax_loss(logits, labels), np.mean(expected), rtol=1e-4)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "lovasz"])
def test_losses_are_finite_and_void_has_no_gradient(name):
    chosen = MapLoss(**{"cross_entropy": 0.0, "gamma": 0.5, name: 2.0})

    @jax.jit
    @jax.value_and_grad
    def loss(logits, labels):
        return sum(losses.parts(logits, labels, chosen, jnp.ones(labels.shape)).values())

    logits, labels = maps()
    for scale in (1.0, 1e4):  # saturated: some pixels have probability 1, others 0
        value, gradient = loss(scale * logits, labels)
        assert np.isfinite(value) and value > 0 and np.isfinite(gradient).all()
        assert not gradient[(labels < 0) | (labels >= CLASSES)].any()
    value, gradient = loss(logits, jnp.full_like(labels, 255))
    assert value == 0 and not gradient.any()
    assert losses.parts(logits, labels, chosen).keys() == {name}


HALF_PRECISION = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
    "dice": losses.dice_loss,
    "lovasz": lambda logits, labels: losses.lovasz_softmax_loss(logits[:20], labels[:20]),  # it sorts, which takes long
    "mean": lambda logits, labels: losses.weighted_mean_loss(logits[..., 0], labels, CLASSES, (2.0,) * CLASSES),
    "weighted": lambda logits, labels: losses.weighted_mean_loss(
        logits[..., 0], labels, CLASSES, pixel_weights=jnp.full(labels.shape, 300, logits.dtype)
    ),
}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", HALF_PRECISION)
def test_half_precision_is_computed_in_float32(name, dtype):
    """Of 76,800 pixels, more than float16 counts to."""
    logits = jnp.full((256, 300, CLASSES), 0.5, dtype).at[..., 1].set(1)
    labels = jnp.full((256, 300), 1).at[0].set(255)
    function = jax.jit(HALF_PRECISION[name])
    found, expected = (function(x, labels) for x in (logits, logits.astype(jnp.float32)))
    assert found.dtype == jnp.float32 and np.isfinite(found).all() and found.sum() > 0
    np.testing.assert_array_equal(found, expected)
