"""Projections to a ball and a box keep to both without any rounding, and leave what is inside where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.attacks.projection import bounds, project_l2, project_linf, unit

BOXES = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]


def draw(seed, lower, upper, shape=(64, 8, 8, 3)):
    """Images, a third of whose pixels are at an end of the box, and moved images all over the place."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(lower, upper, shape)
    ends = generator.choice([lower, upper], shape)
    images = np.where(generator.random(shape) < 0.3, ends, images).astype(np.float32)
    reach = (upper - lower) * 10.0 ** generator.uniform(-8, 0.5, shape)
    return images, (images + generator.choice([-1, 1], shape) * reach).astype(np.float32)


@pytest.mark.parametrize(("lower", "upper"), BOXES)
def test_linf_keeps_to_the_ball_and_the_box_exactly(lower, upper):
    project = jax.jit(project_linf, static_argnums=(3, 4))
    for seed, epsilon in enumerate(np.float32([0, 1e-9, 1e-7, 2 / 255, 0.1, 0.25, 0.3, 1, 7])):
        images, moved = draw(seed, lower, upper)
        found = np.asarray(project(moved, images, epsilon, lower, upper))
        exact = np.clip(np.float64(moved), np.float64(images) - epsilon, np.float64(images) + epsilon)
        np.testing.assert_allclose(found, np.clip(exact, lower, upper), rtol=2.5e-7, atol=1e-7 * epsilon)  # two units
        assert np.abs(np.float64(found) - images).max() <= epsilon  # float64 computes the difference without rounding
        assert lower <= found.min() and found.max() <= upper


@pytest.mark.parametrize(("lower", "upper"), BOXES)
def test_l2_keeps_to_the_ball_and_the_box_exactly(lower, upper):
    project = jax.jit(project_l2, static_argnums=(3, 4))
    for seed, epsilon in enumerate((upper - lower) * np.float32([0, 1e-7, 1e-3, 0.1, 0.5, 1.0, 3.0])):
        images, moved = draw(seed, lower, upper)
        found = np.asarray(project(moved, images, epsilon, lower, upper))
        lengths = np.linalg.norm((np.float64(found) - images).reshape(len(images), -1), axis=1)
        assert lengths.max() <= epsilon
        assert lower <= found.min() and found.max() <= upper
        change = np.float64(moved) - images
        scale = np.minimum(1, epsilon / np.linalg.norm(change.reshape(len(change), -1), axis=1)).reshape(-1, 1, 1, 1)
        ball = np.clip(images + scale * change, lower, upper)
        np.testing.assert_allclose(found, ball, atol=1e-5 * (upper - lower))  # the radius gives way to rounding


def test_a_large_image_keeps_to_the_ball_too():
    """A sum of 150,528 squares in one go is off by more than the margin."""
    images, moved = (np.full((1, 224, 224, 3), value, np.float32) for value in (0.5, 0.51))
    for epsilon in np.float32([0.1, 1.0, 3.0]):
        found = np.float64(jax.jit(project_l2)(moved, images, epsilon)) - 0.5
        assert epsilon * (1 - 1e-3) < np.linalg.norm(found) <= epsilon


def test_what_is_inside_stays():
    images = jnp.full((2, 4, 4, 1), 0.5)
    moved = images.at[0, 0, 0, 0].set(0.55).at[1, 1].set(0.45)
    np.testing.assert_array_equal(project_linf(moved, images, 0.1), moved)
    np.testing.assert_allclose(project_l2(moved, images, 0.2), moved, atol=1e-7)


def test_gradients_are_those_of_a_constant_step():
    """They pass to the images where the box does not clip, and not to the moved images."""
    images = jnp.array([0.5, 0.9, 0.05, 0.2]).reshape(1, 2, 2, 1)
    moved = images + jnp.array([0.3, 0.3, -0.3, 0.01]).reshape(images.shape)  # out of the ball, out of the box, inside
    weights = jnp.array([2.0, 3.0, 5.0, 7.0]).reshape(images.shape)

    def total(moved, images):
        return (weights * project_linf(moved, images, 0.15)).sum()

    to_moved, to_images = jax.grad(total, argnums=(0, 1))(moved, images)
    np.testing.assert_array_equal(to_moved, 0)
    np.testing.assert_array_equal(np.ravel(to_images), [2, 0, 0, 7])


def test_bounds_of_zero_are_the_image():
    images, _ = draw(0, 0.0, 1.0)
    for bound in bounds(jnp.asarray(images), 0.0):
        np.testing.assert_array_equal(bound, images)


def test_units_of_tiny_and_of_no_changes():
    changes = jnp.stack([jnp.full((2, 2, 1), 1e-30), jnp.zeros((2, 2, 1)), jnp.full((2, 2, 1), -3.0)])
    np.testing.assert_allclose(unit(changes)[:, 0, 0, 0], [0.5, 0, -0.5], rtol=1e-6)
