"""Gram matrices and losses beside the papers' formulas in float64, gradients beside torch's, and the objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.losses.variation import total_variation
from cvjax.translation import style_losses
from cvjax.translation.style_losses import Objective

SHAPES = {"relu1_1": (6, 8, 3), "relu2_1": (3, 4, 5)}
WEIGHTS = {"relu1_1": 0.3, "relu2_1": 0.7}


def random_features(seed, batch=2):
    generator = np.random.default_rng(seed)
    return {layer: jnp.float32(generator.normal(size=(batch, *shape))) for layer, shape in SHAPES.items()}


def by_hand(found, wanted):
    """Equations 3 to 5 of the paper, for pictures of one size: sums over places, and 1 / (4 N^2 M^2)."""
    total = np.zeros(2)
    for layer, weight in WEIGHTS.items():
        rows, columns, channels = SHAPES[layer]
        flat, flat_wanted = (np.asarray(x[layer], np.float64).reshape(2, -1, channels) for x in (found, wanted))
        difference = flat.swapaxes(1, 2) @ flat - flat_wanted.swapaxes(1, 2) @ flat_wanted
        total += weight * (difference**2).sum(axis=(1, 2)) / (4 * channels**2 * (rows * columns) ** 2)
    return total


def test_losses_are_the_papers_in_float64():
    found, wanted = random_features(1), random_features(2)
    matrices = [style_losses.grams(x, [*SHAPES]) for x in (found, wanted)]
    np.testing.assert_allclose(style_losses.style_loss(*matrices, WEIGHTS), by_hand(found, wanted), rtol=1e-5)
    x, y = (np.asarray(features["relu1_1"], np.float64) for features in (found, wanted))
    content = style_losses.content_loss(found["relu1_1"], wanted["relu1_1"])
    np.testing.assert_allclose(content, 0.5 * ((x - y) ** 2).sum(axis=(1, 2, 3)), rtol=1e-5)
    down, right = x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]
    variation = (down**2).sum(axis=(1, 2, 3)) + (right**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(total_variation(found["relu1_1"]), variation, rtol=1e-5)


def test_a_gram_matrix_does_not_depend_on_the_size_of_the_picture():
    features = random_features(1)["relu1_1"]
    twice = jnp.concatenate([features, features], axis=1)
    np.testing.assert_allclose(style_losses.gram(twice), style_losses.gram(features), rtol=1e-5)
    half = style_losses.gram(jnp.asarray(features, jnp.bfloat16))
    assert half.dtype == jnp.float32  # sums of products over all places


def test_a_mixture_is_as_good_a_target_as_the_weighted_losses():
    """They differ by a constant, so that the differences between two pictures are equal."""
    pictures = style_losses.grams(random_features(3), [*SHAPES])
    styles = style_losses.grams(random_features(4, batch=3), [*SHAPES])
    shares = jnp.array([0.5, 0.3, 0.2])
    one = style_losses.style_loss(pictures, style_losses.mixture(styles, shares), WEIGHTS)
    each = [style_losses.style_loss(pictures, {n: g[i] for n, g in styles.items()}, WEIGHTS) for i in range(3)]
    weighted = sum(share * loss for share, loss in zip(shares, each, strict=True))
    np.testing.assert_allclose(one[0] - one[1], weighted[0] - weighted[1], rtol=1e-3)


@pytest.mark.parity
def test_gradients_are_torchs():
    torch = pytest.importorskip("torch")
    found, wanted = random_features(1), random_features(2)
    target = style_losses.grams(wanted, [*SHAPES])

    def ours(features):
        style = style_losses.style_loss(style_losses.grams(features, [*SHAPES]), target, WEIGHTS)
        content = style_losses.content_loss(features["relu2_1"], wanted["relu2_1"])
        return (style + content + total_variation(features["relu1_1"])).sum()

    gradients = jax.grad(ours)(found)
    inputs = {
        layer: torch.tensor(np.asarray(value), dtype=torch.float64, requires_grad=True)
        for layer, value in found.items()
    }
    total = 0
    for layer, weight in WEIGHTS.items():
        rows, columns, channels = SHAPES[layer]
        flat, flat_wanted = (
            x.reshape(2, rows * columns, channels).transpose(1, 2)
            for x in (inputs[layer], torch.tensor(np.asarray(wanted[layer]), dtype=torch.float64))
        )
        difference = torch.bmm(flat, flat.transpose(1, 2)) - torch.bmm(flat_wanted, flat_wanted.transpose(1, 2))
        total = total + weight * (difference**2).sum() / (4 * channels**2 * (rows * columns) ** 2)
    total = (
        total
        + 0.5 * ((inputs["relu2_1"] - torch.tensor(np.asarray(wanted["relu2_1"]), dtype=torch.float64)) ** 2).sum()
    )
    x = inputs["relu1_1"]
    total = total + ((x[:, 1:] - x[:, :-1]) ** 2).sum() + ((x[:, :, 1:] - x[:, :, :-1]) ** 2).sum()
    total.backward()
    for layer, value in inputs.items():
        np.testing.assert_allclose(gradients[layer], value.grad.numpy(), atol=1e-5)  # float32 beside float64


def test_a_wrong_number_of_weights_is_named():
    with pytest.raises(UserError, match=r"layer_weights has 2 weights for 5 layers"):
        _ = Objective(layer_weights=(1.0, 2.0)).weights
    assert Objective().weights == dict.fromkeys(Objective().style, 0.2)
    assert Objective(content=("a", "b"), style=("b",)).layers == ("a", "b")
