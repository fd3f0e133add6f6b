"""The variational autoencoder's arithmetic against distributions that others wrote, and its recipe on real digits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cvjax import data
from cvjax.errors import UserError
from cvjax.generative.autoencoders import likelihoods, vae


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(data.arrays("digits", "test")["image"][:16])


def test_kl_is_that_of_torch_distributions():
    torch = pytest.importorskip("torch")
    mean, log_variance = jax.random.normal(jax.random.key(0), (2, 5, 3))
    deviation = np.exp(log_variance / 2)
    posterior = torch.distributions.Normal(torch.tensor(np.asarray(mean)), torch.tensor(deviation))
    prior = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(posterior, prior).numpy()
    np.testing.assert_allclose(vae.gaussian_kl(mean, log_variance), expected, rtol=1e-5, atol=1e-6)  # float32


def test_bernoulli_likelihood_is_scipys(images):
    binary = jnp.round(images)
    logits = jax.random.normal(jax.random.key(1), (*images.shape, 1))
    expected = scipy.stats.bernoulli.logpmf(binary, scipy.special.expit(logits[..., 0])).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(likelihoods.log_likelihood("bernoulli", logits, binary, 2), expected, rtol=1e-5)


def test_categorical_likelihood_is_brute_force(images):
    logits = jax.random.normal(jax.random.key(2), (*images.shape, 17))
    levels = np.rint(images * 16).astype(int)
    expected = np.zeros(len(images))
    for index in np.ndindex(images.shape):
        pixel = np.asarray(logits[index], np.float64)
        expected[index[0]] += pixel[levels[index]] - np.log(np.exp(pixel).sum())
    np.testing.assert_allclose(likelihoods.log_likelihood("categorical", logits, images, 17), expected, rtol=1e-5)


def test_gaussian_likelihood_is_scipys_with_a_grey_level_one_unit_wide(images):
    outputs = jax.random.normal(jax.random.key(3), (*images.shape, 2))
    deviation = np.exp(outputs[..., 1] / 2)
    expected = scipy.stats.norm.logpdf(16 * images, 16 * outputs[..., 0], 16 * deviation).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(likelihoods.log_likelihood("gaussian", outputs, images, 17), expected, rtol=1e-4)


def test_dequantised_images_round_back(images):
    noisy = likelihoods.dequantise(jax.random.key(0), images, 17)
    np.testing.assert_array_equal(np.rint(noisy * 16), np.rint(images * 16))
    assert np.abs(noisy - images).max() * 16 > 0.45


def test_importance_bound_is_exact_with_the_true_posterior_and_converges_without():
    # z ~ N(0, 1), x | z ~ N(z, 1): x ~ N(0, sqrt 2), z | x ~ N(x / 2, sqrt .5).
    x, generator = 1.3, np.random.default_rng(4)
    evidence = scipy.stats.norm.logpdf(x, 0, math.sqrt(2))

    def log_weights(mean, deviation, samples):
        z = generator.normal(mean, deviation, size=(samples, 1))
        joint = scipy.stats.norm.logpdf(z) + scipy.stats.norm.logpdf(x, z)
        return jnp.asarray(joint - scipy.stats.norm.logpdf(z, mean, deviation))

    np.testing.assert_allclose(vae.importance_bound(log_weights(x / 2, math.sqrt(0.5), 3)), evidence, atol=1e-5)
    loose = log_weights(0.0, 1.0, 200_000)
    assert loose.mean() < evidence - 0.3
    np.testing.assert_allclose(vae.importance_bound(loose), evidence, atol=0.02)  # Monte Carlo error of 200,000 samples


def test_bounds_are_exact_with_the_true_posterior_and_apart_by_the_divergence_without():
    # As above, of images of one number; the plain bound has 10 samples, so many images share its Monte Carlo error.
    x = jnp.asarray(np.random.default_rng(5).normal(0, math.sqrt(2), 2000), jnp.float32)
    evidence = scipy.stats.norm.logpdf(x, 0, math.sqrt(2))

    def log_p_x(z):
        return jax.scipy.stats.norm.logpdf(x, z[:, 0])

    means, log_variance = x[:, None] / 2, jnp.full((2000, 1), math.log(0.5))
    plain, tight = vae.bounds(jax.random.key(0), log_p_x, means, log_variance, 100).T
    np.testing.assert_allclose(tight, evidence, atol=1e-5)  # float32
    np.testing.assert_allclose((plain - evidence).mean(), 0, atol=0.02)  # 20,000 samples
    plain, tight = vae.bounds(jax.random.key(1), log_p_x, jnp.zeros((2000, 1)), jnp.zeros((2000, 1)), 100).T
    # The gap is the divergence of N(0, 1) from N(x / 2, .5): log(s2 / s1) + (s1^2 + d^2) / (2 s2^2) - 1 / 2.
    divergence = 0.5 * math.log(0.5) + 1 + np.square(x / 2) - 0.5
    np.testing.assert_allclose((evidence - plain).mean(), divergence.mean(), atol=0.05)
    assert (plain.mean() < tight.mean()) and (tight.mean() < evidence.mean() + 0.01)


@pytest.mark.parametrize("likelihood, outputs", [("bernoulli", 1), ("categorical", 17), ("gaussian", 2)])
def test_expected_image_is_in_range(likelihood, outputs):
    mean = likelihoods.expected_image(likelihood, jax.random.normal(jax.random.key(0), (2, 8, 8, 1, outputs)) * 3)
    assert mean.shape == (2, 8, 8, 1)
    assert mean.min() >= 0 and mean.max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        dict(likelihood="categorical", levels=17, latent=4, hidden=(32,), dropout=0.1),
        dict(likelihood="bernoulli", binarise=True, latent=4, hidden=(8, 16), convolutional=True),
        dict(likelihood="gaussian", levels=17, latent=4, hidden=(32,), beta=4.0),
    ],
    ids=["categorical", "bernoulli-convolutional", "gaussian-beta"],
)
def test_training_lowers_the_bound_and_figures_are_consistent(images, options):
    fast = dict(name="adam", learning_rate=1e-2)
    recipe = vae.recipe(shape=(8, 8, 1), importance_samples=10, optimiser=fast, **options)
    batch = {"image": images}
    state = jax.jit(recipe.init)(jax.random.key(0), batch)
    step, losses = jax.jit(recipe.train_step), []
    for index in range(40):
        state, metrics = step(state, batch, jax.random.key(index))
        losses.append(float(metrics["loss/total"]))
        expected = metrics["loss/reconstruction"] + options.get("beta", 1.0) * metrics["loss/kl"]
        np.testing.assert_allclose(metrics["loss/total"], expected, rtol=1e-5)
    assert int(state.step) == 40
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    outputs = jax.jit(recipe.eval_step)(state, batch, jax.random.key(1))
    figures = recipe.score([(batch, outputs)])
    assert figures["iwae_gain"] == pytest.approx(figures["bits_per_dim"] - figures["iwae_bits_per_dim"], abs=1e-6)
    assert figures["active_units"] <= 4
    assert figures["kl"] == pytest.approx(float(outputs["divergence"].sum(axis=1).mean()), rel=1e-5)
    assert recipe.predict(state, batch, jax.random.key(1))["image"].shape == images.shape
    samples = recipe.sample(state, jax.random.key(2), {"count": 3})["image"]
    assert samples.shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(samples, recipe.sample(state, jax.random.key(2), {"count": 3})["image"])


def test_loss_sums_over_pixels_and_latents_and_averages_over_the_batch(images):
    recipe = vae.recipe(shape=(8, 8, 1), latent=3, hidden=(16,), likelihood="categorical", levels=17)
    batch, key = {"image": images}, jax.random.key(5)
    state = jax.jit(recipe.init)(jax.random.key(0), batch)
    mean, log_variance = jax.jit(vae.Encoder(3, (16,)).apply)({"params": state.params["encoder"]}, images)
    noise = jax.random.normal(jax.random.split(key, 4)[1], mean.shape)
    decoder = vae.Decoder((8, 8, 1), 17, (16,))
    logits = jax.jit(decoder.apply)({"params": state.params["decoder"]}, mean + np.exp(log_variance / 2) * noise)
    chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.rint(images * 16).astype(int)[..., None], -1)
    divergence = scipy.stats.norm.entropy(0, np.exp(log_variance / 2))  # KL = cross-entropy - entropy
    cross = 0.5 * (math.log(2 * math.pi) + np.exp(log_variance) + mean**2)
    expected = (-chosen.sum() + (cross - divergence).sum()) / len(images)
    _, metrics = jax.jit(recipe.train_step)(state, batch, key)
    np.testing.assert_allclose(metrics["loss/total"], expected, rtol=1e-5)


def test_latent_space_is_shown(images):
    recipe = vae.recipe(shape=(8, 8, 1), latent=3, hidden=(16,), importance_samples=10)
    batch = {"image": images, "label": jnp.arange(16) % 10, "valid": jnp.ones(16, bool)}
    state = recipe.init(jax.random.key(0), batch)
    shown = recipe.visualise(state, batch, jax.random.key(1))
    assert set(shown) == {"reconstructions", "samples", "interpolations", "traversals", "latent_map"}
    assert shown["traversals"].shape == (3 * 50, 9 * 50, 1)
    # The ends of the first interpolation are the reconstructions of the first and the ninth image.
    ends = [shown["interpolations"][1:49:6, side : side + 48 : 6] for side in (1, 8 * 50 + 1)]
    both = recipe.predict(state, {"image": images}, jax.random.key(1))["image"][np.array([0, 8])]
    np.testing.assert_allclose(np.stack(ends), both, atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="levels=1"):
        vae.recipe(shape=(8, 8, 1), levels=1)
    with pytest.raises(UserError, match=r"shape=\(9, 9, 1\)"):
        vae.recipe(shape=(9, 9, 1), convolutional=True)
    with pytest.raises(UserError, match=r"hidden=\(\)"):
        vae.recipe(shape=(8, 8, 1), convolutional=True, hidden=())
    with pytest.raises(UserError, match=r"binarise=True.*not 'gaussian'"):
        vae.recipe(shape=(8, 8, 1), likelihood="gaussian", binarise=True)
    with pytest.raises(UserError, match=r"the images are \(8, 8, 1\)"):
        vae.recipe(shape=(16, 16, 1)).init(jax.random.key(0), {"image": jnp.zeros((2, 8, 8, 1))})
