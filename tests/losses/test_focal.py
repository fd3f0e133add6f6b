"""The focal loss and smooth L1 beside torch in float64, and where formulas written down naively break."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvjax.losses.focal import sigmoid_focal, smooth_l1

LOGITS = jnp.linspace(-12, 12, 97)
LABELS = jnp.arange(97) % 3 == 0


@pytest.mark.parity
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, None), (0.5, 0.9), (5.0, None)])
def test_values_and_gradients_are_equation_5(gamma, alpha):
    torch = pytest.importorskip("torch")
    logits = torch.tensor(np.asarray(LOGITS), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(np.asarray(LABELS))
    p = torch.sigmoid(logits)
    p_t = torch.where(labels, p, 1 - p)
    weight = 1 if alpha is None else torch.where(labels, alpha, 1 - alpha)
    expected = -weight * (1 - p_t) ** gamma * torch.log(p_t)
    expected.sum().backward()
    ours = sigmoid_focal(LOGITS, LABELS, gamma, alpha)
    # float32; a margin of 12 nats, whose (1 - p_t)^5 is exp(-60), carries 12 * 6e-8 * 5 of relative error
    np.testing.assert_allclose(ours, expected.detach(), rtol=1e-5)
    gradient = jax.grad(lambda x: sigmoid_focal(x, LABELS, gamma, alpha).sum())(LOGITS)
    np.testing.assert_allclose(gradient, logits.grad, rtol=1e-4, atol=1e-12)


def test_values_are_optax():
    expected = optax.sigmoid_focal_loss(LOGITS, LABELS, alpha=0.25, gamma=2.0)
    np.testing.assert_allclose(sigmoid_focal(LOGITS, LABELS), expected, rtol=1e-5)


def test_without_focus_it_is_the_cross_entropy():
    expected = optax.sigmoid_binary_cross_entropy(LOGITS, LABELS.astype(jnp.float32))
    np.testing.assert_allclose(sigmoid_focal(LOGITS, LABELS, gamma=0.0, alpha=None), expected, rtol=1e-5)


def test_well_classified_examples_count_a_hundredth():
    """Section 3.2: at gamma 2, p_t = .9 has 100 times less loss than under cross-entropy."""
    logit = jnp.log(jnp.array([0.9 / 0.1]))
    focal = sigmoid_focal(logit, jnp.array([True]), alpha=None)
    np.testing.assert_allclose(-jnp.log(0.9) / focal, 100, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_have_finite_losses_and_gradients(gamma):
    logits = jnp.array([-1e4, -200.0, -90.0, 0.0, 90.0, 200.0, 1e4])
    for labels in (jnp.ones(7, bool), jnp.zeros(7, bool)):
        values = sigmoid_focal(logits, labels, gamma, None)
        gradients = jax.grad(lambda x, labels=labels: sigmoid_focal(x, labels, gamma, None).sum())(logits)
        wrong = jnp.where(labels, logits, -logits) < -50
        np.testing.assert_allclose(values[wrong], jnp.abs(logits)[wrong])
        np.testing.assert_allclose(jnp.abs(gradients)[wrong], 1, rtol=1e-6)
        assert jnp.isfinite(values).all() and jnp.isfinite(gradients).all()


@pytest.mark.parity
@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_is_torchs(beta):
    torch = pytest.importorskip("torch")
    targets = jnp.flip(LOGITS) / 40
    theirs = torch.nn.functional.smooth_l1_loss(
        torch.tensor(np.asarray(LOGITS / 10)), torch.tensor(np.asarray(targets)), reduction="none", beta=beta
    )
    np.testing.assert_allclose(smooth_l1(LOGITS / 10, targets, beta), theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, targets = LOGITS.astype(dtype), (300 * LOGITS[::-1]).astype(dtype)  # squares beyond 65,504
    exact = logits.astype(jnp.float32), targets.astype(jnp.float32)
    np.testing.assert_array_equal(sigmoid_focal(logits, LABELS), sigmoid_focal(exact[0], LABELS))
    for beta in (0.0, 1.0, 1e4):
        np.testing.assert_array_equal(smooth_l1(logits, targets, beta), smooth_l1(*exact, beta))
