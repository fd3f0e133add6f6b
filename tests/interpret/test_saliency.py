"""Gradients, integrated gradients and occlusion: the library Captum on a torch copy, and what the papers prove."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_classifier

from cvjax.errors import UserError
from cvjax.interpret import saliency

LABELS = jnp.array([2, 0])


@pytest.fixture(scope="module")
def classifier():
    return small_classifier.make()


def close(ours, theirs):
    """float32 through four layers, against the largest attribution."""
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


@pytest.mark.parity
def test_captum_finds_the_same_on_a_torch_copy(classifier):
    attr = pytest.importorskip("captum.attr")
    torch, copy, x = small_classifier.torch_copy(classifier)
    target = torch.tensor(np.asarray(LABELS))
    size = (3, 5, 5)  # channels, height, width
    theirs = {
        "gradient": attr.Saliency(copy).attribute(x, target, abs=False),
        "saliency": attr.Saliency(copy).attribute(x, target).amax(1, keepdim=True),
        "input_x_gradient": attr.InputXGradient(copy).attribute(x, target),
        "integrated_gradients": attr.IntegratedGradients(copy).attribute(x, 0.25, target, n_steps=20),
        "guided_backpropagation": attr.GuidedBackprop(copy).attribute(x, target),
        "deconvolution": attr.Deconvolution(copy).attribute(x, target),
        "occlusion": attr.Occlusion(copy).attribute(x, size, (3, 2, 2), 0.25, target)[:, :1],
    }
    options = {
        "integrated_gradients": dict(baseline=0.25, steps=20),
        "occlusion": dict(window=5, stride=2, baseline=0.25),
    }
    for name, expected in theirs.items():
        method = functools.partial(getattr(saliency, name), **options.get(name, {}))
        found = jax.jit(method, static_argnums=0)(classifier.logits, classifier.images, LABELS)
        close(found, expected.detach().numpy().transpose(0, 2, 3, 1).reshape(found.shape))


def test_integrated_gradients_add_up_to_the_difference_of_the_logits(classifier):
    found = saliency.integrated_gradients(classifier.logits, classifier.images, LABELS, steps=200)
    ends = [saliency.logit(classifier.logits, x, LABELS) for x in (classifier.images, jnp.zeros((2, 8, 10, 3)))]
    change = ends[0] - ends[1]
    assert np.abs(change).max() > 1
    # The integrand jumps where a unit switches on: 200 points miss the integral by 2 % of the change at most.
    np.testing.assert_allclose(found.sum((1, 2, 3)), change, atol=0.02 * np.abs(change).max())
    coarse = saliency.integrated_gradients(classifier.logits, classifier.images, LABELS, steps=1)
    assert np.abs(coarse.sum((1, 2, 3)) - change).max() > 0.05 * np.abs(change).max()


@pytest.mark.parametrize("steps", [0, 1001, 10**9])
def test_integrals_of_no_points_or_too_many_are_refused(classifier, steps):
    with pytest.raises(UserError, match=rf"steps is {steps}; it must be from 1 to 1000\."):
        saliency.integrated_gradients(classifier.logits, classifier.images, LABELS, steps=steps)


def test_smoothgrad_is_the_mean_gradient_of_noisy_images(classifier):
    key, images = jax.random.key(3), 0.5 * classifier.images
    found = saliency.smoothgrad(key, classifier.logits, images, LABELS, samples=3, noise=0.2)
    span = np.ptp(np.asarray(images).reshape(2, -1), axis=1).reshape(2, 1, 1, 1)
    noisy = [images + 0.2 * span * jax.random.normal(each, images.shape) for each in jax.random.split(key, 3)]
    close(found, np.mean([saliency.gradient(classifier.logits, x, LABELS) for x in noisy], axis=0))
    plain = saliency.smoothgrad(key, classifier.logits, images, LABELS, samples=2, noise=0.0)
    close(plain, saliency.gradient(classifier.logits, images, LABELS))


def test_occlusion_by_hand_on_a_linear_classifier():
    weights = jnp.arange(12.0).reshape(3, 4, 1)
    logits_fn = lambda x: jnp.stack([0 * x.sum((1, 2, 3)), (x * weights).sum((1, 2, 3))], 1)  # noqa: E731
    found = saliency.occlusion(logits_fn, jnp.ones((1, 3, 4, 1)), jnp.array([1]), window=2, stride=2)
    expected = np.zeros((3, 4))
    for rows in (slice(0, 2), slice(2, 3)):
        for columns in (slice(0, 2), slice(2, 4)):
            expected[rows, columns] = weights[rows, columns].sum()
    np.testing.assert_allclose(found[0], expected)
    sparse = saliency.occlusion(logits_fn, jnp.ones((1, 3, 4, 1)), jnp.array([1]), window=1, stride=3)
    np.testing.assert_allclose(sparse[0], weights[..., 0] * np.array([[1, 0, 0, 1], [0] * 4, [0] * 4]))
