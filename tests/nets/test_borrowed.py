"""What systems share that look at another run's classifier."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.nets.borrowed import BorrowedClassifier, logits_of, takes

KEY = jax.random.key(0)
IMAGES = jnp.ones((2, 4, 6, 1))


class Pixels(nn.Module):
    """Three classes from pixels: of one size."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(3)(images.reshape(len(images), -1))


class Means(nn.Module):
    """Three classes from the mean: of any size; beside them, activations."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(3)(images.mean(axis=(1, 2))), {"twice": 2 * images}


@pytest.mark.parametrize(("module", "any_size"), [(Pixels(), False), (Means(), True)])
def test_a_network_takes_the_shapes_that_leave_its_variables_as_they_are(module, any_size):
    network = Network(module, (4, 6, 1))
    assert takes(network, (4, 6, 1)) and takes(network, (8, 6, 1)) == any_size
    assert not takes(network, (4, 6, 3))


def test_logits_are_returned_alone_or_first():
    for module in (Pixels(), Means()):
        system = BorrowedClassifier(Network(module, (4, 6, 1)))
        state = system.hold(KEY, IMAGES)
        assert set(state.frozen) == {"classifier"} and system.networks == {"classifier": module}
        held = module.init(KEY, IMAGES)
        found = system.classify(state, IMAGES)
        assert found.shape == (2, 3)
        np.testing.assert_array_equal(found, logits_of(module, held, IMAGES))


@pytest.mark.parametrize("names", [(), ("a", "b", "c")])
def test_labels_are_held_against_the_logits(names):
    system = BorrowedClassifier(Network(Means(), (4, 6, 1), names))
    system.check_labels(np.array([0, 2]))
    for label in (3, -1):
        with pytest.raises(UserError, match=f"The label of an image is {label}; there are 3 classes, 0 to 2"):
            system.check_labels(np.array([0, label]))
