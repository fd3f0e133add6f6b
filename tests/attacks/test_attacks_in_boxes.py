"""Every attack stays in the box of its images, whatever they are, and a recipe refuses sizes without figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.attacks import adversarial_training, patch, pgd
from cvjax.attacks import fgsm as fast
from cvjax.attacks.carlini_wagner import carlini_wagner
from cvjax.attacks.deepfool import deepfool
from cvjax.attacks.fgsm import fgsm, random_sign
from cvjax.attacks.patch import draw_placement, paste
from cvjax.attacks.regions import mask_of
from cvjax.attacks.szegedy import gradient_iteration, szegedy
from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.nets.digit_classifier import DigitClassifier

KEY = jax.random.key(0)
SHAPE = (8, 4, 4, 3)


def drawn(seed, lower, upper):
    """Images, half of whose pixels are at an end of the box; one is at its lower end, another at the upper."""
    generator = np.random.default_rng(seed)
    ends = generator.choice([lower, upper], SHAPE)
    images = np.where(generator.random(SHAPE) < 0.5, ends, generator.uniform(lower, upper, SHAPE))
    images[0], images[1] = lower, upper
    return jnp.float32(images)


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (-0.5, 0.7)])  # 1.2 - 0.5 > 0.7 in float32
def test_attacks_stay_in_the_box(lower, upper):
    kernel = jax.random.normal(KEY, (48, 4)) / 4
    labels, box = jnp.arange(8) % 4, dict(lower=lower, upper=upper)

    def logits_fn(images):
        return jnp.tanh(images.reshape(len(images), -1) @ kernel)

    @jax.jit
    def attack(images):
        return {
            "fgsm": fgsm(logits_fn, images, labels, 0.3, **box),
            "random_sign": random_sign(KEY, images, 0.3, **box),
            "szegedy": szegedy(logits_fn, images, labels, steps=6, search_steps=4, **box),
            "carlini_wagner": carlini_wagner(
                logits_fn, images, labels, True, steps=30, search_steps=2, learning_rate=0.5, constant=10.0, **box
            ),
            "gradient_iteration": gradient_iteration(logits_fn, images, labels, steps=30, step_size=0.3, **box),
            "deepfool": deepfool(logits_fn, images, labels, steps=5, overshoot=0.5, **box),
        }

    for seed in range(5):
        images = drawn(seed, lower, upper)
        for name, found in jax.device_get(attack(images)).items():
            assert (found != images).any(), name
            assert np.float32(lower) <= found.min() and found.max() <= np.float32(upper), (seed, name)


def test_images_with_patches_stay_in_the_box():
    mask = mask_of("disc", 9)

    @jax.jit
    def put(key, images):
        patch_key, size_key, place_key = jax.random.split(key, 3)
        printed = jnp.round(2 * jax.random.uniform(patch_key, (9, 9, 3))) / 2  # many pixels at an end
        area, angle = jax.random.uniform(size_key, (2, len(images)), minval=0.1)
        where = draw_placement(place_key, area, 3 * angle, mask, 4, 4)
        return [paste(images, some, mask, where) for some in (printed, jnp.zeros((9, 9, 3)), jnp.ones((9, 9, 3)))]

    for seed, key in enumerate(jax.random.split(KEY, 10)):
        for found in put(key, drawn(seed, 0.0, 1.0)):
            assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (fast.recipe, "epsilons"),
        (pgd.recipe, "epsilons"),
        (adversarial_training.recipe, "evaluated"),
        (patch.recipe, "areas"),
    ],
)
def test_sizes_without_figures_of_their_own_are_refused(make, argument):
    network = Network(DigitClassifier(), (8, 8, 1))
    with pytest.raises(UserError, match=rf"config.recipe.{argument}=\(\): name at least one size, such as"):
        make(network, **{argument: ()})
    with pytest.raises(UserError, match=r"the same for \(0.1, 0.10001\); name sizes that differ"):
        make(network, **{argument: (0.3, 0.1, 0.10001)})
    make(network, **{argument: (0.1, 0.101)})
