"""A player is a network's part of the state, and is applied in training mode."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvjax import core
from cvjax.nets import players

KEY = jax.random.key(0)


class Normalised(nn.Module):
    """Batch normalisation and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(not train, momentum=0.9, epsilon=0.0)(x)
        return nn.Dropout(0.5, deterministic=not train)(x)


def test_training_mode_uses_the_batchs_statistics_and_updates_the_running_ones():
    x = jax.random.normal(KEY, (50, 3)) + 2
    net = Normalised()
    initial = net.init(KEY, x)
    outputs, stats = players.train_apply(KEY, net, initial["params"], initial["batch_stats"], x)
    normalised = (x - x.mean(axis=0)) / x.std(axis=0)
    kept = np.asarray(outputs != 0)
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(outputs, np.where(kept, 2 * normalised, 0), atol=1e-5)
    np.testing.assert_allclose(stats["BatchNorm_0"]["mean"], 0.1 * x.mean(axis=0), rtol=1e-5)
    other, _ = players.train_apply(jax.random.key(1), net, initial["params"], initial["batch_stats"], x)
    assert (np.asarray(other != 0) != kept).any()  # the key is dropout's


def test_a_network_without_statistics_has_none_afterwards():
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(2)(x)

    x = jnp.ones((4, 3))
    params = Linear().init(KEY, x)["params"]
    outputs, stats = players.train_apply(KEY, Linear(), params, {}, x)
    assert stats == {}
    np.testing.assert_allclose(outputs, Linear().apply({"params": params}, x))


def test_players_are_taken_from_a_state_and_make_the_next():
    networks = {
        "generator": {"params": jnp.float32(1), "batch_stats": jnp.float32(10)},
        "discriminator": {"params": jnp.float32(2)},
    }
    state = core.start(networks, {"generator": "g", "discriminator": "d"}, averaged=("generator",))
    generator, discriminator = (players.get_player(state, name) for name in ("generator", "discriminator"))
    assert generator == (1, "g", 10) and discriminator == (2, "d", {})
    moved = {"generator": generator._replace(params=jnp.float32(3), opt="later"), "discriminator": discriminator}
    after = players.advance(state, moved, keep=0.05)
    assert after.step == 1 and after.params == {"generator": 3, "discriminator": 2}
    assert after.opt == {"generator": "later", "discriminator": "d"} and after.stats == {"generator": 10}
    np.testing.assert_allclose(after.average["generator"]["params"], 0.05 * 1 + 0.95 * 3, rtol=1e-6)
