"""One device computes what eight do, and large parameters are split over fsdp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import config, sharding
from cvjax.compiled import compile_recipe
from cvjax.errors import UserError


def test_a_mesh_takes_all_devices():
    assert sharding.make_mesh({"data": -1}).shape == {"data": 8, "fsdp": 1}
    assert sharding.make_mesh({"data": -1, "fsdp": 4}).shape == {"data": 2, "fsdp": 4}
    for wrong in ({"data": 3, "fsdp": 1}, {"data": -1, "fsdp": -1}, {"data": 0}, {"model": 8}):
        with pytest.raises(UserError, match=r"config\.mesh"):
            sharding.make_mesh(wrong)


def test_large_arrays_are_split_and_small_ones_replicated():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 8})
    state = {"large": jnp.zeros((64, 512)), "odd": jnp.zeros((129, 1001)), "small": jnp.zeros((8, 8))}
    placed = jax.device_put(state, sharding.state_sharding(mesh, state))
    assert {name: value.addressable_shards[0].data.shape for name, value in placed.items()} == {
        "large": (64, 64),
        "odd": (129, 1001),
        "small": (8, 8),
    }


def test_to_host_gives_back_what_was_placed():
    batch = {"image": np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)}
    placed = sharding.place_batch(batch, sharding.make_mesh({"data": 4, "fsdp": 2}))
    assert len(placed["image"].sharding.device_set) == 8
    np.testing.assert_array_equal(sharding.to_host(placed)["image"], batch["image"])


@pytest.mark.parametrize("name", ["configs/vae_digits.py:smoke", "configs/dcgan_digits.py:smoke"])
def test_eight_devices_step_as_one_does(name):
    """Batch statistics included: a mean over the batch is over all devices."""
    recipe = config.build(config.load(name))
    shapes = {"image": ((16, 8, 8, 1), "float32"), "label": ((16,), "int32")}
    images = np.random.default_rng(0).uniform(size=(16, 8, 8, 1)).astype(np.float32)
    batch = {"image": images, "label": np.zeros(16, np.int32)}
    outcomes = []
    for shape, devices in [({"data": 1}, jax.devices()[:1]), ({"data": 4, "fsdp": 2}, jax.devices())]:
        mesh = sharding.make_mesh(shape, devices)
        functions = compile_recipe(recipe, mesh, shapes, seed=0)
        state, placed = functions.init(), sharding.place_batch(batch, mesh)
        for _ in range(3):
            state, metrics = functions.train_step(state, placed)
        outcomes.append(sharding.to_host((state, metrics)))
    one, eight = outcomes
    # Sums over the batch in another order: float32 rounding, which Adam's first steps amplify where gradients are ~0.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), one, eight)
