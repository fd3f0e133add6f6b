"""Measures of maps, each beside a loop in NumPy or SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from cvjax.metrics import attribution

GENERATOR = np.random.default_rng(0)
IMAGES = jnp.asarray(GENERATOR.uniform(size=(3, 4, 5, 2)), jnp.float32)
MAPS = jnp.asarray(GENERATOR.integers(0, 6, size=(3, 4, 5)), jnp.float32)  # with ties
BOXES = jnp.array([[1.0, 0, 4, 2], [0, 0, 5, 4], [2.6, 1.4, 3.4, 2.6]])


def score(images):
    """Not linear, so that the order matters."""
    return jnp.tanh((images * jnp.arange(40.0).reshape(4, 5, 2)).sum((1, 2, 3)) / 100)


def replaced(start, end, maps, steps):
    """Pixels sorted by hand; returns the points of the curve of one image."""
    places = sorted(np.ndindex(maps.shape), key=lambda place: (-maps[place], place))
    points = []
    for step in range(steps + 1):
        image = np.array(start)
        for place in places[: int(np.ceil(step * len(places) / steps))]:
            image[place] = end[place]
        points.append(float(score(jnp.asarray(image)[None])[0]))
    return points


@pytest.mark.parametrize("steps", [1, 5, 7])
def test_deletion_and_insertion_replace_the_highest_pixels_first(steps):
    baseline = 1 - IMAGES
    curve = jax.jit(attribution.replacement_curve, static_argnums=(0, 4))(score, IMAGES, baseline, MAPS, steps)
    expected = [replaced(*each, steps) for each in zip(IMAGES, baseline, np.asarray(MAPS), strict=True)]
    np.testing.assert_allclose(curve, expected, atol=1e-6)
    below = np.trapezoid(expected, dx=1 / steps, axis=1)
    np.testing.assert_allclose(attribution.deletion(score, IMAGES, MAPS, baseline, steps), below, atol=1e-6)
    back = [replaced(np.full((4, 5, 2), 0.5), *each, steps) for each in zip(IMAGES, np.asarray(MAPS), strict=True)]
    found = attribution.insertion(score, IMAGES, MAPS, 0.5, steps)
    np.testing.assert_allclose(found, np.trapezoid(back, dx=1 / steps, axis=1), atol=1e-6)


def test_a_map_of_what_counts_has_the_smaller_area_of_deletion():
    right = jnp.broadcast_to(jnp.arange(40.0).reshape(4, 5, 2).sum(-1), MAPS.shape)
    for better, worse in ((right, -right), (right, MAPS)):
        found, other = (attribution.deletion(score, IMAGES, maps, steps=10) for maps in (better, worse))
        assert (found < other).all()
        found, other = (attribution.insertion(score, IMAGES, maps, steps=10) for maps in (better, worse))
        assert (found > other).all()


def test_mass_and_points_inside_boxes():
    signed = MAPS - 2
    mass, points = np.zeros(3), np.zeros(3, bool)
    for index, (box, one) in enumerate(zip(np.asarray(BOXES), np.asarray(signed), strict=True)):
        centre = lambda y, x, b=box: b[0] <= x + 0.5 < b[2] and b[1] <= y + 0.5 < b[3]  # noqa: E731
        inside = np.array([[centre(y, x) for x in range(5)] for y in range(4)])
        mass[index] = np.maximum(one, 0)[inside].sum() / np.maximum(one, 0).sum()
        points[index] = inside[np.unravel_index(one.argmax(), one.shape)]
    np.testing.assert_allclose(attribution.mass_inside(signed, BOXES), mass, atol=1e-6)
    np.testing.assert_array_equal(attribution.points_inside(signed, BOXES), points)
    assert 0 < mass[0] < 1 and mass[1] == 1
    assert attribution.mass_inside(-jnp.ones((3, 4, 5)), BOXES).tolist() == [0, 0, 0]


def test_the_pointing_game_has_a_tolerance_and_no_hits_by_constant_maps():
    maps = jnp.zeros((1, 9, 9)).at[0, 4, 7].set(1)
    box = jnp.array([[2.0, 2, 5, 5]])
    for tolerance, hit in ((0.0, False), (2.0, False), (2.6, True)):
        assert attribution.points_inside(maps, box, tolerance).tolist() == [hit]
    assert attribution.points_inside(jnp.ones((1, 9, 9)), jnp.array([[0.0, 0, 9, 9]])).tolist() == [False]


def test_rank_correlation_is_spearmans():
    first = GENERATOR.normal(size=(4, 30, 30)).astype(np.float32)
    second = (first + GENERATOR.normal(size=first.shape)).astype(np.float32)
    second[1] = np.round(second[1])
    first[2], second[2] = np.maximum(first[2], 0), np.exp(first[2])
    second[3] = -second[3]
    found = jax.jit(attribution.rank_correlation)(first, second)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 sums over 900 pixels
    assert attribution.rank_correlation(jnp.ones((1, 3, 3)), jnp.asarray(first[:1, :3, :3])).tolist() == [0]
