"""Inversion: its loss beside NumPy in float64, its steps beside torch, and its recipe."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.interpret import inversion
from cvjax.interpret.inversion import Descent, alpha_norm, code_error, invert, variation

KEY = jax.random.key(0)


class Small(nn.Module):
    """Two convolutions with a ReLU each; the first layer keeps more of the image than the second."""

    @nn.compact
    def __call__(self, images):
        first = nn.relu(nn.Conv(8, (3, 3), padding=1, name="first")(images))
        second = nn.relu(nn.Conv(2, (3, 3), strides=2, padding=1, name="second")(first))
        return second, {"first": first, "second": second}


def test_the_error_of_a_code_is_relative_to_its_norm():
    code, target = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2))
    expected = [np.sum((a - b) ** 2) / np.sum(b**2) for a, b in zip(code, target, strict=True)]
    np.testing.assert_allclose(code_error(jnp.float32(code), jnp.float32(target)), expected, rtol=1e-5)
    assert code_error(jnp.zeros((1, 4)), jnp.ones((1, 4))) == 1
    dead = jnp.zeros((2, 4))
    np.testing.assert_array_equal(code_error(dead.at[1, 0].set(3.0), dead), [0, 9])
    np.testing.assert_array_equal(jax.grad(lambda code: code_error(code, dead).sum())(dead), dead)


@pytest.mark.parametrize(("alpha", "mean"), [(6.0, 0.5), (3.0, 0.2), (1.0, 0.2)])
def test_the_alpha_norm_is_of_the_image_less_its_mean(alpha, mean):
    images = np.random.default_rng(0).uniform(size=(2, 4, 5, 3))
    expected = [np.mean((np.linalg.norm(image - mean, axis=-1) / 0.25) ** alpha) for image in images]
    np.testing.assert_allclose(alpha_norm(jnp.float32(images), alpha, mean, 0.25), expected, rtol=1e-5)
    assert alpha_norm(jnp.full((1, 4, 4, 3), 0.5)) == 0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 6.0])
def test_the_alpha_norm_has_a_slope_of_zero_at_its_mean(alpha):
    slope = jax.grad(lambda images: alpha_norm(images, alpha).sum())(jnp.full((1, 4, 4, 3), 0.5))
    np.testing.assert_array_equal(slope, np.zeros((1, 4, 4, 3)))


def test_variation_is_a_mean_over_pixels_in_units_of_usual_differences():
    images = jnp.zeros((1, 4, 5, 3)).at[0, 1:3, 2].set(0.2)  # six pairs differ in each colour
    np.testing.assert_allclose(variation(images, 2.0, 0.1), [6 * 3 * 4 / 20], rtol=1e-5)


@pytest.mark.parity
def test_steps_equal_torchs():
    torch = pytest.importorskip("torch")
    held = Small().init(jax.random.key(1), jnp.ones((1, 8, 8, 3)))
    target = Small().apply(held, jax.random.uniform(KEY, (2, 8, 8, 3)))[0]
    descent = Descent(steps=8, learning_rate=0.05, beta=2.5, alpha_weight=0.1, variation_weight=0.01)
    code_fn = lambda images: Small().apply(held, images)[0]  # noqa: E731
    found, values = jax.jit(lambda key: invert(key, code_fn, target, (8, 8, 3), descent))(KEY)
    first = np.clip(0.5 + 0.1 * np.asarray(jax.random.normal(KEY, (2, 8, 8, 3))), 0, 1)
    x, code = torch.tensor(first, requires_grad=True), torch.tensor(np.asarray(target)).permute(0, 3, 1, 2)
    optimiser = torch.optim.Adam([x], lr=1.0)
    for step, value in enumerate(values):
        optimiser.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + np.cos(np.pi * step / 8))
        optimiser.zero_grad()
        y = x.permute(0, 3, 1, 2)
        for name, stride in (("first", 1), ("second", 2)):
            kernel, bias = (torch.tensor(np.asarray(held["params"][name][kind])) for kind in ("kernel", "bias"))
            y = torch.relu(torch.nn.functional.conv2d(y, kernel.permute(3, 2, 0, 1), bias, stride=stride, padding=1))
        error = (y - code).pow(2).sum((1, 2, 3)) / code.pow(2).sum((1, 2, 3))
        alpha = ((x - 0.5) / (80 / 255)).pow(2).sum(3).pow(3).mean((1, 2))
        below = torch.cat([x[:, 1:] - x[:, :-1], torch.zeros_like(x[:, :1])], dim=1)
        right = torch.cat([x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])], dim=2)
        squared = (below.pow(2) + right.pow(2)) / (80 / 255 / 6.5) ** 2
        loss = (error + 0.1 * alpha + 0.01 * squared.pow(1.25).sum((1, 2, 3)) / 64).sum()
        np.testing.assert_allclose(value, loss.item(), rtol=1e-4)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    np.testing.assert_allclose(found, x.detach().numpy(), atol=1e-4)  # eight steps of float32


def test_a_layer_that_keeps_more_is_inverted_better_and_starts_agree_there():
    recipe = inversion.recipe(Network(Small(), (8, 8, 3)), ("first", "second"), 2, Descent(steps=150))
    images = jax.image.resize(jax.random.uniform(KEY, (2, 2, 2, 3)), (2, 8, 8, 3), "linear")
    state = jax.jit(recipe.init)(KEY, {"image": images})
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, {"image": images}, KEY))
    shapes = dict.fromkeys(inversion.FIGURES, (2, 2)) | dict.fromkeys(("inversions", "starts"), (2, 2, 8, 8, 3))
    assert {name: value.shape for name, value in rows.items()} == shapes
    by_hand = [inversion.psnr(jnp.asarray(rows["inversions"][:, 0]), images), rows["psnr"][:, 0]]
    np.testing.assert_allclose(*by_hand, atol=1)  # the first start's, and the mean of two that agree
    np.testing.assert_array_equal(rows["inversions"][:, 1], rows["starts"][:, 0])
    shown = recipe.visualise(state, {"image": images}, KEY, rows)
    assert list(shown) == ["inversions", "starts"] and shown["inversions"].shape[-1] == 3
    found = recipe.score([({}, rows)])
    assert found["psnr_by_depth"] == pytest.approx(-1) and found["code_error"] < 0.05
    assert found["psnr/first"] > found["psnr/second"] and found["spread/first"] < found["spread/second"]
    assert found["psnr_drop"] == pytest.approx(found["psnr/first"] - found["psnr/second"])


def test_psnr_is_that_of_the_mean_squared_error():
    images = jnp.zeros((2, 4, 4, 3))
    np.testing.assert_allclose(inversion.psnr(images[None] + 0.1, images), [[20, 20]], rtol=1e-4)


def test_what_cannot_be_inverted_is_said():
    net = Network(Small(), (8, 8, 3))
    with pytest.raises(UserError, match="a layer is there twice"):
        inversion.recipe(net, ("first", "first"))
    for layers, channels, words in (
        (("frist",), 3, "Small has no layer 'frist'. Did you mean 'first'"),
        ((), 3, "layers is empty"),
        (("first",), 1, "the images have 1 channel, but those of the network have 3"),
    ):
        with pytest.raises(UserError, match=words):
            inversion.recipe(net, layers).init(KEY, {"image": jnp.zeros((1, 8, 8, channels))})
