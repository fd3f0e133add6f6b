"""What systems share that look at a classifier of another run: its place in their state, its logits and its labels."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from cvjax.core import Network, State, Variables, start, variables
from cvjax.metrics import classification

Images = Float[Array, "batch height width channels"]
Logits = Float[Array, "batch classes"]


def logits_of(module: nn.Module, held: Variables, images: Images) -> Logits:
    """Returns the logits of a network that returns them alone or beside its activations."""
    output = module.apply(held, images)
    return output[0] if isinstance(output, tuple) else output


def takes(network: Network, shape: tuple[int, int, int]) -> bool:
    """Returns whether a network has the same variables for images of another shape as for those of its training."""
    if tuple(shape) == tuple(network.shape):
        return True
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = [jax.ShapeDtypeStruct((1, *size), jnp.float32) for size in (network.shape, shape)]
    one, other = (jax.tree.map(jnp.shape, jax.eval_shape(network.module.init, key, each)) for each in images)
    return one == other


@dataclasses.dataclass(frozen=True)
class BorrowedClassifier:
    """Base of systems that look at another run's classifier and do not train it. The attribute is `recipe`'s."""

    classifier: Network
    train_step = None
    predict_inputs = ("label",)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The classifier."""
        return {"classifier": self.classifier.module}

    def hold(self, key: Key[Array, ""], images: Images) -> State:
        """Makes a state that has room for the classifier."""
        return start({}, {}, frozen={"classifier": self.classifier.module.init(key, images)})

    def classify(self, state: State, images: Images) -> Logits:
        """Returns the classifier's logits."""
        return logits_of(self.classifier.module, variables(state, "classifier"), images)

    def check_labels(self, labels: Integer[np.ndarray, " examples"]) -> None:
        """Raises a UserError if a label is not one of the classifier's classes."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        images = jax.ShapeDtypeStruct((1, *self.classifier.shape), jnp.float32)
        logits = jax.eval_shape(lambda key, images: self.classify(self.hold(key, images), images), key, images)
        classification.check_labels(labels, logits.shape[-1])
