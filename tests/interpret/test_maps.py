"""Maps by name, the layers that Grad-CAM may take, randomised classifiers, and an edge filter beside scikit-image's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_classifier
from skimage.filters import sobel_h, sobel_v

from cvjax.errors import UserError
from cvjax.interpret import gradcam, maps, saliency
from cvjax.interpret.maps import Classifier
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.nets.efficientnet_lite import EfficientNetLite
from cvjax.nets.vgg import VGG
from cvjax.recognition.image_classifier import ResNetClassifier

LABELS = jnp.array([2, 0])


@pytest.fixture(scope="module")
def small():
    return small_classifier.make()


@pytest.fixture(scope="module")
def classifier(small):
    return Classifier(small_classifier.Net(), small.held)


def explain(classifier, images, method, **options):
    return maps.explain(jax.random.key(0), method, classifier, images, LABELS, **options)


def test_maps_are_those_of_the_functions(small, classifier):
    found = explain(classifier, small.images, "gradcam")
    last = gradcam.gradcam(small.activations, small.images, LABELS, "relu2")
    np.testing.assert_allclose(found, gradcam.enlarge(last, 8, 10), atol=1e-6)
    other = explain(classifier, small.images, "gradcam", layer="conv1")
    first = gradcam.gradcam(small.activations, small.images, LABELS, "conv1")
    np.testing.assert_allclose(other, first, atol=1e-6)  # of the image's own size
    found = explain(classifier, small.images, "saliency")
    np.testing.assert_allclose(found, saliency.saliency(small.logits, small.images, LABELS), atol=1e-6)
    hidden = explain(classifier, small.images, "occlusion", window=4, stride=4, baseline=0.5)
    whole = saliency.occlusion(small.logits, small.images, LABELS, 4, 4, 0.5)
    np.testing.assert_allclose(hidden, np.maximum(whole, 0), atol=1e-6)
    with pytest.raises(UserError, match=r"there is no method 'grad-cam'\. Did you mean 'gradcam'"):
        explain(classifier, small.images, "grad-cam")


def test_maps_are_the_largest_of_the_channels_or_their_sum():
    channels, pixels = jnp.array([[[[1.0, -3, 1], [2, 2, -1]]]]), jnp.array([[[-2.0, 3]]])
    assert maps.strength(channels).tolist() == [[[3, 2]]] and maps.with_sign(channels).tolist() == [[[-1, 3]]]
    assert maps.strength(pixels).tolist() == [[[0, 3]]] and maps.with_sign(pixels).tolist() == pixels.tolist()


@pytest.mark.parametrize(
    ("net", "side", "last", "others"),
    [
        (DigitClassifier(width=2, features=3), 8, "conv_2_2", {"conv_1_1", "conv_1_2", "conv_2_1"}),
        (ResNetClassifier(3, 18, 2, "small", (2, 2, 2, 2)), 32, "c5", {"c2", "c3", "c4"}),
        (EfficientNetLite(3, width=0.2, depth=0.2), 64, "head", {"stem", "block_2", "block_7"}),
        (VGG(11, width=2, head="classifier", hidden=4), 64, "pool5", {"relu5_2", "pool1"}),
    ],
)
def test_the_layers_of_our_networks(net, side, last, others):
    images = jnp.zeros((1, side, side, 1))
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    assert maps.find_layer(net, variables, images) == last
    assert others < set(maps.layers(net, variables, images))
    assert "fc6" not in maps.layers(net, variables, images)
    with pytest.raises(UserError, match="has no layer 'features'"):
        maps.find_layer(net, variables, images, "features")


def test_a_network_without_activations_is_refused():
    class Logits(small_classifier.nn.Module):
        @small_classifier.nn.compact
        def __call__(self, images):
            return small_classifier.nn.Dense(3)(images.mean((1, 2)))

    images = jnp.ones((2, 4, 4, 3))
    plain = Classifier(Logits(), Logits().init(jax.random.key(0), images))
    with pytest.raises(UserError, match=r"Logits returns none beside its logits\. Give it an attribute `capture`"):
        explain(plain, images, "gradcam")
    assert explain(plain, images, "saliency").shape == (2, 4, 4)


def test_chosen_modules_are_random_again(small, classifier):
    after = maps.randomise(jax.random.key(4), classifier, small.images, ("out",))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), after.variables, small.held)["params"]
    assert changed["out"]["kernel"] and not any(jax.tree.leaves({**changed, "out": {}}))
    with pytest.raises(UserError, match=r"Net has no module 'conv3'\. Did you mean 'conv"):
        maps.randomise(jax.random.key(4), classifier, small.images, ("out", "conv3"))
    after = maps.randomise(jax.random.key(4), classifier, small.images)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), after.variables, small.held)))


def test_edges_are_scikit_images():
    images = jax.random.uniform(jax.random.key(0), (2, 9, 12, 3))
    for found, grey in zip(maps.edges(images), np.asarray(images.mean(-1)), strict=True):
        expected = np.hypot(sobel_h(grey), sobel_v(grey)) * 4  # scikit-image divides the filter by its sum
        np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-5)
