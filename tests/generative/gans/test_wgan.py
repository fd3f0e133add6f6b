"""WGAN and WGAN-GP against torch: whole training steps, five of the critic to one of the generator; clipping."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_gan import BATCH, CONVOLVED, LATENT, SHAPE, TRANSPOSED, WIDTH, carry_across, networks

from cvjax.config import _recipe_arguments
from cvjax.generative.gans import wgan

CRITIC_STEPS = 5
# The papers' epsilon of 1e-8 turns a gradient that is 0 but for rounding into a whole step of either sign.
ADAM = {**wgan.ADAM, "eps": 1e-3}


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


def make(**options):
    return wgan.recipe(SHAPE, latent=LATENT, width=WIDTH, kernel=4, **options)


@pytest.fixture(scope="module")
def batch():
    return {"image": jax.random.uniform(jax.random.key(7), (CRITIC_STEPS * BATCH, *SHAPE))}


@pytest.mark.parity
def test_two_training_steps_under_the_penalty_are_torchs(torch, batch):
    """Critic steps on parts of the batch, double backward, one number an image; then the generator, fresh latents."""
    recipe = make(generator_optimiser=ADAM, discriminator_optimiser=ADAM)
    start = state = jax.jit(recipe.init)(jax.random.key(0), batch)
    step = jax.jit(recipe.train_step)
    generator, critic = networks(torch, normalise=False)
    carry_across(torch, state, generator, critic)
    adams = [torch.optim.Adam(net.parameters(), 1e-4, (0.0, 0.9), eps=1e-3) for net in (generator, critic)]
    parts = torch.tensor(np.asarray(2 * batch["image"] - 1)).permute(0, 3, 1, 2).contiguous().split(BATCH)
    for index in range(2):
        key = jax.random.key(index)
        latent_key, _, critic_key, _ = jax.random.split(key, 4)
        z = torch.tensor(np.asarray(jax.random.normal(latent_key, (CRITIC_STEPS * BATCH, LATENT)))).split(BATCH)
        for real, latents, part_key in zip(parts, z, jax.random.split(critic_key, CRITIC_STEPS), strict=True):
            with torch.no_grad():
                fake = generator(latents)
            share = torch.tensor(np.asarray(jax.random.uniform(jax.random.split(part_key, 6)[5], (BATCH, 1, 1, 1))))
            mixed = (share * real + (1 - share) * fake).requires_grad_(True)
            (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
            norms = slope.flatten(1).norm(dim=1)
            adams[1].zero_grad()
            loss = critic(fake).mean() - critic(real).mean() + 10 * ((norms - 1) ** 2).mean()
            loss.backward()
            adams[1].step()
        fresh = jax.random.normal(jax.random.fold_in(latent_key, 1), (BATCH, LATENT))
        adams[0].zero_grad()
        g_loss = -critic(generator(torch.tensor(np.asarray(fresh)))).mean()
        g_loss.backward()
        adams[0].step()
        state, metrics = step(state, batch, key)
        np.testing.assert_allclose(metrics["loss/discriminator"], loss.item(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(metrics["gradient/norm"], norms.mean().item(), rtol=1e-4)
        np.testing.assert_allclose(metrics["loss/generator"], g_loss.item(), rtol=1e-3, atol=1e-4)
    for name, layer in (("Conv_0", critic.net[0]), ("Conv_1", critic.net[2])):
        kernel = np.asarray(state.params["discriminator"][name]["kernel"]).transpose(CONVOLVED)
        np.testing.assert_allclose(kernel, layer.weight.detach(), atol=1e-5)  # a tenth of one step; there were ten
    before, kernel = (np.asarray(s.params["generator"]["ConvTranspose_0"]["kernel"]) for s in (start, state))
    np.testing.assert_allclose(kernel.transpose(TRANSPOSED), generator.net[2].weight.detach(), atol=1e-5)
    assert np.abs(kernel - before).max() > 5e-5  # it has been trained


@pytest.mark.parity
def test_a_training_step_with_clipping_is_torchs(torch, batch):
    recipe = make(constraint="clipping")
    state = jax.jit(recipe.init)(jax.random.key(0), batch)
    generator, critic = networks(torch)
    carry_across(torch, state, generator, critic)
    rms, generator_rms = (torch.optim.RMSprop(net.parameters(), 5e-5) for net in (critic, generator))
    key = jax.random.key(3)
    z = torch.tensor(np.asarray(jax.random.normal(jax.random.split(key, 4)[0], (CRITIC_STEPS * BATCH, LATENT))))
    parts = torch.tensor(np.asarray(2 * batch["image"] - 1)).permute(0, 3, 1, 2).contiguous().split(BATCH)
    for real, latents in zip(parts, z.split(BATCH), strict=True):
        with torch.no_grad():
            fake = generator(latents)
        rms.zero_grad()
        loss = critic(fake).mean() - critic(real).mean()
        loss.backward()
        rms.step()
        with torch.no_grad():
            for weights in critic.parameters():
                weights.clamp_(-0.01, 0.01)
    fresh = jax.random.normal(jax.random.fold_in(jax.random.split(key, 4)[0], 1), (BATCH, LATENT))
    generator_loss = -critic(generator(torch.tensor(np.asarray(fresh)))).mean()
    generator_rms.zero_grad()
    generator_loss.backward()
    generator_rms.step()
    start = state
    state, metrics = jax.jit(recipe.train_step)(state, batch, key)
    np.testing.assert_allclose(metrics["loss/discriminator"], loss.item(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(metrics["loss/generator"], generator_loss.item(), rtol=1e-3, atol=1e-6)
    leaves = jax.tree.leaves(state.params["discriminator"])
    assert all(np.abs(leaf).max() <= np.float32(0.01) for leaf in leaves)
    # RMSProp's first steps are ten times its rate; where a gradient is nearly 0 its sign is chance
    for name, layer, order, theirs in (
        ("discriminator", "Conv_0", CONVOLVED, critic.net[0]),
        ("generator", "ConvTranspose_0", TRANSPOSED, generator.net[2]),
    ):
        before, kernel = (np.asarray(s.params[name][layer]["kernel"]).transpose(order) for s in (start, state))
        wrong = np.abs(kernel - theirs.weight.detach().numpy()) > 5e-5
        assert wrong.mean() < 0.02 and (np.abs(kernel - before) > 2.5e-4).mean() > 0.9


def test_under_the_penalty_the_critic_has_no_batch_normalisation(batch):
    for constraint, found in [("penalty", False), ("clipping", True)]:
        state = jax.eval_shape(make(constraint=constraint).init, jax.random.key(0), batch)
        assert any("BatchNorm" in name for name in state.params["discriminator"]) == found
        assert any("BatchNorm" in name for name in state.params["generator"])


def test_the_gradients_norm_is_a_figure_of_held_out_images(batch):
    """Of the penalty's critic only; the critic acts on each image alone, so padding changes no other row."""
    recipe = make()
    state = jax.jit(recipe.init)(jax.random.key(0), batch)
    evaluate = jax.jit(recipe.eval_step)
    rows = np.asarray(evaluate(state, batch, jax.random.key(1))["gradient_norm"])
    padded = {"image": batch["image"].at[-1].set(0.0)}
    others = evaluate(state, padded, jax.random.key(1))["gradient_norm"]
    assert rows.shape == (len(batch["image"]),) and rows.min() > 0
    np.testing.assert_allclose(rows[:-1], others[:-1], rtol=1e-5)
    halves = [({}, {"gradient_norm": part}) for part in (rows[:7], rows[7:])]
    mean = np.mean(rows, dtype=np.float64)
    assert recipe.score(iter(halves)) == pytest.approx({"gradient_norm": mean, "gradient_error": abs(mean - 1)})
    outputs = jax.eval_shape(make(constraint="clipping").eval_step, *clipped_arguments(batch))
    assert outputs == {}


