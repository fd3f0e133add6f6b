"""Grad-CAM: Captum on a torch copy, class activation maps in closed form, and layers that cannot be asked for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_classifier

from cvjax.errors import UserError
from cvjax.interpret.gradcam import enlarge, gradcam, shifted

LABELS = jnp.array([2, 0])


@pytest.fixture(scope="module")
def classifier():
    return small_classifier.make()


@pytest.mark.parity
@pytest.mark.parametrize(("layer", "index"), [("conv2", 3), ("relu2", 4), ("relu1", 2)])
def test_captum_finds_the_same_on_a_torch_copy(classifier, layer, index):
    attr = pytest.importorskip("captum.attr")
    torch, copy, x = small_classifier.torch_copy(classifier)
    method = attr.LayerGradCam(copy, copy[index])
    theirs = method.attribute(x, torch.tensor(np.asarray(LABELS)), relu_attributions=True).detach().numpy()[:, 0]
    assert theirs.max() > 0
    found = jax.jit(lambda x, labels: gradcam(classifier.activations, x, labels, layer))(classifier.images, LABELS)
    np.testing.assert_allclose(found, theirs, atol=1e-5 * theirs.max(), rtol=0)


def averaged(x):
    """Features, their mean, and a linear classifier: its class activation map is known (Zhou et al., 2016)."""
    features = jnp.concatenate([x, 1 - x, x**2], axis=-1)
    return features.mean((1, 2)) @ jnp.arange(-6.0, 6).reshape(3, 4), {"features": features, "mean": features[:, 0]}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(f))])
def test_it_is_the_class_activation_map_of_an_averaging_network(wrap):
    images, labels = jax.random.uniform(jax.random.key(0), (2, 5, 6, 1)), jnp.array([3, 0])
    found = gradcam(wrap(averaged), images, labels, "features")
    weights = jnp.arange(-6.0, 6).reshape(3, 4).T[labels]
    expected = np.einsum("bhwc,bc->bhw", averaged(images)[1]["features"], weights) / 30
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-6)
    assert expected.min() < 0 < expected.max()


def test_a_layer_may_be_returned_in_another_dtype():
    def fn(x):
        logits, activations = averaged(x.astype(jnp.bfloat16))
        return logits.astype(jnp.float32), {"features": activations["features"].astype(jnp.float32)}

    images, labels = jax.random.uniform(jax.random.key(0), (2, 5, 6, 1)), jnp.array([3, 0])
    exact = gradcam(averaged, images, labels, "features")
    np.testing.assert_allclose(gradcam(fn, images, labels, "features"), exact, atol=0.03 * exact.max())  # 8 bits


def test_a_shift_of_the_layer_changes_what_follows(classifier):
    evaluate, zeros = shifted(classifier.activations, classifier.images, "relu2")
    logits, activations = classifier.activations(classifier.images)
    for shift in (zeros, zeros + 0.5):
        x = (activations["relu2"] + shift).reshape(2, -1)
        held = classifier.held["params"]
        x = nn.relu(x @ held["hidden"]["kernel"] + held["hidden"]["bias"])
        found, features = evaluate(shift)
        np.testing.assert_allclose(found, x @ held["out"]["kernel"] + held["out"]["bias"], atol=1e-5)
        np.testing.assert_array_equal(features, activations["relu2"] + shift)
    np.testing.assert_allclose(evaluate(zeros)[0], logits, atol=1e-6)


def test_each_image_has_its_own_map(classifier):
    whole = gradcam(classifier.activations, classifier.images, LABELS, "relu2")
    alone = gradcam(classifier.activations, classifier.images[1:], LABELS[1:], "relu2")
    np.testing.assert_allclose(whole[1:], alone, atol=1e-6)


def test_layers_that_cannot_be_explained_are_refused(classifier):
    with pytest.raises(UserError, match=r"there is no layer 'relu3'\. Did you mean 'relu2'"):
        gradcam(classifier.activations, classifier.images, LABELS, "relu3")
    images = jnp.ones((2, 4, 4, 1))
    with pytest.raises(UserError, match=r"the layer 'mean' is \[2, 4, 3\], not \[batch, rows"):
        gradcam(averaged, images, LABELS, "mean")
    copied = lambda x: (averaged(x)[0], {"copy": averaged(x)[1]["features"] + 0})  # noqa: E731
    with pytest.raises(UserError, match="the logits are not computed from the layer 'copy'"):
        gradcam(copied, images, LABELS, "copy")
    constant = jnp.ones((2, 4, 4, 3))
    for features in (lambda x: x, lambda x: x.astype(jnp.bfloat16), lambda x: constant):
        given = lambda x, f=features: (f(x).astype(jnp.float32).sum((1, 2)), {"input": f(x)})  # noqa: E731
        with pytest.raises(UserError, match="the layer 'input' is the images themselves or a constant"):
            gradcam(given, images, jnp.array([0, 0]), "input")


def test_maps_are_enlarged_without_new_extremes():
    found = enlarge(jnp.array([[[0.0, 1.0], [0.0, 0.0]]]), 6, 8)
    assert found.shape == (1, 6, 8) and found.min() == 0 and found.max() == 1
    assert jnp.unravel_index(found[0].argmax(), (6, 8)) == (0, 6)
