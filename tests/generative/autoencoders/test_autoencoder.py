"""The autoencoder's penalties against jax.jacfwd, NumPy and SciPy, its optimum against PCA, and its recipe."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.decomposition import PCA

from cvjax import data
from cvjax.errors import UserError
from cvjax.generative.autoencoders import autoencoder, penalties
from cvjax.generative.autoencoders.autoencoder import Decoder, Encoder

KEY = jax.random.key(0)
NETS = {
    "deep": Encoder(3, (7, 5), "tanh", "sigmoid"),
    "elu": Encoder(4, (6,), "elu"),
    "convolutional": Encoder(2, (3,), "elu", "tanh", True),
}


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(data.arrays("digits", "test")["image"][:16])


@pytest.mark.parametrize("name", NETS)
def test_jacobian_norm_is_that_of_forward_mode(name, images):
    net, images = NETS[name], images[:3]
    params = net.init(KEY, images)
    encode = functools.partial(net.apply, params)
    forward = jax.jit(jax.vmap(jax.jacfwd(lambda image: encode(image[None])[0])))(images)
    expected = np.square(np.asarray(forward, np.float64)).sum(axis=(1, 2, 3, 4))
    found = jax.jit(functools.partial(penalties.jacobian_norm, encode))(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32, a thousand products
    assert found.shape == (3,) and len(np.unique(found)) == 3


def test_sigmoid_layer_has_the_closed_form_of_the_paper(images):
    net = Encoder(6, code_activation="sigmoid")
    params = net.init(KEY, images)
    kernel, bias = (np.asarray(params["params"]["code"][name], np.float64) for name in ("kernel", "bias"))
    codes = scipy.special.expit(np.asarray(images, np.float64).reshape(16, 64) @ kernel + bias)
    jacobians = (codes * (1 - codes))[:, :, None] * kernel.T  # [image, code, pixel]
    expected = np.square(jacobians).sum(axis=(1, 2))
    found = penalties.sigmoid_jacobian_norm(net.apply(params, images), params["params"]["code"]["kernel"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    general = jax.jit(functools.partial(penalties.jacobian_norm, functools.partial(net.apply, params)))(images)
    np.testing.assert_allclose(general, expected, rtol=1e-5)


def test_rivals_are_given_the_same_noise_and_moments_are_of_clean_codes(images):
    recipe = autoencoder.recipe((8, 8, 1), latent=3, corruption="gaussian", corruption_level=0.5)
    batch = {"image": images}
    state = jax.jit(recipe.init)(jax.random.key(0), batch)
    outputs = jax.jit(recipe.eval_step)(state, batch, jax.random.key(1))
    codes = recipe.predict(state, {"image": outputs["noisy"]}, KEY)
    np.testing.assert_allclose(codes["image"], outputs["denoised"], atol=1e-6)
    assert outputs["noisy"].min() < -0.5 and outputs["noisy"].max() > 1.5
    after, _ = jax.jit(recipe.train_step)(state, batch, jax.random.key(2))
    expected = state.extra["codes"].updated(recipe.predict(state, batch, KEY)["code"], state.step)
    np.testing.assert_allclose(after.extra["codes"].mean, expected.mean, atol=1e-6)


def test_kl_sparsity_is_scipys_entropy_of_coins_and_finite_at_the_ends():
    codes = jax.random.uniform(KEY, (30, 4))
    mean = np.asarray(codes, np.float64).mean(axis=0)
    expected = [scipy.stats.entropy([0.05, 0.95], [share, 1 - share]) for share in mean]
    np.testing.assert_allclose(penalties.kl_sparsity(codes, 0.05), expected, rtol=1e-5)
    np.testing.assert_allclose(penalties.kl_sparsity(jnp.full((2, 3), 0.05), 0.05), 0, atol=1e-7)
    value, slope = jax.value_and_grad(lambda x: penalties.kl_sparsity(x, 0.05).sum())(jnp.array([[0.0, 1.0]]))
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_reconstruction_losses_are_sums_over_pixels(images):
    logits = jax.random.normal(KEY, images.shape)
    x, y = np.asarray(images, np.float64), scipy.special.expit(np.asarray(logits, np.float64))
    expected = -(scipy.special.xlogy(x, y) + scipy.special.xlogy(1 - x, 1 - y)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(autoencoder.cross_entropy(images, logits), expected, rtol=1e-5)
    np.testing.assert_allclose(
        autoencoder.squared_error(images, logits), ((x - np.asarray(logits)) ** 2).sum(axis=(1, 2, 3)) / 2, rtol=1e-5
    )


def test_principal_components_are_its_linear_optimum():
    images = jax.random.uniform(KEY, (50, 4, 4, 1))
    pixels = np.asarray(images).reshape(50, 16)
    pca = PCA(3).fit(pixels)
    theirs = pca.inverse_transform(pca.transform(pixels))
    encoder = {"code": {"kernel": pca.components_.T, "bias": -pca.components_ @ pca.mean_}}
    decoder = {"layer0": {"kernel": pca.components_, "bias": pca.mean_}}

    @jax.jit
    def reconstruct(params):
        codes = Encoder(3).apply({"params": params["encoder"]}, images)
        return Decoder((4, 4, 1)).apply({"params": params["decoder"]}, codes)

    @jax.jit
    def error(params):
        return autoencoder.squared_error(images, reconstruct(params)).mean()

    params = jax.tree.map(jnp.float32, {"encoder": encoder, "decoder": decoder})
    np.testing.assert_allclose(reconstruct(params).reshape(50, 16), theirs, atol=1e-5)  # float32, sums of 16 products
    # A minimum: the gradient vanishes, and steps in random directions only lose.
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(jax.jit(jax.grad(error))(params))) < 1e-6
    for key in jax.random.split(KEY, 5):
        moved = jax.tree.map(lambda leaf, key=key: leaf + 0.05 * jax.random.normal(key, leaf.shape), params)
        assert error(moved) > error(params)


def test_tied_decoder_is_the_transpose(images):
    encoder, decoder = Encoder(5, (9,)), Decoder((8, 8, 1), (9,), tied=True)
    codes, variables = encoder.init_with_output(KEY, images)
    kernels = autoencoder.encoder_kernels(variables["params"])
    assert [kernel.shape for kernel in kernels] == [(64, 9), (9, 5)]
    params = decoder.init(KEY, codes, kernels)["params"]
    assert {name: value.shape for name, value in params.items()} == {"bias0": (64,), "bias1": (9,)}
    params = {"bias0": params["bias0"] + 0.3, "bias1": params["bias1"] - 0.1}
    hidden = np.maximum(np.asarray(codes) @ np.asarray(kernels[1]).T - 0.1, 0)
    expected = (hidden @ np.asarray(kernels[0]).T + 0.3).reshape(images.shape)
    np.testing.assert_allclose(decoder.apply({"params": params}, codes, kernels), expected, atol=1e-5)


OPTIONS = {
    "denoising": dict(latent=8, hidden=(24,), corruption="salt_and_pepper", loss="cross_entropy"),
    "contractive": dict(latent=6, code_activation="sigmoid", tied=True, loss="cross_entropy", contractive=0.3),
    "deep contractive": dict(latent=3, hidden=(8,), activation="tanh", contractive=0.3),
    "sparse": dict(latent=12, code_activation="sigmoid", sparsity="kl", sparsity_weight=0.5),
    "l1": dict(latent=12, code_activation="relu", tied=True, sparsity="l1", sparsity_weight=0.05),
    "convolutional": dict(latent=2, hidden=(8, 8), convolutional=True, corruption="masking"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_training_lowers_the_loss_which_is_the_sum_of_its_terms(images, name):
    options = OPTIONS[name]
    recipe = autoencoder.recipe((8, 8, 1), optimiser=dict(name="adam", learning_rate=1e-2), **options)
    batch = {"image": images, "label": jnp.arange(16) % 10, "valid": jnp.ones(16, bool)}
    state = jax.jit(recipe.init)(KEY, batch)
    step, losses = jax.jit(recipe.train_step), []
    for index in range(40):
        state, metrics = step(state, batch, jax.random.key(index))
        losses.append(float(metrics["loss/total"]))
    terms = {key: value for key, value in metrics.items() if key != "loss/total"}
    np.testing.assert_allclose(metrics["loss/total"], sum(terms.values()), rtol=1e-5)
    expected = {"loss/reconstruction"} | ({"loss/contractive"} if "contractive" in options else set())
    assert set(terms) == expected | ({"loss/sparsity"} if "sparsity" in options else set())
    assert int(state.step) == 40 and np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    figures = recipe.score([(jax.device_get(batch), outputs)])
    assert all(math.isfinite(value) for value in figures.values())
    assert ("psnr_gain" in figures) == ("corruption" in options) and ("jacobian_norm" in figures) != (
        "convolutional" in options
    )
    shown = recipe.predict(state, batch, KEY)["image"]
    assert shown.shape == images.shape and shown.min() >= 0 and shown.max() <= 1
    assert recipe.sample(state, KEY, {"count": 3})["image"].shape == (3, 8, 8, 1)


def test_black_images_give_finite_losses_gradients_and_figures():
    batch = {"image": jnp.zeros((8, 8, 8, 1))}
    for name in ("contractive", "sparse", "l1"):
        recipe = autoencoder.recipe((8, 8, 1), **OPTIONS[name])
        state = recipe.init(KEY, batch)
        state, metrics = jax.jit(recipe.train_step)(state, batch, KEY)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((metrics, state.params, state.extra)))
        rows = {"code": np.zeros((8, 4), np.float32), "squared_error": np.zeros(8, np.float32)}
        assert autoencoder.evaluation.code_figures(rows)["sparseness"] == 0


def test_the_penalty_contracts_and_the_target_is_approached(images):
    batch = {"image": images}

    def trained(**options):
        recipe = autoencoder.recipe((8, 8, 1), optimiser=dict(name="adam", learning_rate=1e-2), **options)
        state, step = recipe.init(KEY, batch), jax.jit(recipe.train_step)
        for index in range(100):
            state, _ = step(state, batch, jax.random.key(index))
        outputs = jax.jit(recipe.eval_step)(state, batch, KEY)
        return recipe.score([jax.device_get((batch, outputs))])

    one_layer = dict(latent=8, code_activation="sigmoid")
    plain = trained(**one_layer)
    assert trained(**one_layer, contractive=1.0)["jacobian_norm"] < 0.5 * plain["jacobian_norm"]
    sparse = trained(**one_layer, sparsity="kl", sparsity_weight=10.0)
    assert abs(sparse["mean_activation"] - 0.05) < 0.5 * abs(plain["mean_activation"] - 0.05)


def test_mistakes_are_named():
    shape = (8, 8, 1)
    with pytest.raises(UserError, match=r"cannot be halved by hidden=\(4, 4, 4, 4\)"):
        autoencoder.recipe(shape, hidden=(4,) * 4, convolutional=True)
    with pytest.raises(UserError, match="needs a hidden layer"):
        autoencoder.recipe(shape, convolutional=True)
    with pytest.raises(UserError, match="tied=True"):
        autoencoder.recipe(shape, hidden=(4,), convolutional=True, tied=True)
    with pytest.raises(UserError, match="code_activation=\"sigmoid\", not 'linear'"):
        autoencoder.recipe(shape, sparsity="kl")
    with pytest.raises(UserError, match=r"corruption_level=1\.5: masking"):
        autoencoder.recipe(shape, corruption="masking", corruption_level=1.5)
    with pytest.raises(UserError, match=r"the images are \(8, 8, 1\)"):
        autoencoder.recipe((16, 16, 1)).init(KEY, {"image": jnp.zeros((2, 8, 8, 1))})