def clipped_arguments(batch):
    state = jax.eval_shape(make(constraint="clipping").init, jax.random.key(0), batch)
    return state, batch, jax.random.key(1)


def test_defaults_are_the_papers():
    values = {name: parameter.default for name, parameter in inspect.signature(wgan.recipe).parameters.items()}
    assert values["penalty"] == 10 and values["clip"] == 0.01 and values["constraint"] == "penalty"
    assert values["training"].discriminator_steps == 5 and values["training"].generator_steps == 1
    assert wgan.ADAM == {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}
    assert wgan.RMSPROP["name"] == "rmsprop" and wgan.RMSPROP["learning_rate"] == 5e-5


def test_an_optimiser_that_is_left_out_is_the_papers_and_any_other_is_checked():
    arguments = _recipe_arguments("generative.gans.wgan", {"shape": (8, 8, 1), "generator_optimiser": None})
    assert arguments["generator_optimiser"] is None
    with pytest.raises(Exception, match=r"discriminator_optimiser.*'adam'"):
        _recipe_arguments("generative.gans.wgan", {"shape": (8, 8, 1), "discriminator_optimiser": {"name": "adm"}})


def test_labels_reach_critic_and_generator():
    images = {"image": jnp.zeros((10, 8, 8, 1)), "label": jnp.arange(10)}
    recipe = wgan.recipe((8, 8, 1), latent=3, width=4, base=4, kernel=4, classes=10)
    state = jax.jit(recipe.init)(jax.random.key(0), images)
    rows = jax.jit(recipe.eval_step)(state, images, jax.random.key(1))
    assert len(np.unique(np.asarray(rows["gradient_norm"]).round(6))) > 5
    state, metrics = jax.jit(recipe.train_step)(state, images, jax.random.key(2))
    assert all(np.isfinite(value) for value in metrics.values())
