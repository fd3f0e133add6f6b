"""Labels, noise and losses by `Training`, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.losses import adversarial
from cvjax.losses.strategies import Training

KEY = jax.random.key(5)


def test_real_labels_are_one_number_or_drawn_for_each_image():
    assert Training().discriminator_options(KEY, "hinge", 3) == {}
    constant = Training(real_label=0.9).discriminator_options(KEY, "cross_entropy", 3)
    np.testing.assert_allclose(constant["real_label"], [0.9, 0.9, 0.9])
    drawn = Training(real_label=(0.7, 1.2)).discriminator_options(KEY, "least_squares", 50)["real_label"]
    np.testing.assert_array_equal(drawn, jax.random.uniform(KEY, (50,), minval=0.7, maxval=1.2))


@pytest.mark.parametrize("loss", adversarial.LOSSES)
def test_every_loss_takes_its_options(loss):
    real, fake = jax.random.normal(jax.random.key(1), (2, 6, 2, 2))  # patches
    discriminator_loss, generator_loss = adversarial.LOSSES[loss]
    plain = Training().discriminator_options(KEY, loss, 6)
    np.testing.assert_allclose(discriminator_loss(real, fake, **plain), discriminator_loss(real, fake), rtol=1e-6)
    assert Training().generator_options() == {}
    if loss == "cross_entropy":
        saturating = generator_loss(fake, **Training(saturating=True).generator_options())
        np.testing.assert_allclose(saturating, np.log(1 - 1 / (1 + np.exp(-fake))).mean(), rtol=1e-5)
    if loss in adversarial.LABELLED:
        smooth = Training(real_label=(0.5, 0.9)).discriminator_options(KEY, loss, 6)
        each = [discriminator_loss(r, f, y) for r, f, y in zip(real, fake, smooth["real_label"], strict=True)]
        np.testing.assert_allclose(discriminator_loss(real, fake, **smooth), np.mean(each), rtol=1e-6)


def test_noise_decays_linearly_to_exactly_zero():
    training = Training(instance_noise=0.5, noise_steps=100)
    levels = [float(training.noise_level(jnp.int32(step))) for step in (0, 50, 99, 100, 5000)]
    np.testing.assert_allclose(levels[:3], [0.5, 0.25, 0.005], rtol=1e-5)
    assert levels[3:] == [0.0, 0.0]


def test_noise_has_the_stated_standard_deviation():
    images = jnp.full((4, 64, 64, 1), 0.5)
    noisy = np.asarray(Training(instance_noise=0.5).add_noise(KEY, images, jnp.float32(0.2)))
    assert noisy.std() == pytest.approx(0.2, rel=0.02) and noisy.mean() == pytest.approx(0.5, abs=0.01)
    assert Training().add_noise(KEY, images, jnp.float32(0.2)) is images


def test_strategies_that_a_loss_does_not_support_are_refused():
    for label in (0.9, (0.7, 1.2)):
        for loss in ("wasserstein", "hinge"):
            with pytest.raises(UserError, match=r"training\.real_label=.*no labels.*cross_entropy or least_squares"):
                Training(real_label=label).check(loss)
        Training(real_label=label).check("least_squares")
    with pytest.raises(UserError, match=r"real_label=\(1\.2, 0\.7\): expected \(low, high\)"):
        Training(real_label=(1.2, 0.7)).check("cross_entropy")
    for loss in ("least_squares", "wasserstein", "hinge"):
        with pytest.raises(UserError, match=r"training\.saturating=True: only the cross_entropy loss"):
            Training(saturating=True).check(loss)
    Training(saturating=True).check("cross_entropy")


def test_a_batch_that_the_steps_cannot_split_is_refused():
    Training(discriminator_steps=5).check_batch(15)
    with pytest.raises(UserError, match=r"data\.batch=12: must be a multiple of .*discriminator_steps=5"):
        Training(discriminator_steps=5).check_batch(12)
