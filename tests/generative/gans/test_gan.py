"""DCGAN against torch: both networks and whole training steps; what its pictures must keep to; dense networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_gan import BATCH, CONVOLVED, LATENT, SHAPE, TRANSPOSED, WIDTH, carry_across, networks, without_tracking

from cvjax import core
from cvjax.errors import UserError
from cvjax.generative.gans import gan
from cvjax.losses.strategies import Training


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


def latents(key):
    """Those that a training step with this key draws."""
    return jax.random.uniform(jax.random.split(key, 4)[0], (BATCH, LATENT), minval=-1.0, maxval=1.0)


def make_recipe(**options):
    return gan.recipe(shape=SHAPE, latent=LATENT, width=WIDTH, kernel=4, **options)


def randomise_statistics(state):
    """Moves the running statistics away from 0 and 1, where mistakes in them would not show."""
    return state.replace(stats=jax.tree.map(lambda leaf: leaf + jnp.linspace(0.1, 0.7, leaf.size), state.stats))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(7), (BATCH, *SHAPE))


@pytest.fixture(scope="module")
def system(images):
    """(recipe, initial state, compiled train step)."""
    recipe = make_recipe(training=Training(real_label=0.9, ema=0.15))
    return recipe, jax.jit(recipe.init)(jax.random.key(0), {"image": images}), jax.jit(recipe.train_step)


@pytest.mark.parity
@pytest.mark.parametrize("kernel", [4, 5])
def test_networks_are_torchs(torch, images, kernel):
    recipe = gan.recipe(shape=SHAPE, latent=LATENT, width=WIDTH, kernel=kernel)
    state = randomise_statistics(jax.jit(recipe.init)(jax.random.key(0), {"image": images}))
    generator, discriminator = networks(torch, kernel)
    carry_across(torch, state, generator, discriminator)
    z = jax.random.uniform(jax.random.key(2), (BATCH, LATENT), minval=-1.0)
    variables = {name: core.variables(state, name, averaged=False) for name in state.params}
    ours = jax.jit(gan.Generator(SHAPE, WIDTH, kernel).apply)(variables["generator"], z)
    theirs = generator.eval()(torch.tensor(np.asarray(z))).detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(2 * ours - 1, theirs, atol=1e-5)  # float32, three layers
    ours = jax.jit(gan.Discriminator(SHAPE, WIDTH, kernel).apply)(variables["discriminator"], images)
    theirs = (
        discriminator.eval()(torch.tensor(np.asarray(2 * images - 1)).permute(0, 3, 1, 2).contiguous()).detach().numpy()
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parity
def test_three_training_steps_are_torchs(torch, system, images):
    """Same weights, same z: after three steps of both networks, losses and weights agree, BN statistics too."""
    _, state, step = system
    batch = {"image": images}
    generator, discriminator = networks(torch)
    carry_across(torch, state, generator, discriminator)
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (generator, discriminator))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    real = torch.tensor(np.asarray(2 * images - 1)).permute(0, 3, 1, 2).contiguous()
    for index in range(3):
        key = jax.random.key(index)
        z = torch.tensor(np.asarray(latents(key)))
        fake = generator(z)
        d_adam.zero_grad()
        real_logits = discriminator(real)
        fake_logits = discriminator(fake.detach())
        d_loss = entropy(real_logits, torch.full((BATCH,), 0.9)) + entropy(fake_logits, torch.zeros(BATCH))
        d_loss.backward()
        d_adam.step()
        g_adam.zero_grad()
        g_loss = entropy(without_tracking(torch, discriminator, fake), torch.ones(BATCH))
        g_loss.backward()
        g_adam.step()
        state, metrics = step(state, batch, key)
        np.testing.assert_allclose(metrics["loss/discriminator"], d_loss.item(), rtol=1e-4)
        np.testing.assert_allclose(metrics["loss/generator"], g_loss.item(), rtol=1e-4)
    kernel = np.asarray(state.params["generator"]["ConvTranspose_0"]["kernel"]).transpose(TRANSPOSED)
    np.testing.assert_allclose(kernel, generator.net[2].weight.detach(), atol=2e-5)  # a tenth of one Adam step
    kernel = np.asarray(state.params["discriminator"]["Conv_1"]["kernel"]).transpose(CONVOLVED)
    np.testing.assert_allclose(kernel, discriminator.net[2].weight.detach(), atol=2e-5)
    ours = state.stats["discriminator"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(ours, discriminator.net[3].running_mean, rtol=1e-3, atol=1e-6)


def test_no_normalisation_on_the_generators_output_and_the_discriminators_input(system):
    params = system[1].params
    widths = [layer["scale"].shape[0] for name, layer in params["generator"].items() if "BatchNorm" in name]
    assert sorted(widths) == [WIDTH, 2 * WIDTH]
    widths = [layer["scale"].shape[0] for name, layer in params["discriminator"].items() if "BatchNorm" in name]
    assert widths == [2 * WIDTH]
    assert "bias" in params["generator"]["ConvTranspose_1"] and "bias" not in params["generator"]["ConvTranspose_0"]


def test_initial_weights_are_the_papers():
    init = jax.jit(gan.recipe(shape=(32, 32, 3), width=32).init)
    state = init(jax.random.key(0), {"image": jnp.zeros((2, 32, 32, 3))})
    for network in state.params.values():
        for layer in network.values():
            if "kernel" in layer and layer["kernel"].size > 5000:
                assert abs(layer["kernel"].mean()) < 1e-3
                assert layer["kernel"].std() == pytest.approx(0.02, rel=0.05)
            if "scale" in layer and layer["scale"].size >= 64:
                assert layer["scale"].mean() == pytest.approx(1.0, abs=0.01)
                assert layer["scale"].std() == pytest.approx(0.02, rel=0.4)


def test_real_and_generated_images_are_batches_of_their_own_for_the_discriminator(system, images):
    _, state, step = system
    key = jax.random.key(3)
    z = latents(key)
    variables = {name: core.variables(state, name, averaged=False) for name in state.params}
    fake, _ = gan.Generator(SHAPE, WIDTH, 4).apply(variables["generator"], z, train=True, mutable=["batch_stats"])
    first_layer = variables["discriminator"]["params"]["Conv_0"], variables["discriminator"]["params"]["Conv_1"]
    mean = np.zeros(2 * WIDTH)
    for inputs in (images, fake):
        mean = 0.9 * mean + 0.1 * second_convolution(first_layer, np.asarray(inputs)).mean(axis=(0, 1, 2))
    state, _ = step(state, {"image": images}, key)
    ours = state.stats["discriminator"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(ours, mean, atol=1e-6)


def second_convolution(layers, images):
    """The discriminator up to its first normalisation, by plain lax convolutions."""
    first, second = layers
    options = dict(padding=((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.lax.conv_general_dilated(2 * images - 1, first["kernel"], (2, 2), **options) + first["bias"]
    return jax.lax.conv_general_dilated(jnp.where(x > 0, x, 0.2 * x), second["kernel"], (2, 2), **options)


def test_samples_are_of_the_averaged_generator_with_averaged_statistics(system, images):
    recipe, state, step = system

    def variables(state):
        return {"params": state.params["generator"], "batch_stats": state.stats["generator"]}

    average = variables(state)
    for index, kept in enumerate([1 / 10, 0.15, 0.15]):  # the first is below .15, the later ones (2/11, 3/12) above
        state, _ = step(state, {"image": images}, jax.random.key(index))
        average = jax.tree.map(lambda a, p, k=kept: k * a + (1 - k) * p, average, variables(state))
    for ours, expected in zip(jax.tree.leaves(state.average["generator"]), jax.tree.leaves(average), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    average = jax.tree.map(lambda leaf: leaf + 0.3, average)  # far from the raw generator
    state = state.replace(average={"generator": average})
    drawn = recipe.sample(state, jax.random.key(9), {"count": 5})["image"]
    z = jax.random.uniform(jax.random.key(9), (5, LATENT), minval=-1.0, maxval=1.0)
    np.testing.assert_allclose(drawn, jax.jit(gan.Generator(SHAPE, WIDTH, 4).apply)(average, z), atol=1e-5)
    raw = jax.jit(gan.Generator(SHAPE, WIDTH, 4).apply)(variables(state), z)
    assert np.abs(drawn - raw).max() > 0.1


def test_predict_gives_the_discriminators_logits_by_its_running_statistics(system, images):
    recipe, state, _ = system
    state = randomise_statistics(state)
    expected = gan.Discriminator(SHAPE, WIDTH, 4).apply(core.variables(state, "discriminator"), images)
    outputs = recipe.predict(state, {"image": images}, jax.random.key(0))
    np.testing.assert_allclose(outputs["logit"], expected, atol=1e-5)  # float32
    alone = recipe.predict(state, {"image": images[:1]}, jax.random.key(0))  # each image by itself
    np.testing.assert_allclose(alone["logit"], expected[:1], atol=1e-5)


def test_sizes_that_cannot_be_doubled_to_are_refused():
    for shape in [(28, 28, 1), (4, 4, 1), (16, 32, 3)]:
        with pytest.raises(UserError, match="8, 16, 32"):
            gan.recipe(shape=shape)


# Conditional and dense networks.


def test_maxout_is_the_largest_of_each_units_maps():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    ours, variables = gan.Maxout(features=5, pieces=2).init_with_output(jax.random.key(1), x)
    kernel, bias = (np.asarray(variables["params"]["Dense_0"][name]) for name in ("kernel", "bias"))
    for unit in range(5):
        maps = [np.asarray(x) @ kernel[:, 2 * unit + piece] + bias[2 * unit + piece] for piece in range(2)]
        np.testing.assert_allclose(ours[:, unit], np.maximum(*maps), atol=1e-6)


def test_the_papers_layers():
    """Units as in the papers' sections on MNIST; nothing is computed."""
    z, image, label = jnp.zeros((1, 100)), jnp.zeros((1, 28, 28, 1)), jnp.zeros(1, jnp.int32)

    def kernels(net, *inputs):
        params = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
        return sorted(leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) == 2)

    assert kernels(gan.DenseGenerator((28, 28, 1)), z) == [(100, 1200), (1200, 784), (1200, 1200)]
    of_class = kernels(gan.DenseGenerator((28, 28, 1), classes=10), z, label)
    assert of_class == [(10, 1000), (100, 200), (1200, 784), (1200, 1200)]
    assert kernels(gan.DenseDiscriminator(), image) == [(240, 1), (240, 240 * 5), (784, 240 * 5)]
    of_class = kernels(gan.DenseDiscriminator(classes=10), image, label)
    assert of_class == [(10, 50 * 5), (240, 1), (240 + 50, 240 * 4), (784, 240 * 5)]


