"""The pool of earlier translations: its law, beside a list in Python."""

import jax
import jax.numpy as jnp
import numpy as np

from cvjax.translation.image_pool import new_pool, query_pool

query = jax.jit(query_pool)


def pictures(first, count):
    """Images that are told apart by their value."""
    return jnp.arange(first, first + count, dtype=jnp.float32)[:, None, None, None] * jnp.ones((1, 2, 2, 1))


class ListPool:
    """Zhu et al.'s pool as a list; what is drawn at random is given."""

    def __init__(self, room):
        self.room, self.images = room, []

    def query(self, value, coin, place):
        if len(self.images) < self.room:
            self.images.append(value)
            return value
        if not coin:
            return value
        self.images[place], old = value, self.images[place]
        return old


def test_it_exchanges_as_a_list_does():
    pool, reference, first = new_pool(5, (2, 2, 1)), ListPool(5), 1
    returned_old = 0
    for step in range(12):
        key, images = jax.random.key(step), pictures(first, 3)
        chosen, pool = query(key, pool, images)
        expected = []
        for image_key, value in zip(jax.random.split(key, 3), range(first, first + 3), strict=True):
            coin_key, place_key = jax.random.split(image_key)
            coin, place = bool(jax.random.bernoulli(coin_key)), int(jax.random.randint(place_key, (), 0, 5))
            expected.append(reference.query(value, coin, place))
        np.testing.assert_array_equal(chosen[:, 0, 0, 0], expected)
        held = pool.images[: int(pool.held), 0, 0, 0]
        np.testing.assert_array_equal(held, reference.images)
        returned_old += sum(value < first for value in expected)
        first += 3
    assert pool.held == 5 and returned_old > 5


def test_while_it_fills_it_returns_what_comes_and_then_half_of_the_time_what_it_has():
    pool = new_pool(50, (2, 2, 1))
    chosen, pool = query(jax.random.key(0), pool, pictures(1, 50))
    np.testing.assert_array_equal(chosen, pictures(1, 50))
    np.testing.assert_array_equal(pool.images, pictures(1, 50))
    chosen, after = query(jax.random.key(1), pool, pictures(1001, 400))
    old = chosen[:, 0, 0, 0] != jnp.arange(1001, 1401)
    assert 150 < old.sum() < 250  # five standard deviations around a half
    # What was returned as old has left; what was stored is in the pool or has left in its turn; nothing is lost.
    gone, kept = chosen[old][:, 0, 0, 0].tolist(), after.images[:, 0, 0, 0].tolist()
    stored = jnp.arange(1001, 1401)[old].tolist()
    assert sorted(gone + kept) == sorted([*range(1, 51), *stored])
    assert len({place for place in range(50) if after.images[place, 0, 0, 0] > 1000}) > 40  # all places are drawn


def test_without_room_everything_is_returned():
    images = pictures(1, 3)
    chosen, pool = query(jax.random.key(0), new_pool(0, (2, 2, 1)), images)
    np.testing.assert_array_equal(chosen, images)
    assert pool.images.shape == (0, 2, 2, 1) and pool.held == 0
