"""The recipe of features: its figures, its sheets, and images of a class."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.interpret import features
from cvjax.interpret.activation_maximisation import Ascent

KEY = jax.random.key(0)


class Small(nn.Module):
    """Two convolutions with a ReLU each, and three classes."""

    @nn.compact
    def __call__(self, images):
        first = nn.relu(nn.Conv(4, (3, 3), padding=1, name="first")(images - 0.5))
        second = nn.relu(nn.Conv(4, (3, 3), strides=2, padding=1, name="second")(first))
        return nn.Dense(3)(second.mean(axis=(1, 2))), {"first": first, "second": second}


class Dense(nn.Module):
    """A classifier of pixels."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(3)(images.reshape(len(images), -1))


@pytest.fixture(scope="module")
def system():
    net = Network(Small(), (12, 12, 3), ("a", "b", "c"))
    recipe = features.recipe(net, ("first", "second", "output"), 2, 3, 8, 0.1, Ascent(steps=30, shift=1.0))
    batch = {"image": jax.random.uniform(KEY, (8, 12, 12, 3)) * 0.2 + 0.4}
    return recipe, jax.jit(recipe.init)(KEY, batch), batch


def test_images_made_for_channels_excite_them_more_than_any_of_the_dataset(system):
    recipe, state, batch = system
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    assert set(rows) == {f"{kind}/{layer}" for kind in ("real", "made") for layer in ("first", "second", "output")}
    assert all(value.shape == (8, 2) for value in rows.values())
    assert (rows["made/second"] == rows["made/second"][:1]).all()
    found = recipe.score([({}, rows)])
    assert found["activation_over_best"] == min(value for name, value in found.items() if "/" in name)
    assert found["activation_over_best/first"] > 1.5  # the dataset's images are nearly grey


def test_the_figure_is_the_median_over_channels_that_are_ever_active(system):
    rows = {f"real/{layer}": np.array([[1.0, 0.0], [2.0, 0.0]]) for layer in ("first", "second", "output")}
    rows |= {f"made/{layer}": np.array([[3.0, 5.0], [3.0, 5.0]]) for layer in ("first", "second", "output")}
    assert system[0].score([({}, rows)])["activation_over_best/first"] == 1.5


def test_a_sheet_has_a_row_for_a_channel_with_images_patches_and_projections(system, monkeypatch):
    recipe, state, batch = system
    drawn = []
    monkeypatch.setattr(features.top_patches, "sheet", lambda columns: drawn.append(columns) or np.ones((2, 2, 3)))
    assert list(recipe.visualise(state, batch, KEY)) == [f"features/{name}" for name in ("first", "second", "output")]
    for columns in drawn:
        shapes = {name: pictures.shape for name, pictures in columns.items()}
        assert shapes == {
            "made": (2, 1, 64, 64, 3),
            "patches": (2, 3, 64, 64, 3),
            "projections": (2, 3, 64, 64, 3),
        }
    values = drawn[0]["patches"]
    assert np.unique(values[1, 1, ..., 0]).size <= 10  # what a unit of the first layer sees is 3x3, enlarged, and grey


def test_samples_are_of_channels_or_of_a_class(system):
    recipe, state, batch = system
    for inputs in ({"count": 3}, {"count": 2, "label": np.array([1, 1])}):
        found = recipe.sample(state, KEY, inputs)["image"]
        assert found.shape == (inputs["count"], 8, 8, 3)
    logits = Small().apply(state.frozen["net"], found)[0]
    assert (logits[:, 1] > Small().apply(state.frozen["net"], batch["image"])[0][:, 1].max()).all()
    with pytest.raises(UserError, match="--count=9: the layer 'output' has 3 channels"):
        recipe.sample(state, KEY, {"count": 9})


def test_fewer_images_than_patches_give_a_smaller_sheet(system, monkeypatch):
    recipe, state, batch = system
    drawn = []
    monkeypatch.setattr(features.top_patches, "sheet", lambda columns: drawn.append(columns) or np.ones((2, 2, 3)))
    recipe.visualise(state, {"image": batch["image"][:2]}, KEY)
    assert drawn[0]["patches"].shape == (2, 2, 64, 64, 3)


def test_a_network_that_takes_one_size_wants_images_made_of_that_size():
    net = Network(Dense(), (12, 12, 3))
    batch = {"image": jax.numpy.zeros((1, 12, 12, 3))}
    jax.eval_shape(features.recipe(net, ("output",), size=12).init, KEY, batch)
    with pytest.raises(UserError, match=r"\(8, 8, 3\), but the network .* \(12, 12, 3\) .*: set config\.recipe\.size"):
        features.recipe(net, ("output",), size=8).init(KEY, batch)
    with pytest.raises(UserError, match=r"are \(16, 16, 3\), but .* resize them by data\.transforms"):
        features.recipe(net, ("output",), size=12).init(KEY, {"image": jax.numpy.zeros((1, 16, 16, 3))})