def test_dropout_is_the_discriminators_while_training():
    image = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    net = gan.DenseDiscriminator(hidden=32)
    variables = net.init(jax.random.key(1), image)
    logits = [net.apply(variables, image, train=True, rngs={"dropout": jax.random.key(n)}) for n in (2, 3)]
    assert np.abs(logits[0] - logits[1]).min() > 0
    np.testing.assert_array_equal(net.apply(variables, image), net.apply(variables, image))
    pixels = gan.DenseGenerator((8, 8, 1), hidden=12).init_with_output(jax.random.key(1), jnp.ones((2, 4)))[0]
    assert pixels.shape == (2, 8, 8, 1) and pixels.min() > 0 and pixels.max() < 1


@pytest.mark.parametrize(
    "generator, discriminator",
    [
        (gan.Generator((8, 8, 1), 4, 4, 2, 3), gan.Discriminator((8, 8, 1), 4, 4, 2, 3)),
        (gan.DenseGenerator((8, 8, 1), 12, 3), gan.DenseDiscriminator(24, classes=3)),
    ],
    ids=["convolutional", "dense"],
)
def test_labels_reach_both_networks(generator, discriminator):
    z, labels = jnp.ones((3, 5)), jnp.arange(3)
    images, _ = generator.init_with_output(jax.random.key(0), z, labels)
    assert np.abs(images[0] - images[1]).max() > 0 and np.abs(images[1] - images[2]).max() > 0
    same = jnp.broadcast_to(images[:1], images.shape)
    logits, _ = discriminator.init_with_output(jax.random.key(1), same, labels)
    assert len(np.unique(np.asarray(logits))) == 3
