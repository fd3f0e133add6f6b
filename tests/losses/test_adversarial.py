"""Adversarial losses beside torch and by hand, labels, and the gradient penalty beside torch's double backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.losses import adversarial

REAL, FAKE = 3 * jax.random.normal(jax.random.key(1), (2, 9))


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.mark.parity
def test_cross_entropies_are_torchs(torch):
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    labels = np.linspace(0.7, 1.0, 9, dtype=np.float32)
    r, f, each = (torch.tensor(np.asarray(values)) for values in (REAL, FAKE, labels))
    for label, target in [(1.0, torch.ones(9)), (0.9, torch.full((9,), 0.9)), (jnp.asarray(labels), each)]:
        expected = entropy(r, target) + entropy(f, torch.zeros(9))
        ours = adversarial.cross_entropy_discriminator_loss(REAL, FAKE, label)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    ours = adversarial.cross_entropy_generator_loss
    np.testing.assert_allclose(ours(FAKE), entropy(f, torch.ones(9)), rtol=1e-6)
    np.testing.assert_allclose(ours(FAKE, saturating=True), -entropy(f, torch.zeros(9)), rtol=1e-6)


def test_the_saturating_loss_has_no_slope_where_the_discriminator_is_sure():
    """Both forms push D(G(z)) up; at D = 1e-4 one by 1 - D, the other by D."""
    sure = jnp.log(jnp.array([1e-4 / (1 - 1e-4)]))
    slope = {flag: jax.grad(adversarial.cross_entropy_generator_loss)(sure, flag)[0] for flag in (False, True)}
    np.testing.assert_allclose([slope[False], slope[True]], [-(1 - 1e-4), -1e-4], rtol=1e-3)


@pytest.mark.parity
def test_least_squares_are_torchs_halved(torch):
    mse = torch.nn.functional.mse_loss
    r, f = (torch.tensor(np.asarray(values)) for values in (REAL, FAKE))
    for fake_label in (0.0, -1.0):
        expected = (mse(r, torch.full((9,), 0.8)) + mse(f, torch.full((9,), fake_label))) / 2
        ours = adversarial.least_squares_discriminator_loss(REAL, FAKE, 0.8, fake_label)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    ours = adversarial.least_squares_generator_loss(FAKE)
    np.testing.assert_allclose(ours, mse(f, torch.ones(9)) / 2, rtol=1e-6)
    ours = adversarial.least_squares_generator_loss(FAKE, target=0.0)
    np.testing.assert_allclose(ours, mse(f, torch.zeros(9)) / 2, rtol=1e-6)


def test_wasserstein_and_hinge_by_hand():
    real, fake = jnp.array([2.0, 0.5, -1.0]), jnp.array([-3.0, -0.5, 1.0, 0.5])
    assert adversarial.wasserstein_discriminator_loss(real, fake) == pytest.approx(-0.5 - 0.5)
    assert adversarial.wasserstein_generator_loss(fake) == pytest.approx(0.5)
    # 2 and -3 lie beyond the margins: 0. The others: .5 and 2 of 3; .5, 2 and 1.5 of 4
    assert adversarial.hinge_discriminator_loss(real, fake) == pytest.approx(2.5 / 3 + 4.0 / 4)
    slopes = jax.grad(adversarial.hinge_discriminator_loss, (0, 1))(real, fake)
    np.testing.assert_allclose(slopes[0], np.array([0, -1, -1]) / 3)
    np.testing.assert_allclose(slopes[1], np.array([0, 1, 1, 1]) / 4)
    assert adversarial.LOSSES["hinge"][1](fake) == pytest.approx(0.5)  # the generator's is not hinged


def test_patches_have_losses_too():
    real, fake = jax.random.normal(jax.random.key(2), (2, 3, 4, 4, 1))
    for discriminator_loss, generator_loss in adversarial.LOSSES.values():
        flat = discriminator_loss(real.ravel(), fake.ravel()), generator_loss(fake.ravel())
        np.testing.assert_allclose((discriminator_loss(real, fake), generator_loss(fake)), flat, rtol=1e-6)


def test_labels_fill_their_range_or_are_the_number():
    np.testing.assert_array_equal(adversarial.draw_labels(jax.random.key(0), 5, 0.9), np.full(5, 0.9, np.float32))
    labels = np.asarray(adversarial.draw_labels(jax.random.key(0), 4000, (0.7, 1.2)))
    assert labels.min() >= 0.7 and labels.max() < 1.2
    assert labels.min() < 0.705 and labels.max() > 1.195  # 4,000 draws come within .5 / 4,000 of the ends, or nearly
    assert labels.mean() == pytest.approx(0.95, abs=0.01)  # four standard errors, .5 / sqrt(12 * 4000)


def critic(weights, images):
    """A small one, smooth, so that its second derivatives are not 0."""
    hidden = jnp.tanh(images.reshape(len(images), -1) @ weights["in"])
    return hidden @ weights["out"]


@pytest.fixture(scope="module")
def pair():
    keys = jax.random.split(jax.random.key(3), 4)
    weights = {"in": jax.random.normal(keys[0], (24, 5)), "out": jax.random.normal(keys[1], (5,))}
    return weights, jax.random.normal(keys[2], (6, 4, 2, 3)), jax.random.normal(keys[3], (6, 4, 2, 3))


@pytest.mark.parity
def test_gradient_penalty_and_the_weights_gradient_are_torchs(torch, pair):
    weights, real, fake = pair
    key = jax.random.key(4)

    def ours(weights):
        penalties, norms = adversarial.gradient_penalty(key, lambda images: critic(weights, images), real, fake)
        return penalties.sum(), (penalties, norms)

    gradients, (penalties, norms) = jax.jit(jax.grad(ours, has_aux=True))(weights)
    assert penalties.shape == norms.shape == (6,)
    share = torch.tensor(np.asarray(jax.random.uniform(key, (6, 1, 1, 1))))  # one number an image
    w = {name: torch.tensor(np.asarray(value), requires_grad=True) for name, value in weights.items()}
    mixed = share * torch.tensor(np.asarray(real)) + (1 - share) * torch.tensor(np.asarray(fake))
    mixed.requires_grad_(True)
    scores = torch.tanh(mixed.flatten(1) @ w["in"]) @ w["out"]
    (slope,) = torch.autograd.grad(scores.sum(), mixed, create_graph=True)
    expected_norms = slope.flatten(1).norm(dim=1)  # over rows, columns and channels at once
    expected = (expected_norms - 1) ** 2
    expected.sum().backward()
    np.testing.assert_allclose(norms, expected_norms.detach(), rtol=1e-4)  # float32
    np.testing.assert_allclose(penalties, expected.detach(), rtol=1e-4)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, w[name].grad, rtol=1e-3, atol=1e-4)


def test_the_place_of_each_pair_is_one_number_of_its_own(pair):
    """The gradient of |x|^2 / 2 is x, so its norm tells where on the way from fake to real it was taken."""
    _, real, fake = pair
    key = jax.random.key(5)
    penalties, norms = adversarial.gradient_penalty(key, lambda x: jnp.square(x).sum(axis=(1, 2, 3)) / 2, real, fake)
    share = np.asarray(jax.random.uniform(key, (6, 1, 1, 1)))
    assert len(np.unique(share)) == 6 and share.min() >= 0 and share.max() < 1
    places = share * real + (1 - share) * fake
    np.testing.assert_allclose(norms, np.sqrt(np.square(places).sum(axis=(1, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(penalties, (norms - 1) ** 2, rtol=1e-5)


def test_a_critic_without_slope_has_a_finite_gradient(pair):
    weights, real, fake = pair
    flat = {"in": weights["in"], "out": jnp.zeros(5)}

    def loss(weights):
        return adversarial.gradient_penalty(jax.random.key(6), lambda images: critic(weights, images), real, fake)[
            0
        ].sum()

    value, gradients = jax.value_and_grad(loss)(flat)
    assert value == pytest.approx(6.0)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_clipping_bounds_every_weight_and_moves_no_other(pair):
    weights = {"layer": pair[0]}
    clipped = adversarial.clip_weights(weights, 0.3)
    for before, after in zip(jax.tree.leaves(weights), jax.tree.leaves(clipped), strict=True):
        assert np.abs(after).max() == pytest.approx(0.3)
        inside = np.abs(before) <= 0.3
        assert inside.any() and not inside.all()
        np.testing.assert_array_equal(np.asarray(after)[inside], np.asarray(before)[inside])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_averaged_in_float32(dtype):
    real, fake = (300 * jax.random.normal(jax.random.key(seed), (400,)) for seed in (8, 9))  # squares beyond 65,504
    real, fake = real.astype(dtype), fake.astype(dtype)
    exact = real.astype(jnp.float32), fake.astype(jnp.float32)
    for discriminator_loss, generator_loss in adversarial.LOSSES.values():
        assert discriminator_loss(real, fake) == discriminator_loss(*exact)
        assert generator_loss(fake) == generator_loss(exact[1])
    steep = jnp.full((2, 400), 100, dtype)  # the squares of a slope add up to 4,000,000
    _, norms = adversarial.gradient_penalty(
        jax.random.key(0), lambda x: (steep * x.astype(dtype)).sum(axis=1), steep, steep
    )
    np.testing.assert_array_equal(norms, [2000, 2000])
