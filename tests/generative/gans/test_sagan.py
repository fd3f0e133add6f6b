"""SAGAN against torch: whole training steps with spectral normalisation, attention, conditional batch normalisation and
projection; then the details that decide about it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_gan import CONVOLVED, without_tracking

from cvjax.errors import UserError
from cvjax.generative.gans import sagan

SHAPE, WIDTH, BASE, LATENT, BATCH, CLASSES = (8, 8, 1), 8, 2, 5, 6, 3
OPTIONS = dict(latent=LATENT, width=WIDTH, base=BASE, attention=4)
# The paper's epsilon of 1e-8 turns a gradient that is 0 but for rounding into a whole step of either sign.
SLOW, FAST = ({**optimiser, "eps": 1e-3} for optimiser in (sagan.SLOW, sagan.FAST))


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="module")
def batch():
    images = jax.random.uniform(jax.random.key(7), (BATCH, *SHAPE))
    return {"image": images, "label": jnp.array([0, 2, 1, 1, 0, 2])}


@pytest.fixture(scope="module")
def system(batch):
    """(recipe, initial state with attention switched on, compiled train step)."""
    recipe = sagan.recipe(SHAPE, CLASSES, **OPTIONS, generator_optimiser=SLOW, discriminator_optimiser=FAST)
    state = jax.jit(recipe.init)(jax.random.key(0), batch)

    def awake(path, leaf):  # tables of 1 and 0 and a gamma of 0 would hide mistakes
        name = jax.tree_util.keystr(path)
        moved = any(part in name for part in ("gamma", "scale", "shift"))
        return leaf + 0.5 * jnp.sin(1.0 + jnp.arange(leaf.size).reshape(leaf.shape)) if moved else leaf

    state = state.replace(params=jax.tree_util.tree_map_with_path(awake, state.params))
    return recipe, state, jax.jit(recipe.train_step)


@pytest.mark.parity
def test_three_training_steps_are_torchs(torch, system, batch):
    """One power iteration of each network a step: the discriminator's in its own step, over both batches together."""
    import torch_sagan  # which needs torch

    _, state, step = system
    generator = torch_sagan.Generator(LATENT, WIDTH, BASE, CLASSES)
    discriminator = torch_sagan.Discriminator(WIDTH, CLASSES)
    torch_sagan.carry_across(state, generator, discriminator)
    g_adam = torch.optim.Adam(generator.parameters(), 1e-4, (0.0, 0.9), eps=1e-3)
    d_adam = torch.optim.Adam(discriminator.parameters(), 4e-4, (0.0, 0.9), eps=1e-3)
    real = torch.tensor(np.asarray(2 * batch["image"] - 1)).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(np.asarray(batch["label"]), dtype=torch.long)
    for index in range(3):
        key = jax.random.key(index)
        z = torch.tensor(np.asarray(jax.random.normal(jax.random.split(key, 4)[0], (BATCH, LATENT))))
        fake = generator(z, labels)
        d_adam.zero_grad()
        logits = discriminator(torch.cat([real, fake.detach()]), torch.cat([labels, labels]))
        d_loss = torch.relu(1 - logits[:BATCH]).mean() + torch.relu(1 + logits[BATCH:]).mean()
        d_loss.backward()
        d_adam.step()
        g_adam.zero_grad()
        g_loss = -without_tracking(torch, discriminator, fake, labels).mean()
        g_loss.backward()
        g_adam.step()
        state, metrics = step(state, batch, key)
        np.testing.assert_allclose(metrics["loss/discriminator"], d_loss.item(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["loss/generator"], g_loss.item(), rtol=1e-3, atol=1e-4)
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        ours, block = state.params[name], f"{name.capitalize()}Block_1"
        started = system[1].params[name][block]["Conv_0"]["kernel"]
        assert np.abs(ours[block]["Conv_0"]["kernel"] - started).max() > 1e-4  # five times the tolerance
        kernel = np.asarray(ours[block]["Conv_0"]["kernel"]).transpose(CONVOLVED)
        np.testing.assert_allclose(kernel, network.blocks[1].convs[0].weight_orig.detach(), atol=2e-5)
        for part in "fv":
            kernel = np.asarray(ours["SelfAttention_0"][part]["kernel"]).transpose(CONVOLVED)
            np.testing.assert_allclose(kernel, getattr(network.attention, part).weight_orig.detach(), atol=2e-5)
        np.testing.assert_allclose(ours["SelfAttention_0"]["gamma"], network.attention.gamma.item(), atol=2e-5)
        (u,) = [v for k, v in state.stats[name][block]["SpectralNorm_0"].items() if k[-1] == "u"]
        np.testing.assert_allclose(u[0], network.blocks[1].convs[0].weight_u, atol=1e-4)
    table = state.params["generator"]["GeneratorBlock_0"]["ConditionalBatchNorm_1"]["shift"]["embedding"]
    np.testing.assert_allclose(table, generator.blocks[0].norms[1].shift.weight.detach(), atol=2e-5)
    table = state.params["discriminator"]["projection"]["embedding"]
    np.testing.assert_allclose(table, discriminator.projection.weight_orig.detach(), atol=2e-5)


def test_every_kernel_of_both_networks_is_normalised_and_no_other_table(system):
    for name, params in system[1].params.items():
        kernels = [path for path, _ in jax.tree_util.tree_leaves_with_path(params) if "kernel" in str(path[-1])]
        stats = system[1].stats[name]
        kept = [str(path[-1]) for path, _ in jax.tree_util.tree_leaves_with_path(stats) if "/u" in str(path[-1])]
        assert len(kept) == len(kernels) + (name == "discriminator")  # its projection
        assert not any("scale" in key or "shift" in key for key in kept)


def test_each_network_iterates_in_its_own_step_alone(system, batch):
    """The generator's second forward pass and the discriminator's pass in the generator's step leave no trace."""
    _, state, step = system
    after, _ = step(state, batch, jax.random.key(0))
    for name, network in (
        ("generator", sagan.Generator(SHAPE, WIDTH, 2, 4, CLASSES)),
        ("discriminator", sagan.Discriminator(SHAPE, WIDTH, 2, 4, CLASSES)),
    ):
        variables = {"params": state.params[name], "batch_stats": state.stats[name]}
        z = jax.random.normal(jax.random.split(jax.random.key(0), 4)[0], (BATCH, LATENT))
        inputs = z if name == "generator" else batch["image"]
        _, once = network.apply(variables, inputs, batch["label"], train=True, mutable=["batch_stats"])
        for (path, ours), expected in zip(
            jax.tree_util.tree_leaves_with_path(after.stats[name]),
            jax.tree.leaves(once["batch_stats"]),
            strict=True,
        ):
            if "/u" in str(path[-1]):
                np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_projection_adds_the_classs_share(system, batch):
    """logit(x, y) - logit(x, y') is the difference of their embeddings, by the sum of the features."""
    _, state, _ = system
    network = sagan.Discriminator(SHAPE, WIDTH, 2, 4, CLASSES)
    variables = {"params": state.params["discriminator"], "batch_stats": state.stats["discriminator"]}
    logits = [network.apply(variables, batch["image"], jnp.full(BATCH, label)) for label in range(CLASSES)]
    without = jax.tree.map(jnp.copy, variables)
    table = without["params"]["projection"]["embedding"]
    without["params"]["projection"]["embedding"] = table.at[1].set(table[0])  # changes the norm that divides it
    same = [network.apply(without, batch["image"], jnp.full(BATCH, label)) for label in (0, 1)]
    np.testing.assert_allclose(same[0], same[1], atol=1e-6)
    assert np.abs(logits[0] - logits[1]).min() > 1e-4


def test_attention_is_where_it_is_told_to_be():
    image, z = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 5))
    for attention in (0, 4, 8):
        for net, inputs in ((sagan.Generator, z), (sagan.Discriminator, image)):
            made = net((16, 16, 3), 8, 2, attention)
            params = jax.eval_shape(made.init, jax.random.key(0), inputs)["params"]
            found = [layer for name, layer in params.items() if "SelfAttention" in name]
            assert len(found) == bool(attention)
            if attention:  # channels at that size: 16 or 8 in the generator's blocks, the reverse going down
                channels = {4: 32, 8: 16} if net is sagan.Generator else {8: 8, 4: 16}
                assert found[0]["v"]["kernel"].shape[-1] == channels[attention]
    for attention in (2, 16, 5):
        with pytest.raises(UserError, match=r"attention=\d+: no feature maps of that size; .* one of \[4, 8\]"):
            sagan.recipe((16, 16, 3), base=2, attention=attention)


def test_without_classes_there_is_no_table():
    params = jax.eval_shape(sagan.Discriminator(SHAPE, WIDTH, 2, 4).init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    assert "projection" not in params["params"]
    params = jax.eval_shape(sagan.Generator(SHAPE, WIDTH, 2, 4).init, jax.random.key(0), jnp.zeros((1, LATENT)))
    assert "scale" in params["params"]["GeneratorBlock_0"]["ConditionalBatchNorm_0"]["BatchNorm_0"]


def test_defaults_are_the_papers():
    values = {name: parameter.default for name, parameter in inspect.signature(sagan.recipe).parameters.items()}
    assert values["generator_optimiser"] == {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}
    assert values["discriminator_optimiser"] == {"name": "adam", "learning_rate": 4e-4, "b1": 0.0, "b2": 0.9}
    assert values["training"].discriminator_steps == values["training"].generator_steps == 1
