"""A pool of translations of earlier steps, so that discriminators do not forget them.

Shrivastava et al., Learning from Simulated and Unsupervised Images through Adversarial Training, 2017
(arXiv:1612.07828), section 2.3, as Zhu et al., 2017 (arXiv:1703.10593), use it.
"""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Images = Float[Array, "batch height width channels"]


@flax.struct.dataclass
class Pool:
    """Translations of earlier steps; `held` counts those there are, of the room in `images`."""

    images: Float[Array, "room height width channels"]
    held: Int[Array, ""]


def new_pool(room: int, shape: tuple[int, ...]) -> Pool:
    """Returns an empty pool for images of a shape."""
    return Pool(jnp.zeros((room, *shape)), jnp.int32(0))


def query_pool(key: Key[Array, ""], pool: Pool, images: Images) -> tuple[Images, Pool]:
    """Exchanges images with a pool, one after the other; `pool` may have no room at all.

    While the pool fills, an image is stored and returned. Then, in half of the cases, it takes the place of a random
    one of the pool, which is returned; else it is returned and not stored. Returns what the discriminator gets, and the
    pool.
    """
    room = len(pool.images)
    if not room:
        return images, pool

    def exchange(pool, inputs):
        key, image = inputs
        coin_key, place_key = jax.random.split(key)
        filling = pool.held < room
        stored = filling | jax.random.bernoulli(coin_key)
        place = jnp.where(filling, pool.held, jax.random.randint(place_key, (), 0, room))
        old = pool.images[place]
        after = pool.images.at[place].set(jnp.where(stored, image, old))
        return Pool(after, pool.held + filling), jnp.where(stored & ~filling, old, image)

    pool, chosen = jax.lax.scan(exchange, pool, (jax.random.split(key, len(images)), images))
    return chosen, pool
